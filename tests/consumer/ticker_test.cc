#include "ticker.h"

#include <csignal>
#include <cstdlib>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace {

TEST(Ticker, EndsWhenTheProgramIsStopped) {
  tocsin::FakeSignals signals;
  tocsin::TaskGroup group;
  auto shutdown = tocsin::Shutdown::Start(signals.service(), group).value();
  tocsin::Event ticked;
  group.Spawn([&] { return Tick([&](int) { ticked.Set(); }); });
  ASSERT_TRUE(ticked.Wait().ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  const absl::Status status = group.Wait();
  EXPECT_TRUE(status.ok()) << status;
}

void RunUntilSigterm() {
  std::exit(tocsin::Run([](tocsin::Program& program) {
    program.tasks().Spawn(
        [] { return Tick([](int) { tocsin::Raise(SIGTERM).IgnoreError(); }); });
    return program.tasks().Wait();
  }));
}

TEST(Ticker, LetsTheProgramDieByTheSignalThatStopsIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(RunUntilSigterm(), testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
