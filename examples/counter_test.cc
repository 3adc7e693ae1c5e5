// How a program tests that it stops well, without a process and without
// waiting.
#include <csignal>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace {

using ::testing::HasSubstr;
using tocsin::BlockingQueue;
using tocsin::CleanUpScope;
using tocsin::FakeSignals;
using tocsin::kRendezvous;
using tocsin::kUnbounded;
using tocsin::Shutdown;
using tocsin::TaskGroup;

// [guide: clean-up]
// Counts visitors until it is stopped, and then saves the count.
absl::Status Count(BlockingQueue<std::string>& visitors,
                   BlockingQueue<int>& disk) {
  int count = 0;
  for ([[maybe_unused]] const std::string& visitor : visitors) ++count;
  // The scope is cancelled, and every wait in it returns at once. Not here:
  CleanUpScope save;
  return disk.Push(count);
}
// [guide]

// [guide: test]
TEST(Count, IsSavedWhenTheProgramIsStopped) {
  FakeSignals signals;
  BlockingQueue<std::string> visitors(kRendezvous);
  BlockingQueue<int> disk(kUnbounded);
  TaskGroup group;
  const auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)});
  ASSERT_TRUE(shutdown.ok());
  group.Spawn([&] { return Count(visitors, disk); });

  ASSERT_TRUE(visitors.Push("Ada").ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(visitors.Push("Alan").ok());  // draining: it still serves
  signals.Advance(absl::Seconds(5));        // stopping
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(*disk.TryPop(), 2);
}
// [guide]

// [guide: stuck]
TEST(Count, IsNamedIfItCannotBeSavedInTime) {
  FakeSignals signals;
  BlockingQueue<std::string> visitors(kRendezvous);
  BlockingQueue<int> stuck_disk(kRendezvous);
  TaskGroup group;
  const auto shutdown =
      Shutdown::Start(signals.service(), group, {.grace = absl::Seconds(30)});
  ASSERT_TRUE(shutdown.ok());
  group.Spawn([&] { return Count(visitors, stuck_disk); },
              {.name = "visitors"});

  ASSERT_TRUE(visitors.Push("Ada").ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(30));
  ASSERT_TRUE(signals.death().has_value());
  EXPECT_EQ(signals.death()->signum, SIGTERM);
  EXPECT_THAT(signals.death()->report, HasSubstr("    visitors "));
  stuck_disk.Close();
  EXPECT_TRUE(absl::IsOutOfRange(group.Wait()));
}
// [guide]

}  // namespace
