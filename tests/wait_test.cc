#include "tocsin/concurrency/wait.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <latch>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/const_init.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/status_matchers.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

TEST(SleepUntil, ReturnsOnceTheTimeHasCome) {
  const absl::Time time = internal::WallNow() + absl::Milliseconds(2);
  EXPECT_TRUE(SleepUntil(time).ok());
  EXPECT_GE(internal::WallNow(), time);
}

// T008, J: negative means already expired
TEST(SleepFor, WhatIsNotAheadIsOverAtOnce) {
  EXPECT_TRUE(tocsin::Sleep(absl::ZeroDuration()).ok());
  EXPECT_TRUE(tocsin::Sleep(absl::Seconds(-1)).ok());
  EXPECT_TRUE(tocsin::Sleep(-absl::InfiniteDuration()).ok());
  EXPECT_TRUE(SleepUntil(absl::InfinitePast()).ok());
  EXPECT_TRUE(SleepUntil(absl::UnixEpoch()).ok());
}

// A022, T010
TEST(SleepFor, FailsInACancelledScopeEvenForNoTime) {
  CancelScope scope;
  scope.Cancel(absl::CancelledError("enough"));
  EXPECT_THAT(tocsin::Sleep(absl::ZeroDuration()),
              Says(absl::CancelledError("enough")));
  EXPECT_THAT(tocsin::Sleep(absl::InfiniteDuration()),
              Says(absl::CancelledError("enough")));
  EXPECT_THAT(SleepUntil(absl::InfinitePast()),
              Says(absl::CancelledError("enough")));
}

// A024, A026, J: interrupts running sleepers
TEST(SleepFor, AnInfiniteSleepEndsWithItsScope) {
  absl::Status status;
  ScopedThread sleeper(
      [&] { status = tocsin::Sleep(absl::InfiniteDuration()); });
  sleeper.AwaitAsleep();
  sleeper.scope().Cancel(absl::CancelledError("enough"));
  sleeper.Join();
  EXPECT_THAT(status, Says(absl::CancelledError("enough")));
}

// A035, A040, T034
TEST(SleepUntil, TheDeadlineOfTheScopeComesFirst) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntil(absl::InfiniteFuture())));
  EXPECT_TRUE(absl::IsDeadlineExceeded(tocsin::Sleep(absl::Hours(1))));
}

// A063
TEST(SleepUntil, ADeadlineMovedAwayLetsItSleepOn) {
  absl::Status status;
  ScopedThread sleeper(
      [&] { status = tocsin::Sleep(absl::InfiniteDuration()); });
  sleeper.scope().set_deadline(absl::Now() + absl::Hours(1));
  sleeper.AwaitAsleep();
  sleeper.scope().set_deadline(absl::InfiniteFuture());
  sleeper.AwaitAsleep();
  sleeper.scope().set_deadline(absl::Now());
  sleeper.Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

// Woken for nothing, it falls asleep again.
TEST(SleepUntil, WokenByADeadlineThatIsMovedAwayItDoesNotSpin) {
  ScopedThread sleeper([] {
    EXPECT_TRUE(absl::IsCancelled(tocsin::Sleep(absl::InfiniteDuration())));
  });
  sleeper.AwaitAsleep();
  const int64_t before = sleeper.TimesAsleep();
  sleeper.scope().set_deadline(absl::Now() + absl::Hours(1));
  while (sleeper.TimesAsleep() == before) std::this_thread::yield();
  sleeper.AwaitAsleep();
  sleeper.scope().Cancel();
}

// The time comes while the scope has news all the time.
TEST(SleepUntil, NewsOfTheScopeDoNotEndItEarly) {
  const absl::Time time = internal::WallNow() + absl::Milliseconds(5);
  ScopedThread sleeper([&] {
    EXPECT_TRUE(SleepUntil(time).ok());
    EXPECT_GE(internal::WallNow(), time);
  });
  while (internal::WallNow() < time) {
    sleeper.scope().set_deadline(internal::WallNow() + absl::Hours(1));
    std::this_thread::yield();
  }
}

// True in the call that thread `task` sleeps in, if that is this one. What
// wakes another thread by a futex is not.
bool IsIn(long call, const std::string& task) {
  std::ifstream file("/proc/" + task + "/syscall");
  long number = -1;
  std::string word, operation;
  if (!(file >> number >> word >> operation) || number != call) return false;
  return call != SYS_futex ||
         (std::stol(operation, nullptr, 16) & FUTEX_CMD_MASK) != FUTEX_WAKE;
}

// One of each way to sleep, in a pool of one. That it gave its slot away is
// seen by the fact that the next task starts without a look of the monitor,
// which the pool rouses as soon as a task finds no slot.
struct Sleep {
  const char* name;
  std::function<void()> sleep;
  std::function<bool(const std::string& task)> asleep;
};

void PrintTo(const Sleep& sleep, std::ostream* out) { *out << sleep.name; }

bool IsInFutex(const std::string& task) { return IsIn(SYS_futex, task); }

ABSL_CONST_INIT absl::Mutex awaited(absl::kConstInit);
std::atomic<bool> awaited_was_held = false;

// On its way to Await() it may wait for other things in a futex; but what lets
// go of the mutex is asleep.
bool LetGoOfAwaited(const std::string&) {
  if (!awaited_was_held) return false;
  if (!awaited.TryLock()) return false;
  awaited.Unlock();
  return true;
}

class SleepInAPool : public ::testing::TestWithParam<Sleep> {};

INSTANTIATE_TEST_SUITE_P(
    Ways, SleepInAPool,
    ::testing::Values(
        Sleep{"Event", [] { Event().Wait().IgnoreError(); }, IsInFutex},
        Sleep{"SleepFor",
              [] { tocsin::Sleep(absl::InfiniteDuration()).IgnoreError(); },
              IsInFutex},
        Sleep{"PollFd",
              [] {
                int ends[2];
                ASSERT_EQ(pipe(ends), 0);
                PollFd(ends[0], POLLIN).IgnoreError();
                close(ends[0]);
                close(ends[1]);
              },
              [](const std::string& task) { return IsIn(SYS_ppoll, task); }},
        Sleep{"Await",
              [] {
                bool never = false;
                internal::MutexLock lock(awaited);
                awaited_was_held = true;
                Await(awaited, absl::Condition(&never)).IgnoreError();
              },
              LetGoOfAwaited}),
    [](const auto& way) { return std::string(way.param.name); });

TEST_P(SleepInAPool, GivesItsSlotToAnotherTask) {
  AtStep monitor_looks("PoolMonitor: looks", [] {});
  auto pool = *ThreadPool::Create({.name = "sleepers", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::string task;
  std::latch started(1);
  group.Spawn([&] {
    task = TaskOfThisThread();
    started.count_down();
    GetParam().sleep();
  });
  started.wait();
  while (!GetParam().asleep(task)) std::this_thread::yield();
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  EXPECT_FALSE(monitor_looks.passed());
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
}

}  // namespace
}  // namespace tocsin
