// What a task group promises, whatever number of threads its pool has.
#include "tocsin/concurrency/task_group.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {
namespace {

absl::Status SleepUntilCancelled() {
  internal::Sleeper sleeper("a test");
  while (true) {
    if (absl::Status status = sleeper.Sleep(); !status.ok()) return status;
  }
}

std::unique_ptr<ThreadPool> PoolOf(int threads) {
  return *ThreadPool::Create({.name = "test", .threads = threads});
}

class TaskGroupTest : public testing::TestWithParam<int> {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  const std::unique_ptr<ThreadPool> pool_ = PoolOf(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Workers, TaskGroupTest, testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

// A002
TEST_P(TaskGroupTest, WaitReturnsWhenAllTasksHaveRun) {
  TaskGroup group(InPool());
  std::atomic<int> ran{0};
  for (int i = 0; i < 1000; ++i) group.Spawn([&] { ++ran; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 1000);
}

// A081: the scope of a task is its group's, not that of who spawned it.
TEST_P(TaskGroupTest, ATaskIsNotInTheScopeOfItsSpawner) {
  TaskGroup group(InPool());
  absl::Status spawned = absl::UnknownError("never ran");
  {
    CancelScope spawner;
    spawner.Cancel();
    group.Spawn([&] { spawned = CheckCancelled(); });
  }
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(spawned.ok());
}

// A003
TEST(TaskGroup, WorksOnAnyThreadWithTheDefaultPool) {
  std::thread foreign([] {
    TaskGroup group;
    std::atomic<int> ran{0};
    for (int i = 0; i < 100; ++i) group.Spawn([&] { ++ran; });
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_EQ(ran, 100);
  });
  foreign.join();
}

// J: wait without tasks, twice; A085: an empty group in a cancelled scope.
TEST_P(TaskGroupTest, AnEmptyGroupEndsWellEvenInACancelledScope) {
  CancelScope outer;
  outer.Cancel();
  TaskGroup group(InPool());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(group.Wait().ok());
}

// A001, A005, T023, J: spawn after wait.
TEST_P(TaskGroupTest, SpawningOnAClosedGroupIsAFailure) {
  TaskGroup group(InPool());
  group.Spawn([] {});
  ASSERT_TRUE(group.Wait().ok());
  auto token = std::make_shared<int>();
  bool ran = false;
  group.Spawn([&ran, token] { ran = true; }, {.name = "late"});
  EXPECT_EQ(token.use_count(), 1);
  group.SpawnBackground([&ran, token] { ran = true; });
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(ran);
  ASSERT_EQ(group.failures().size(), 2);
  EXPECT_EQ(group.failures()[0].task, "late");
}

// A004, A084, T023: also while another thread waits already.
TEST_P(TaskGroupTest, ATaskMaySpawnIntoItsGroupWhileTheGroupIsWaitedFor) {
  TaskGroup group(InPool());
  std::atomic<int> ran{0};
  std::function<void(int)> chain = [&](int left) {
    ++ran;
    if (left > 0) group.Spawn([&chain, left] { chain(left - 1); });
  };
  group.Spawn([&] { chain(10); });  // B: a task respawns itself 10 times
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 11);
}

// J: wait from inside.
TEST_P(TaskGroupTest, ATaskThatWaitsForItsOwnGroupIsRefused) {
  TaskGroup group(InPool());
  absl::Status inner;
  group.Spawn([&] { inner = group.Wait(); });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(inner.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(TaskGroupTest, ATaskOfAnInnerGroupThatWaitsForTheOuterOneIsRefused) {
  TaskGroup outer(InPool());
  absl::Status status;
  outer.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([&] { status = outer.Wait(); });
    EXPECT_TRUE(inner.Wait().ok());
  });
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

// It knows what it is in also after it has run a task of another group.
TEST_P(TaskGroupTest, ATaskThatHasWaitedForAnotherGroupIsRefusedToo) {
  TaskGroup outer(InPool());
  absl::Status status;
  outer.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([] {});
    EXPECT_TRUE(inner.Wait().ok());
    status = outer.Wait();
  });
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

// A074, B: move-only, large and borrowed functors.
TEST_P(TaskGroupTest, ClosuresOfAnyKindAreRunOnceAndGoneBeforeWaitReturns) {
  TaskGroup group(InPool());
  auto token = std::make_shared<int>(0);
  std::atomic<int> ran{0};
  auto unique = std::make_unique<int>(1);
  group.Spawn([&ran, token, unique = std::move(unique)] { ran += *unique; });
  struct Large {
    char bytes[1024];
  };
  group.Spawn([&ran, token, large = Large{}] {
    ran += large.bytes[1023] == 0 ? 10 : 0;
  });
  struct Immovable {
    explicit Immovable(std::atomic<int>& count) : sum(count) {}
    Immovable(Immovable&&) = delete;
    void operator()() { sum += 100; }
    std::atomic<int>& sum;
  } immovable(ran);
  group.Spawn(std::ref(immovable));
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 111);
  EXPECT_EQ(token.use_count(), 1);  // A089
}

// A022, A073, J: spawn after cancel.
TEST_P(TaskGroupTest, ACancelledGroupStartsNothingMoreAndWaitAbsorbsTheCancel) {
  TaskGroup group(InPool());
  group.Cancel();
  auto token = std::make_shared<int>();
  std::atomic<bool> ran{false};
  group.Spawn([&ran, token] { ran = true; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(ran);
  EXPECT_EQ(token.use_count(), 1);
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
}

// T036, B: 64 groups of 512 tasks; at most those that run finish.
TEST_P(TaskGroupTest, CancelDestroysTheTasksThatHaveNotStartedAtOnce) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  group.Spawn([&] {
    started.count_down();
    release.wait();
  });
  auto token = std::make_shared<int>();
  std::atomic<bool> ran{false};
  for (int i = 0; i < 512; ++i) group.Spawn([&ran, token] { ran = true; });
  started.wait();
  group.Cancel();
  EXPECT_EQ(token.use_count(), 1);
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(ran);
}

// Calls what it is given when it dies.
class AtDeath {
 public:
  explicit AtDeath(std::function<void()> call) : call_(std::move(call)) {}
  AtDeath(AtDeath&& other) noexcept
      : call_(std::exchange(other.call_, nullptr)) {}
  ~AtDeath() {
    if (call_) call_();
  }

 private:
  std::function<void()> call_;
};

// So whatever it starts or waits for is cancelled, too.
TEST(TaskGroup, ATaskThatCancelDestroysFindsTheGroupCancelled) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  bool cancelled = false;
  group.Spawn(
      [at_death = AtDeath([&] { cancelled = group.scope().cancelled(); })] {});
  group.Cancel();
  EXPECT_TRUE(cancelled);
  EXPECT_TRUE(group.Wait().ok());
}

TEST(TaskGroup, WhatATaskThatCancelDestroysSpawnsIsNotLost) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get(), .max_running = 1});
  std::vector<std::string> ran;
  auto token = std::make_shared<int>();
  group.Spawn([at_death = AtDeath([&, token] {
                 group.Spawn([&ran, token] { ran.push_back("plain"); });
                 group.Spawn([&ran, token] { ran.push_back("spawned"); },
                             {.start_even_if_cancelled = true});
               })] {});
  group.Spawn([&ran] { ran.push_back("kept"); },
              {.start_even_if_cancelled = true});
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, (std::vector<std::string>{"kept", "spawned"}));
  EXPECT_EQ(token.use_count(), 1);
}

// A016, A021, A096, T012
TEST_P(TaskGroupTest, ATaskMayAskToBeStartedEvenIfCancelled) {
  TaskGroup group(InPool());
  group.Cancel();
  std::atomic<bool> reached{false};
  std::atomic<bool> passed{false};
  group.Spawn(
      [&]() -> absl::Status {
        reached = true;
        absl::Status status = SleepUntilCancelled();
        if (!status.ok()) return status;
        passed = true;
        return absl::OkStatus();
      },
      {.start_even_if_cancelled = true});
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(reached);
  EXPECT_FALSE(passed);
}

TEST_P(TaskGroupTest, CancelKeepsThoseQueuedThatAskedToBeStarted) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  group.Spawn([&] {
    started.count_down();
    release.wait();
  });
  std::vector<int> ran;
  for (int i = 0; i < 4; ++i) {
    group.Spawn([&ran, i] { ran.push_back(i); },
                {.start_even_if_cancelled = i % 2 == 1});
  }
  started.wait();
  group.Cancel();
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, (std::vector<int>{1, 3}));
}

// A022, A071, A096, T004
TEST_P(TaskGroupTest, CancelWakesTasksThatSleep) {
  TaskGroup group(InPool());
  std::latch started(3);
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 3; ++i) {
    group.Spawn([&] {
      started.count_down();
      absl::Status status = SleepUntilCancelled();
      if (absl::IsCancelled(status)) ++cancelled;
      return status;
    });
  }
  started.wait();
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(cancelled, 3);
}

// A023, A091
TEST_P(TaskGroupTest, ATaskSeesTheReasonOfTheCancel) {
  TaskGroup group(InPool());
  std::latch started(1);
  absl::Status seen;
  group.Spawn([&] {
    started.count_down();
    seen = SleepUntilCancelled();
  });
  started.wait();
  group.Cancel(absl::CancelledError("enough"));
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_THAT(seen, Says(absl::CancelledError("enough")));
  EXPECT_THAT(group.scope().status(), Says(absl::CancelledError("enough")));
}

// A018, A027, A059, A069, T013
TEST_P(TaskGroupTest, WhatCancelsTheScopeAroundAGroupComesOutOfWait) {
  CancelScope outer;
  TaskGroup group(InPool());
  std::latch started(4);
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&] {
      TaskGroup inner(InPool());
      for (int j = 0; j < 2; ++j) {
        inner.Spawn([&] {
          started.count_down();
          if (absl::IsCancelled(SleepUntilCancelled())) ++cancelled;
        });
      }
      return inner.Wait();
    });
  }
  std::thread canceller([&] {
    started.wait();
    outer.Cancel(absl::CancelledError("from outside"));
  });
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("from outside")));
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("from outside")));
  EXPECT_EQ(cancelled, 4);
  EXPECT_TRUE(group.failures().empty());
  canceller.join();
}

TEST_P(TaskGroupTest,
       WhateverTheReasonAGroupCancelledFromOutsideSaysCancelled) {
  CancelScope outer;
  TaskGroup group(InPool());
  group.Spawn([] { return SleepUntilCancelled(); },
              {.start_even_if_cancelled = true});
  outer.Cancel(absl::InternalError("disk"));
  const absl::Status status = group.Wait();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_NE(status.message().find("disk"), absl::string_view::npos);
}

// A group that has ended knows how.
TEST_P(TaskGroupTest, WhatIsCancelledAfterTheWaitChangesNothing) {
  CancelScope outer;
  TaskGroup group(InPool());
  group.Spawn([] {});
  EXPECT_TRUE(group.Wait().ok());
  outer.Cancel();
  EXPECT_TRUE(group.Wait().ok());
}

// Also where all tasks had ended well before.
TEST_P(TaskGroupTest, WhatIsCancelledBeforeTheWaitComesOutOfIt) {
  CancelScope outer;
  TaskGroup group(InPool());
  std::latch ran(1);
  group.SpawnBackground([&] { ran.count_down(); });
  ran.wait();
  outer.Cancel(absl::CancelledError("too late"));
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("too late")));
}

TEST_P(TaskGroupTest, AGroupWithAShieldOfItsOwnCompletes) {
  CancelScope outer;
  TaskGroup group(InPool());
  group.scope().set_shield(true);
  outer.Cancel();
  std::atomic<bool> ran{false};
  group.Spawn([&] { ran = true; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
}

// A060
TEST_P(TaskGroupTest, TasksSpawnedInACancelledScopeDoNotRun) {
  CancelScope outer;
  outer.Cancel();
  TaskGroup group(InPool());
  std::atomic<bool> ran{false};
  group.Spawn([&] { ran = true; });
  EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  EXPECT_FALSE(ran);
}

// A064, J: a deadline interrupts sleepers.
TEST_P(TaskGroupTest, ADeadlineAroundAGroupComesOutAsDeadlineExceeded) {
  absl::Status seen;
  absl::Status status = FailAfter(absl::Milliseconds(20), [&] {
    TaskGroup group(InPool());
    group.Spawn(
        [&] {
          seen = SleepUntilCancelled();
          return seen;
        },
        {.start_even_if_cancelled = true});
    absl::Status result = group.Wait();
    EXPECT_TRUE(group.failures().empty());
    return result;
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(seen));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

// B, T: an inner shielded group completes though the outer is cancelled.
TEST_P(TaskGroupTest, AGroupInAShieldCompletesThoughTheOuterOneIsCancelled) {
  TaskGroup outer(InPool());
  std::latch started(1);
  std::latch cancelled(1);
  std::atomic<int> ran{0};
  outer.Spawn([&]() -> absl::Status {
    CancelScope shield({.shield = true});
    TaskGroup inner(InPool());
    started.count_down();
    cancelled.wait();
    for (int i = 0; i < 10; ++i) inner.Spawn([&] { ++ran; });
    return inner.Wait();
  });
  started.wait();
  outer.Cancel();
  cancelled.count_down();
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(ran, 10);
}

// A028
TEST_P(TaskGroupTest, TwoGroupsInTurnCanBothBeCancelled) {
  for (int i = 0; i < 2; ++i) {
    TaskGroup group(InPool());
    std::latch started(1);
    group.Spawn([&] {
      started.count_down();
      SleepUntilCancelled().IgnoreError();
    });
    started.wait();
    group.Cancel();
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_TRUE(CheckCancelled().ok());
  }
}

// A029, J: closing keeps waiting for a straggler although interrupted.
TEST_P(TaskGroupTest, ACancelledWaitStillWaitsForTheTasksToEnd) {
  CancelScope outer;
  TaskGroup group(InPool());
  std::latch started(1);
  std::latch release(1);
  std::atomic<bool> ended{false};
  group.Spawn([&] {
    started.count_down();
    release.wait();
    ended = true;
  });
  std::thread canceller([&] {
    started.wait();
    outer.Cancel();
    release.count_down();
  });
  EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  EXPECT_TRUE(ended);
  canceller.join();
}

// A083: a reused thread carries no stale cancellation.
TEST_P(TaskGroupTest, ATaskOfAnotherGroupSeesNothingOfAnEarlierCancel) {
  for (int i = 0; i < 20; ++i) {
    TaskGroup cancelled(InPool());
    cancelled.Cancel();
    cancelled.Spawn([] { EXPECT_FALSE(CheckCancelled().ok()); },
                    {.start_even_if_cancelled = true});
    EXPECT_TRUE(cancelled.Wait().ok());
    TaskGroup clean(InPool());
    clean.Spawn([] { return CheckCancelled(); });
    EXPECT_TRUE(clean.Wait().ok());
  }
}

// A057
TEST_P(TaskGroupTest, AScopeOfATaskCancelsNeitherItsGroupNorItsSiblings) {
  TaskGroup group(InPool());
  for (int i = 0; i < 4; ++i) {
    group.Spawn([] {
      CancelScope scope;
      scope.Cancel();
      EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
    });
  }
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(group.scope().cancelled());
}

// E: our token is not requested on success.
TEST_P(TaskGroupTest, ATaskMayTakeAStopToken) {
  TaskGroup group(InPool());
  std::stop_token kept;
  group.Spawn([&](std::stop_token stop) { kept = stop; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(kept.stop_possible() == false || !kept.stop_requested());
}

TEST_P(TaskGroupTest, TheDestructorCancelsNothingThatWasWaitedFor) {
  std::stop_token kept;
  {
    TaskGroup group(InPool());
    group.Spawn([&](std::stop_token stop) { kept = stop; });
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_TRUE(kept.stop_possible());
  }
  EXPECT_FALSE(kept.stop_requested());
}

// A spinning task sees the cancel (B).
TEST_P(TaskGroupTest, AStopTokenIsRequestedByCancel) {
  TaskGroup group(InPool());
  std::latch started(1);
  group.Spawn([&](std::stop_token stop) {
    started.count_down();
    while (!stop.stop_requested()) std::this_thread::yield();
  });
  started.wait();
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
}

// T003: both run at once, or neither would get past the other.
TEST_P(TaskGroupTest, TasksRunConcurrently) {
  TaskGroup group(InPool());
  std::latch met(2);
  for (int i = 0; i < 2; ++i) group.Spawn([&] { met.arrive_and_wait(); });
  EXPECT_TRUE(group.Wait().ok());
}

// B: many threads spawn into one group; J, P: spawned on one thread, waited
// for on another.
TEST_P(TaskGroupTest, ManyThreadsSpawnIntoOneGroup) {
  TaskGroup group(InPool());
  std::atomic<int> ran{0};
  std::vector<std::thread> spawners;
  for (int t = 0; t < 4; ++t) {
    spawners.emplace_back([&] {
      for (int i = 0; i < 500; ++i) group.Spawn([&] { ++ran; });
    });
  }
  for (std::thread& spawner : spawners) spawner.join();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 2000);
}

// B: many threads wait, none leaves before the last task; and others keep
// spawning meanwhile.
TEST_P(TaskGroupTest, ManyThreadsWaitAndNoneLeavesBeforeTheLastTask) {
  TaskGroup group(InPool());
  std::latch started(1);
  std::latch release(1);
  std::atomic<int> ran{0};
  group.Spawn([&] {
    started.count_down();
    release.wait();
    for (int i = 0; i < 100; ++i) group.Spawn([&] { ++ran; });
  });
  std::vector<std::thread> waiters;
  for (int t = 0; t < 4; ++t) {
    waiters.emplace_back([&] {
      EXPECT_TRUE(group.Wait().ok());
      EXPECT_EQ(ran, 100);
    });
  }
  started.wait();
  release.count_down();
  for (std::thread& waiter : waiters) waiter.join();
}

// B, T019: made on one thread, waited for on a second, destroyed on a third.
TEST_P(TaskGroupTest, ATaskSetMayTravelBetweenThreads) {
  std::unique_ptr<TaskSet> group;
  std::atomic<int> ran{0};
  std::thread([&] { group = std::make_unique<TaskSet>(InPool()); }).join();
  std::thread([&] {
    for (int i = 0; i < 10; ++i) group->Spawn([&] { ++ran; });
  }).join();
  std::thread([&] { EXPECT_TRUE(group->Wait().ok()); }).join();
  std::thread([&] { group.reset(); }).join();
  EXPECT_EQ(ran, 10);
}

// P: waiting where a task of the group spawns into it from elsewhere, with
// nobody but the waiting thread to run it.
TEST_P(TaskGroupTest, AThreadAsleepInWaitRunsWhatIsSpawnedThen) {
  std::unique_ptr<ThreadPool> pool =
      *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  TaskGroup host(InPool());
  std::counting_semaphore<> spawned(0);
  std::thread::id waiter;
  std::thread::id runner;
  std::latch inside(1);
  std::thread waiting([&] {
    waiter = std::this_thread::get_id();
    // The first task keeps one thread in Wait() while this one sleeps there.
    group.Spawn([&] {
      inside.count_down();
      spawned.acquire();
    });
    EXPECT_TRUE(group.Wait().ok());
  });
  inside.wait();
  std::thread second([&] { EXPECT_TRUE(group.Wait().ok()); });
  group.Spawn([&] {
    runner = std::this_thread::get_id();
    spawned.release();
  });
  waiting.join();
  EXPECT_EQ(runner, second.get_id());
  second.join();
}

// B: destroyed without Wait(): cancelled and joined.
TEST_P(TaskGroupTest, TheDestructorCancelsAndWaits) {
  std::atomic<bool> ended{false};
  auto token = std::make_shared<int>();
  {
    TaskGroup group({.pool = pool_.get(), .max_running = 1});
    std::latch started(1);
    group.Spawn([&] {
      started.count_down();
      SleepUntilCancelled().IgnoreError();
      ended = true;
    });
    group.Spawn([token] { ADD_FAILURE() << "ran after the cancel"; });
    started.wait();
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(token.use_count(), 1);
}

int Fibonacci(const TaskGroup::Options& options, int n) {
  if (n < 2) return n;
  TaskGroup group(options);
  int a;
  group.Spawn([&] { a = Fibonacci(options, n - 1); });
  const int b = Fibonacci(options, n - 2);
  EXPECT_TRUE(group.Wait().ok());
  return a + b;
}

// B: fib with nested groups; P: nested waits on few workers; A090.
TEST_P(TaskGroupTest, NestedGroupsOfAnyDepth) {
  EXPECT_EQ(Fibonacci(InPool(), 15), 610);
}

// Returns where its stack is when it is at the bottom.
uintptr_t BottomOf(const TaskGroup::Options& options, int depth) {
  if (depth == 0)
    return reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  uintptr_t bottom = 0;
  TaskGroup group(options);
  group.Spawn([&] { bottom = BottomOf(options, depth - 1); });
  group.Wait().IgnoreError();
  return bottom;
}

// As task_set.h tells.
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
TEST(TaskGroup, ManyOneInTheOtherFitIntoAStackOfEightMebibytes) {
  const auto pool = *ThreadPool::Create({.threads = 0});
  const auto nest = [](void* at) -> void* {
    const uintptr_t top =
        reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    constexpr int kDepth = 2700;
    const uintptr_t bottom =
        BottomOf({.pool = static_cast<ThreadPool*>(at)}, kDepth);
    // Less if another thread helped.
    EXPECT_LE(static_cast<intptr_t>(top - bottom), kDepth * 3072);
    return nullptr;
  };
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 8 << 20), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, nest, pool.get()), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}
#endif

void Nest(const TaskGroup::Options& options, int depth) {
  if (depth == 0) return;
  TaskGroup group(options);
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&options, depth] { Nest(options, depth - 1); });
  }
  EXPECT_TRUE(group.Wait().ok());
}

// P: 16 levels of nested groups on one worker.
TEST_P(TaskGroupTest, TenLevelsOfTwo) { Nest(InPool(), 10); }

// P: a nested wait under a mutex never runs a foreign task on its stack.
TEST_P(TaskGroupTest, AWaitUnderAMutexDoesNotReenterIt) {
  TaskGroup outer(InPool());
  std::mutex mutex;
  for (int i = 0; i < 50; ++i) {
    outer.Spawn([&] {
      std::lock_guard lock(mutex);
      TaskGroup inner(InPool());
      for (int j = 0; j < 4; ++j) inner.Spawn([] {});
      EXPECT_TRUE(inner.Wait().ok());
    });
  }
  EXPECT_TRUE(outer.Wait().ok());
}

// P: waiting for one group is not delayed by the long task of another.
TEST_P(TaskGroupTest, AWaitIsNotDelayedByAnotherGroup) {
  TaskGroup slow(InPool());
  std::latch release(1);
  slow.Spawn([&] { release.wait(); });
  TaskGroup quick(InPool());
  quick.Spawn([] {});
  EXPECT_TRUE(quick.Wait().ok());  // would never return
  release.count_down();
  EXPECT_TRUE(slow.Wait().ok());
}

// E: a limit of so many admits so many and not one more.
TEST_P(TaskGroupTest, MaxRunningIsKept) {
  for (int limit : {1, 3}) {
    TaskGroup group({.pool = pool_.get(), .max_running = limit});
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    for (int i = 0; i < 200; ++i) {
      group.Spawn([&] {
        const int now = ++running;
        int seen = most;
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        std::this_thread::yield();
        --running;
      });
    }
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_LE(most, limit);
  }
}

TEST_P(TaskGroupTest, MaxRunningIsReached) {
  TaskGroup group({.pool = pool_.get(), .max_running = 3});
  std::latch all(3);
  for (int i = 0; i < 3; ++i) group.Spawn([&] { all.arrive_and_wait(); });
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskGroupTest, TasksOfOneGroupStartInTheOrderTheyWereSpawned) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::vector<int> order;
  for (int i = 0; i < 100; ++i)
    group.Spawn([&order, i] { order.push_back(i); });
  EXPECT_TRUE(group.Wait().ok());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

// A099, A100, T024
TEST_P(TaskGroupTest, RunningNamesTheTasksThatHaveNotEnded) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  EXPECT_TRUE(group.running().empty());
  std::latch started(1);
  std::latch release(1);
  group.Spawn(
      [&] {
        started.count_down();
        release.wait();
      },
      {.name = "loader"});
  group.Spawn([] {});
  group.Spawn([] {}, {.name = "sweeper"});
  started.wait();
  EXPECT_EQ(group.running(),
            (std::vector<std::string>{"loader", "task 2", "sweeper"}));
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(group.running().empty());
}

// The name of a task that ends at that moment was gone before the task was.
TEST_P(TaskGroupTest, RunningMayBeAskedWhileTasksEnd) {
  TaskGroup group(InPool());
  std::atomic<bool> over{false};
  std::thread asks([&] {
    while (!over) {
      for (const std::string& name : group.running()) {
        EXPECT_EQ(name, "a name too long to be kept without an allocation");
      }
    }
  });
  for (int i = 0; i < 2000; ++i) {
    group.Spawn([] {},
                {.name = "a name too long to be kept without an allocation"});
  }
  EXPECT_TRUE(group.Wait().ok());
  over = true;
  asks.join();
}

// Background tasks.
TEST_P(TaskGroupTest, ABackgroundTaskIsCancelledWhenAllOthersHaveEnded) {
  TaskGroup group(InPool());
  std::latch up(1);
  absl::Status seen;
  group.SpawnBackground([&] {
    up.count_down();
    seen = SleepUntilCancelled();
    return seen;
  });
  std::atomic<bool> ran{false};
  group.Spawn([&] {
    up.wait();  // it has a thread of its own, however few there are
    ran = true;
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
  EXPECT_TRUE(absl::IsCancelled(seen));
  EXPECT_FALSE(group.scope().cancelled());
}

TEST_P(TaskGroupTest, EachOfSeveralBackgroundTasksIsCancelled) {
  TaskGroup group(InPool());
  std::atomic<int> up{0};
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 3; ++i) {
    group.SpawnBackground([&] {
      ++up;
      if (absl::IsCancelled(SleepUntilCancelled())) ++cancelled;
    });
    while (up <= i) std::this_thread::yield();  // one after the other
  }
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(cancelled, 3);
}

// Whether it ever did anything must not depend on the speed of its thread.
TEST_P(TaskGroupTest, ABackgroundTaskStartsThoughItIsNotNeededAnyMore) {
  TaskGroup group(InPool());
  absl::Status seen;
  group.SpawnBackground([&] {
    SleepUntilCancelled().IgnoreError();
    group.SpawnBackground([&] { seen = SleepUntilCancelled(); });
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(absl::IsCancelled(seen));
}

TEST_P(TaskGroupTest, InACancelledGroupABackgroundTaskStartsOnlyIfItAsksForIt) {
  TaskGroup group(InPool());
  group.Cancel();
  std::atomic<bool> ran{false};
  std::atomic<bool> asked{false};
  group.SpawnBackground([&] { ran = true; });
  group.SpawnBackground([&] { asked = true; },
                        {.start_even_if_cancelled = true});
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(ran);
  EXPECT_TRUE(asked);
}

// Not only once all others have ended.
TEST_P(TaskGroupTest, CancelReachesBackgroundTasksToo) {
  TaskGroup group(InPool());
  std::latch up(1);
  std::latch ended(1);
  group.SpawnBackground([&] {
    up.count_down();
    SleepUntilCancelled().IgnoreError();
    ended.count_down();
  });
  group.Spawn([&] {
    up.wait();
    group.Cancel();
    ended.wait();
  });
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskGroupTest, ABackgroundTaskThatFailsCancelsTheOthers) {
  TaskGroup group(InPool());
  group.Spawn([] { return SleepUntilCancelled(); },
              {.start_even_if_cancelled = true});
  group.SpawnBackground([] { return absl::DataLossError("worn out"); },
                        {.name = "disk"});
  EXPECT_EQ(group.Wait(), absl::DataLossError("worn out"));
  ASSERT_EQ(group.failures().size(), 1);
  EXPECT_EQ(group.failures()[0].task, "disk");
}

TEST_P(TaskGroupTest, ABackgroundTaskMaySpawnForWhichTheGroupWaitsToo) {
  TaskGroup group(InPool());
  std::atomic<bool> ran{false};
  group.SpawnBackground([&] {
    SleepUntilCancelled().IgnoreError();
    group.Spawn([&] { ran = true; });
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
}

TEST_P(TaskGroupTest, ABackgroundTaskLivesOnWhileNobodyWaits) {
  TaskGroup group(InPool());
  std::latch ask(1);
  std::latch answered(1);
  group.SpawnBackground([&] {
    ask.wait();
    EXPECT_TRUE(CheckCancelled().ok());
    answered.count_down();
    SleepUntilCancelled().IgnoreError();
  });
  ask.count_down();
  answered.wait();
  EXPECT_EQ(group.running(), std::vector<std::string>{"background task 1"});
  EXPECT_TRUE(group.Wait().ok());
}

// A background task that ends the group.
TEST_P(TaskGroupTest, ABackgroundTaskMayCancelItsGroup) {
  TaskGroup group(InPool());
  group.Spawn([] { return SleepUntilCancelled(); },
              {.start_even_if_cancelled = true});
  group.SpawnBackground([&] { group.Cancel(); });
  EXPECT_TRUE(group.Wait().ok());
}

TEST(TaskGroup, ABackgroundTaskThatCanHaveNoThreadFailsTheGroup) {
  std::unique_ptr<ThreadPool> pool =
      *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  group.SpawnBackground([] {}, {.name = "listener"});
  EXPECT_EQ(group.Wait().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_EQ(group.failures().size(), 1);
  EXPECT_EQ(group.failures()[0].task, "listener");
}

// B: no growth over repeats; A089.
TEST_P(TaskGroupTest, ALongLivedGroupKeepsNothingOfTasksThatEnded) {
  TaskGroup group(InPool());
  auto token = std::make_shared<int>();
  std::counting_semaphore<> ended(0);
  for (int i = 0; i < 50; ++i) {
    group.Spawn([&ended, token] { ended.release(); });
    if (GetParam() > 0) ended.acquire();
  }
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(token.use_count(), 1);
}

TEST(TaskGroup, OfTheParentDoesNothingInAForkedChild) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  std::optional<TaskGroup> group(
      std::in_place, TaskGroup::Options{.pool = pool.get(), .name = "parents"});
  int ran = 0;
  group->Spawn([&ran] { ++ran; });
  Child child(Fork([&] {
    const absl::StatusCode dead = absl::StatusCode::kFailedPrecondition;
    auto token = std::make_shared<int>();
    EXPECT_EQ(group->Start<int>([token](auto& started) { return started(1); })
                  .status()
                  .code(),
              dead);
    TaskHandle<int> handle = group->SpawnWithResult([token] { return 1; });
    EXPECT_EQ(handle.Wait().code(), dead);
    group->Spawn([token] {});
    EXPECT_EQ(token.use_count(), 1);
    EXPECT_EQ(group->Wait().code(), dead);
    EXPECT_EQ(group->failure_count(), 2);  // that of Start() was returned
    EXPECT_TRUE(group->running().empty());
    group->Cancel();
    EXPECT_EQ(group->Wait().code(), dead);
    group.reset();
    EXPECT_EQ(ran, 0);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  EXPECT_TRUE(group->Wait().ok());
  EXPECT_EQ(ran, 1);
}

// The thread that forks is not in its scope.
TEST(TaskSet, IsDestroyedInAForkedChildWithoutTheScopesOfItsTasks) {
  std::optional<TaskSet> tasks(std::in_place);
  std::latch has_scope(1);
  std::latch go_on(1);
  std::stop_token token;
  tasks->Spawn([&] {
    CancelScope inner;
    token = inner.stop_token();
    has_scope.count_down();
    go_on.wait();
  });
  has_scope.wait();
  Child child(Fork([&] {
    tasks->scope().Cancel();
    EXPECT_FALSE(token.stop_requested());
    tasks.reset();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  go_on.count_down();
  EXPECT_TRUE(tasks->Wait().ok());
}

TEST(TaskGroup, WhoseBodyForksIsLeftInTheChildToo) {
  Child parent(Fork([] {  // and not the test, which the child would go on with
    auto pool = *ThreadPool::Create({.threads = 0});
    std::optional<CancelScope> outer(std::in_place);
    pid_t pid = -1;
    const absl::Status status = RunTaskGroup(
        [&](TaskGroup& group) {
          EXPECT_FALSE(group.scope().stop_token().stop_requested());
          pid = fork();
          return absl::OkStatus();
        },
        {.pool = pool.get()});
    outer.reset();  // has nothing left inside of it
    if (pid == 0) {
      EXPECT_TRUE(absl::IsFailedPrecondition(status));
    } else {
      EXPECT_TRUE(status.ok());
      EXPECT_EQ(ExitStatus(Child(pid).Wait()), 0);
    }
  }));
  EXPECT_EQ(ExitStatus(parent.Wait()), 0);
}

TEST(TaskGroupDeathTest, ATaskMustNotDestroyItsGroup) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto* group = new TaskSet;
        group->Spawn([&] { delete group; });
        group->Wait().IgnoreError();
      },
      "destroyed by a task");
}

}  // namespace
}  // namespace tocsin
