#include "tocsin/signals/stop_on_signal.h"

#include <csignal>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;
using ::testing::KilledBySignal;

absl::Status WaitForEver() { return Event().Wait(); }

// P1
TEST(StopOnSignal, ASignalRequestsTheTokenAndIsTheCause) {
  auto service = StartService();
  StopOnSignal stop(*service, {SIGINT, SIGTERM});
  ASSERT_TRUE(stop.status().ok());
  EXPECT_FALSE(stop.cause().has_value());
  std::latch stopped(1);
  std::stop_callback callback(stop.stop_token(), [&] { stopped.count_down(); });
  EXPECT_FALSE(stop.stop_token().stop_requested());
  SendSelf(SIGINT);
  stopped.wait();
  EXPECT_EQ(stop.cause()->signum, SIGINT);
  EXPECT_EQ(stop.cause()->sender->pid, getpid());
}

// P11
TEST(StopOnSignal, CancelsAndJoinsATaskGroupThatIsTiedToIt) {
  FakeSignals signals;
  TaskGroup group;
  StopOnSignal stop(signals.service());
  stop.Tie(group.scope());
  for (int i = 0; i < 8; ++i) {
    group.Spawn([] {
      const absl::Status status = WaitForEver();
      EXPECT_TRUE(absl::IsCancelled(status));
      EXPECT_THAT(std::string(status.message()), HasSubstr("SIGTERM from pid"));
    });
  }
  std::latch running(1);
  group.Spawn([&] { running.count_down(); });
  running.wait();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(stop.cause()->signum, SIGTERM);
}

TEST(StopOnSignal, CancelsAtOnceWhatIsTiedLater) {
  FakeSignals signals;
  StopOnSignal stop(signals.service());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  while (!stop.cause().has_value()) sched_yield();
  CancelScope scope;
  stop.Tie(scope);
  EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
}

// P3
TEST(StopOnSignal, IsStoppedWithTheScopeThatItWasMadeIn) {
  FakeSignals signals;
  CancelScope outer;
  std::optional<StopOnSignal> early(std::in_place, signals.service());
  EXPECT_FALSE(early->stop_token().stop_requested());
  outer.Cancel();
  EXPECT_TRUE(early->stop_token().stop_requested());
  EXPECT_FALSE(early->cause().has_value());
  StopOnSignal late(signals.service());
  EXPECT_TRUE(late.stop_token().stop_requested());
}

TEST(StopOnSignal, RunsItsCallbacksOnAThreadOfItsOwn) {
  auto service = StartService();
  StopOnSignal stop(*service);
  std::latch stopped(1);
  std::string name(16, '\0');
  std::stop_callback callback(stop.stop_token(), [&] {
    pthread_getname_np(pthread_self(), name.data(), name.size());
    stopped.count_down();
  });
  SendSelf(SIGTERM);
  stopped.wait();
  EXPECT_STREQ(name.c_str(), "tocsin-stop");
}

TEST(StopOnSignal, LeavesIgnoredSignalsAlone) {
  SetDisposition(SIGINT, SIG_IGN);
  auto service = StartService();
  StopOnSignal stop(*service);
  SendSelf(SIGINT);
  SendSelf(SIGTERM);
  while (!stop.cause().has_value()) sched_yield();
  EXPECT_EQ(stop.cause()->signum, SIGTERM);
  SetDisposition(SIGINT, SIG_DFL);
}

TEST(StopOnSignal, TellsWhyItCannotListen) {
  FakeSignals signals;
  StopOnSignal stop(signals.service(), {SIGKILL});
  EXPECT_TRUE(absl::IsInvalidArgument(stop.status()));
}

// P5
TEST(StopOnSignalDeathTest, ASecondSignalHasItsPreviousEffect) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        StopOnSignal stop(*service);
        Raise(SIGTERM);
        while (!stop.cause().has_value()) sched_yield();
        Raise(SIGINT);
        _exit(0);
      },
      KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace tocsin
