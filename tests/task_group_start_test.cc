// Tasks whose caller wants something back: SpawnWithResult() and Start().
#include <atomic>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using testing::HasSubstr;

constexpr absl::StatusCode kFailedPrecondition =
    absl::StatusCode::kFailedPrecondition;

absl::Status SleepUntilCancelled() {
  internal::Sleeper sleeper("a test");
  while (true) {
    if (absl::Status status = sleeper.Sleep(); !status.ok()) return status;
  }
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

class WithPool : public testing::TestWithParam<int> {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "test", .threads = GetParam()});
};

using TaskHandleTest = WithPool;
INSTANTIATE_TEST_SUITE_P(Workers, TaskHandleTest, testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());
using StartTest = WithPool;
INSTANTIATE_TEST_SUITE_P(Workers, StartTest, testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

// A093, E, J: results are collected in the order of spawning.
TEST_P(TaskHandleTest, ReturnsWhatTheTaskReturned) {
  TaskGroup group(InPool());
  std::vector<TaskHandle<int>> handles;
  for (int i = 0; i < 100; ++i) {
    handles.push_back(group.SpawnWithResult([i] { return i * i; }));
  }
  for (int i = 0; i < 99; ++i) EXPECT_EQ(*handles[i].Take(), i * i);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(*handles[99].Take(), 99 * 99);
}

TEST_P(TaskHandleTest, GivesTheResultOnceAndTheStatusToAll) {
  TaskGroup group(InPool());
  TaskHandle<int> handle = group.SpawnWithResult([] { return 7; });
  EXPECT_TRUE(handle.Wait().ok());
  EXPECT_TRUE(handle.Wait().ok());
  EXPECT_EQ(*handle.Take(), 7);
  EXPECT_EQ(handle.Take().status().code(), kFailedPrecondition);
  EXPECT_TRUE(handle.Wait().ok());
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, ATakeThatGivesUpLeavesTheResult) {
  TaskGroup group(InPool());
  std::latch release(1);
  TaskHandle<int> handle = group.SpawnWithResult([&] {
    release.wait();
    return 7;
  });
  std::jthread taker([&] {
    CancelScope scope;
    scope.Cancel();
    EXPECT_TRUE(absl::IsCancelled(handle.Take().status()));
    release.count_down();
  });
  taker.join();
  EXPECT_EQ(*handle.Take(), 7);
  EXPECT_TRUE(group.Wait().ok());
}

// A vector of these claims to be copyable, and cannot be copied.
TEST_P(TaskHandleTest, TakesAResultThatOnlyClaimsToBeCopyable) {
  TaskGroup group(InPool());
  TaskHandle<std::vector<std::unique_ptr<int>>> handle =
      group.SpawnWithResult([] {
        std::vector<std::unique_ptr<int>> result;
        result.push_back(std::make_unique<int>(5));
        return result;
      });
  EXPECT_EQ(*handle.Take()->front(), 5);
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, TakesAllKindsOfResults) {
  TaskGroup group(InPool());
  TaskHandle<void> nothing = group.SpawnWithResult([] {});
  TaskHandle<void> status =
      group.SpawnWithResult([](std::stop_token) { return absl::OkStatus(); });
  TaskHandle<std::string> either = group.SpawnWithResult(
      []() -> absl::StatusOr<std::string> { return "text"; });
  TaskHandle<std::unique_ptr<int>> unique =
      group.SpawnWithResult([] { return std::make_unique<int>(5); });
  EXPECT_TRUE(nothing.Wait().ok());
  EXPECT_TRUE(status.Wait().ok());
  EXPECT_EQ(*either.Take(), "text");
  EXPECT_EQ(**unique.Take(), 5);
  EXPECT_EQ(unique.Take().status().code(), kFailedPrecondition);
  EXPECT_TRUE(group.Wait().ok());
}

// Stops the first that moves it out of where the task has put it.
class StopsAtTheSecondMove {
 public:
  struct Gate {
    std::atomic<bool> passed{false};
    std::latch reached{1};
    std::latch open{1};
  };
  explicit StopsAtTheSecondMove(Gate& gate) : gate_(gate) {}
  StopsAtTheSecondMove(StopsAtTheSecondMove&& other) noexcept
      : gate_(other.gate_), moves_(other.moves_ + 1) {
    if (moves_ < 2 || gate_.passed.exchange(true)) return;
    gate_.reached.count_down();
    gate_.open.wait();
  }

 private:
  Gate& gate_;
  const int moves_ = 0;
};

TEST_P(TaskHandleTest, OfTwoThatTakeTheResultOneGetsIt) {
  TaskGroup group(InPool());
  StopsAtTheSecondMove::Gate gate;
  TaskHandle<StopsAtTheSecondMove> handle =
      group.SpawnWithResult([&] { return StopsAtTheSecondMove(gate); });
  absl::Status first;
  std::thread waiter([&] { first = handle.Take().status(); });
  gate.reached.wait();
  EXPECT_EQ(handle.Take().status().code(), kFailedPrecondition);
  gate.open.count_down();
  waiter.join();
  EXPECT_TRUE(first.ok()) << first;
  EXPECT_TRUE(group.Wait().ok());
}

// A094, A098, E: with an error, which is also the group's.
TEST_P(TaskHandleTest, ReturnsTheErrorOfTheTaskRepeatedly) {
  TaskGroup group(InPool());
  TaskHandle<int> handle = group.SpawnWithResult(
      []() -> absl::StatusOr<int> { return absl::NotFoundError("x"); });
  EXPECT_EQ(handle.Wait(), absl::NotFoundError("x"));
  EXPECT_EQ(handle.Wait(), absl::NotFoundError("x"));
  EXPECT_EQ(group.Wait(), absl::NotFoundError("x"));
  EXPECT_EQ(group.failure_count(), 1);
}

// A096, A088: the handle cancels its task and nothing else.
TEST_P(TaskHandleTest, CancelsItsOwnTaskOnly) {
  TaskGroup group(InPool());
  std::latch asleep(1);
  TaskHandle<void> handle = group.SpawnWithResult([&] {
    asleep.count_down();
    return SleepUntilCancelled();
  });
  asleep.wait();
  handle.Cancel();
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_FALSE(group.scope().cancelled());
  EXPECT_TRUE(group.Wait().ok());
}

// A096, AnyIO: cancelled before it starts, it never runs.
TEST_P(TaskHandleTest, ATaskCancelledBeforeItStartsNeverRuns) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  group.Spawn([&] {
    started.count_down();
    release.wait();
  });
  started.wait();
  bool ran = false;
  TaskHandle<void> handle = group.SpawnWithResult([&] { ran = true; });
  handle.Cancel();
  release.count_down();
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_FALSE(ran);
}

// A073
TEST_P(TaskHandleTest, CancelAfterTheEndChangesNothing) {
  TaskGroup group(InPool());
  TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  EXPECT_TRUE(handle.Wait().ok());
  handle.Cancel();
  EXPECT_EQ(*handle.Take(), 1);
  EXPECT_TRUE(group.Wait().ok());
}

// B: waiting for one task by its handle: cancelled, with its group.
TEST_P(TaskHandleTest, IsCancelledWithItsGroup) {
  TaskGroup group(InPool());
  group.Cancel();
  auto token = std::make_shared<int>();
  TaskHandle<int> handle = group.SpawnWithResult([token] { return 1; });
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(token.use_count(), 1);
}

// Whatever has happened to who cancels it.
TEST_P(TaskHandleTest, OfATaskThatNeverStartedHasTheReasonOfItsGroup) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  std::jthread first([&] {
    group
        .SpawnWithResult([&] {
          started.count_down();
          release.wait();
        })
        .Wait()
        .IgnoreError();
  });
  started.wait();
  TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  {
    CancelScope expired({.deadline = absl::InfinitePast()});
    group.Cancel(absl::CancelledError("enough"));
  }
  EXPECT_THAT(handle.Wait(), Says(absl::CancelledError("enough")));
  release.count_down();
  first.join();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, OfAClosedGroupSaysSo) {
  TaskGroup group(InPool());
  EXPECT_TRUE(group.Wait().ok());
  TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  EXPECT_EQ(handle.Wait().code(), kFailedPrecondition);
  EXPECT_EQ(group.failure_count(), 1);
}

TEST_P(TaskHandleTest, OutlivesItsGroup) {
  TaskHandle<int> handle = [&] {
    TaskGroup group(InPool());
    TaskHandle<int> inner = group.SpawnWithResult([] { return 3; });
    EXPECT_TRUE(group.Wait().ok());
    return inner;
  }();
  EXPECT_EQ(*handle.Take(), 3);
  handle.Cancel();
}

TEST_P(TaskHandleTest, AWaitIsGivenUpWithItsScopeAndTheTaskGoesOn) {
  TaskGroup group(InPool());
  std::latch started(1);
  std::latch release(1);
  TaskHandle<int> handle = group.SpawnWithResult([&] {
    started.count_down();
    release.wait();
    return 4;
  });
  started.wait();
  {
    CancelScope scope;
    scope.Cancel();
    EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  }
  release.count_down();
  EXPECT_EQ(*handle.Take(), 4);
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, ATaskThatWaitsForItselfIsRefused) {
  TaskGroup group(InPool());
  std::optional<TaskHandle<void>> handle;
  std::latch known(1);
  absl::Status status;
  handle = group.SpawnWithResult([&] {
    known.wait();
    status = handle->Wait();
  });
  known.count_down();
  EXPECT_TRUE(handle->Wait().ok());
  EXPECT_EQ(status.code(), kFailedPrecondition);
  EXPECT_TRUE(group.Wait().ok());
}

TEST(TaskHandle, ATaskWithinATaskThatWaitsForThatOneIsRefused) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  std::optional<TaskHandle<void>> handle;
  absl::Status status;
  handle = group.SpawnWithResult([&] {
    TaskGroup inner({.pool = pool.get()});
    inner.Spawn([&] { status = handle->Wait(); });
    return inner.Wait();  // runs it, for there is nobody else
  });
  EXPECT_TRUE(handle->Wait().ok());
  EXPECT_EQ(status.code(), kFailedPrecondition);
  EXPECT_TRUE(group.Wait().ok());
}

// At the cap, waits still run their own group's tasks.
TEST(TaskHandle, WithoutAnyThreadsWaitRunsTheTask) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  bool other = false;
  group.Spawn([&] { other = true; });
  TaskHandle<std::string> handle = group.SpawnWithResult(
      [&] { return group.running().front(); }, {.name = "mine"});
  EXPECT_EQ(*handle.Take(), "mine");
  EXPECT_FALSE(other);  // it runs no task but its own
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(other);
}

TEST(TaskHandle, ATaskThatAWaitRanDoesNotRunAgain) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  int ran = 0;
  TaskHandle<int> handle = group.SpawnWithResult([&] { return ++ran; });
  EXPECT_TRUE(handle.Wait().ok());
  EXPECT_EQ(*handle.Take(), 1);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 1);
}

// A wait that ran the task would have to see it through.
TEST(TaskHandle, AWaitWhoseScopeEndsBeforeTheGroupsRunsNoTask) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  bool ran = false;
  TaskHandle<int> handle = group.SpawnWithResult([&] {
    ran = true;
    return 1;
  });
  {
    CancelScope scope;
    scope.Cancel(absl::CancelledError("enough"));
    EXPECT_THAT(handle.Wait(), Says(absl::CancelledError("enough")));
  }
  EXPECT_FALSE(ran);
  EXPECT_EQ(*handle.Take(), 1);
  EXPECT_TRUE(group.Wait().ok());
}

// What is cancelled outside of the shield does not reach the task.
TEST(TaskHandle, AWaitOutsideOfAShieldRunsNoTaskFromInside) {
  auto none = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  auto pool = *ThreadPool::Create({.threads = 2});
  TaskGroup outer({.pool = pool.get()});
  std::optional<TaskHandle<void>> handle;
  std::latch spawned(1);
  std::latch over(1);
  std::atomic<bool> ran{false};
  outer.Spawn([&] {
    CancelScope shield({.shield = true});
    TaskGroup inner({.pool = none.get()});
    handle = inner.SpawnWithResult([&] { ran = true; });
    spawned.count_down();
    over.wait();
    EXPECT_FALSE(ran);
    EXPECT_TRUE(inner.Wait().ok());
  });
  absl::Status status;
  outer.Spawn([&] {
    spawned.wait();
    outer.Cancel();
    status = handle->Wait();
    over.count_down();
  });
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_TRUE(ran);
}

TEST(TaskHandle, AWaitRunsTheTaskOfAGroupFurtherIn) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  CancelScope outer;
  TaskGroup group({.pool = pool.get()});
  TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  EXPECT_EQ(*handle.Take(), 1);
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, AWaitKeepsToTheLimitOfRunningTasks) {
  CancelScope outer;
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  std::thread runs([&] {
    EXPECT_TRUE(group
                    .SpawnWithResult([&] {
                      started.count_down();
                      release.wait();
                    })
                    .Wait()
                    .ok());
  });
  started.wait();
  std::atomic<bool> ran{false};
  TaskHandle<void> handle = group.SpawnWithResult(
      [&] { ran = true; }, {.start_even_if_cancelled = true});
  outer.Cancel();  // so that this does not wait for its turn
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_FALSE(ran);
  release.count_down();
  runs.join();
  EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  EXPECT_TRUE(ran);
}

// It would have to see through what it runs, and is over sooner.
TEST(TaskHandle, AWaitWithANearerDeadlineRunsNoTask) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get(), .max_running = 1});
  bool ran = false;
  TaskHandle<void> handle = group.SpawnWithResult([&] { ran = true; });
  {
    CancelScope scope({.timeout = absl::Milliseconds(1)});
    EXPECT_TRUE(absl::IsDeadlineExceeded(handle.Wait()));
  }
  EXPECT_FALSE(ran);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
}

// Nobody else can, though what ends the wait would not end the task.
TEST(TaskHandle, WithoutAnyThreadsATaskWithAResultMayWaitForAnother) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  TaskHandle<int> outer = group.SpawnWithResult([&] {
    TaskHandle<int> inner = group.SpawnWithResult([] { return 1; });
    return *inner.Take() + 1;
  });
  EXPECT_EQ(*outer.Take(), 2);
  EXPECT_TRUE(group.Wait().ok());
}

// With max_running. ---------------------------------------------------------

// Its waits find no thread but their own.
class LimitTest : public testing::Test {
 protected:
  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskSet tasks_{{.pool = pool_.get(), .max_running = 1}};
};

TEST_F(LimitTest, AWaitRunsWhatWasSpawnedBeforeFirst) {
  std::vector<int> order;
  tasks_.Spawn([&] { order.push_back(1); });
  TaskHandle<void> second = tasks_.SpawnWithResult([&] { order.push_back(2); });
  TaskHandle<void> third = tasks_.SpawnWithResult([&] { order.push_back(3); });
  tasks_.Spawn([&] { order.push_back(4); });
  EXPECT_TRUE(third.Wait().ok());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));  // and none after it
  EXPECT_TRUE(second.Wait().ok());
  EXPECT_TRUE(tasks_.Wait().ok());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
}

TEST_F(LimitTest, AWaitRunsItsTaskOnceTheLimitAllowsIt) {
  std::latch inside(1);
  std::latch release(1);
  TaskHandle<void> first = tasks_.SpawnWithResult([&] {
    inside.count_down();
    release.wait();
  });
  TaskHandle<int> second = tasks_.SpawnWithResult([] { return 2; });
  ScopedThread waits_for_first([&] { EXPECT_TRUE(first.Wait().ok()); });
  inside.wait();
  ScopedThread waits_for_second([&] { EXPECT_EQ(*second.Take(), 2); });
  waits_for_second.AwaitAsleep();
  release.count_down();
  waits_for_second.Join();
}

TEST_F(LimitTest, SoDoesAWaitForAll) {
  std::latch inside(1);
  std::latch release(1);
  std::atomic<bool> ran = false;
  TaskHandle<void> first = tasks_.SpawnWithResult([&] {
    inside.count_down();
    release.wait();
  });
  tasks_.Spawn([&] { ran = true; });
  ScopedThread waits_for_first([&] { EXPECT_TRUE(first.Wait().ok()); });
  inside.wait();
  ScopedThread waits_for_all([&] { EXPECT_TRUE(tasks_.Wait().ok()); });
  waits_for_all.AwaitAsleep();
  release.count_down();
  waits_for_all.Join();
  EXPECT_TRUE(ran);
}

// golang errgroup, Kotlin #4132
TEST_P(TaskHandleTest, ATaskMayWaitForOneThatTheLimitHoldsBack) {
  for (int limit : {1, 2, 3}) {
    TaskGroup group({.pool = pool_.get(), .max_running = limit});
    std::latch all_inside(limit);
    std::atomic<int> running = 0;
    std::atomic<int> most = 0;
    auto inner = [&] {
      int now = ++running;
      for (int seen = most; seen < now;) most.compare_exchange_weak(seen, now);
      --running;
    };
    auto outer = [&] {
      {
        BlockingRegion region;
        all_inside.arrive_and_wait();
      }
      CancelScope scope;  // may be cancelled for itself
      return group.SpawnWithResult(inner).Wait();
    };
    for (int i = 0; i < limit; ++i) {
      if (i % 2 == 0) {
        group.Spawn(outer);
      } else {
        group.SpawnWithResult(outer);
      }
    }
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_LE(most, limit);
  }
}

// Each of those that wait keeps the limit, whatever order the threads take.
TEST_P(TaskHandleTest, WaitsOfManyThreadsKeepTheOrderAndTheLimit) {
  TaskSet tasks({.pool = pool_.get(), .max_running = 1});
  constexpr int kTasks = 200;
  std::vector<int> order;  // no two run at a time
  std::vector<TaskHandle<void>> handles;
  for (int i = 0; i < kTasks; ++i) {
    handles.push_back(
        tasks.SpawnWithResult([&order, i] { order.push_back(i); }));
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&handles, t] {
      for (int i = t; i < kTasks; i += 4) {
        EXPECT_TRUE(handles[(i * 7) % kTasks].Wait().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(tasks.Wait().ok());
  for (int i = 0; i < kTasks; ++i) EXPECT_EQ(order[i], i);
}

// Cancelled before its turn. -------------------------------------------------

TEST_P(TaskHandleTest, ATaskThatIsCancelledInTheQueueEndsAtOnce) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  std::thread::id destroyed_on;
  group.Spawn([&] {
    started.count_down();
    release.wait();
  });
  started.wait();
  TaskHandle<void> handle = group.SpawnWithResult(
      [at_death = AtDeath([&] { destroyed_on = std::this_thread::get_id(); })] {
        ADD_FAILURE() << "ran";
      });
  ScopedThread waiter([&] { EXPECT_TRUE(absl::IsCancelled(handle.Wait())); });
  waiter.AwaitAsleep();
  handle.Cancel();
  EXPECT_EQ(destroyed_on, std::this_thread::get_id());
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(TaskHandle, AGroupDoesNotEndBeforeACancelledClosureIsGone) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskSet tasks({.pool = pool.get()});
  std::latch dying(1);
  std::latch die(1);
  std::atomic<bool> ended = false;
  TaskHandle<void> handle = tasks.SpawnWithResult([at_death = AtDeath([&] {
                                                     dying.count_down();
                                                     die.wait();
                                                   })] {});
  ScopedThread canceller([&] { handle.Cancel(); });
  dying.wait();
  ScopedThread owner([&] {
    EXPECT_TRUE(tasks.Wait().ok());
    ended = true;
  });
  owner.AwaitAsleep();
  EXPECT_FALSE(ended);
  die.count_down();
}

TEST_P(TaskHandleTest, AResultIsReturnedThoughTheScopeIsCancelled) {
  TaskGroup group(InPool());
  TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  EXPECT_TRUE(group.Wait().ok());
  CancelScope scope;
  scope.Cancel();
  EXPECT_EQ(*handle.Take(), 1);
}

// What a handle keeps of its task is the result.
TEST_P(TaskHandleTest, TheClosureIsGoneWhenTheWaitReturns) {
  TaskGroup group({.pool = pool_.get(), .cancel_on_error = false});
  auto token = std::make_shared<int>();
  TaskHandle<void> good = group.SpawnWithResult([token] {});
  TaskHandle<void> bad =
      group.SpawnWithResult([token] { return absl::AbortedError("x"); });
  EXPECT_TRUE(good.Wait().ok());
  EXPECT_FALSE(bad.Wait().ok());
  EXPECT_EQ(token.use_count(), 1);
#ifdef ABSL_HAVE_EXCEPTIONS
  TaskHandle<void> thrown =
      group.SpawnWithResult([token] { throw std::runtime_error("x"); });
  EXPECT_FALSE(thrown.Wait().ok());
  EXPECT_EQ(token.use_count(), 1);
#endif
  EXPECT_FALSE(group.Wait().ok());
  TaskHandle<void> refused = group.SpawnWithResult([token] {});
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_FALSE(refused.Wait().ok());
}

TEST(TaskHandle, NobodyIsToldOfTheEndBeforeTheClosureIsGone) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch dying(1);
  std::latch die(1);
  std::atomic<bool> returned{false};
  TaskHandle<void> handle = group.SpawnWithResult([at_death = AtDeath([&] {
                                                     dying.count_down();
                                                     die.wait();
                                                   })] {});
  dying.wait();
  ScopedThread waiter([&] {
    EXPECT_TRUE(handle.Wait().ok());
    returned = true;
  });
  waiter.AwaitAsleep();
  EXPECT_FALSE(returned);
  die.count_down();
  waiter.Join();
  EXPECT_TRUE(group.Wait().ok());
}

// An address on a stack that has been left is written to by nobody.
TEST(TaskHandle, AWaitThatWasGivenUpLeavesNoTrace) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch started(1);
  std::latch release(1);
  TaskHandle<int> handle = group.SpawnWithResult([&] {
    started.count_down();
    release.wait();
    return 4;
  });
  started.wait();
  absl::Status status;
  int written = -1;
  ScopedThread waiter([&] {
    status = handle.Wait();
    // Where the frame of the wait was.
    [&]() __attribute__((noinline)) {
      volatile char stack[4096] = {};
      release.count_down();
      EXPECT_TRUE(group.Wait().ok());
      written = 0;
      for (const volatile char& byte : stack) written += byte != 0 ? 1 : 0;
    }
    ();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(written, 0);
  EXPECT_EQ(*handle.Take(), 4);
}

TEST_P(TaskHandleTest, AnotherErrorOfACancelledTaskIsOneOfTheGroup) {
  for (const absl::Status& error :
       {absl::InternalError("clean-up failed"),
        absl::CancelledError("the peer hung up"),
        absl::DeadlineExceededError("10 s without answer")}) {
    TaskGroup group(InPool());
    std::latch asleep(1);
    TaskHandle<void> handle = group.SpawnWithResult([&] {
      asleep.count_down();
      SleepUntilCancelled().IgnoreError();
      return error;
    });
    std::jthread canceller([&] {
      asleep.wait();
      handle.Cancel();
    });
    EXPECT_EQ(handle.Wait(), error);
    EXPECT_EQ(group.Wait(), error);
    EXPECT_EQ(group.failure_count(), 1);
  }
}

TEST_P(TaskHandleTest, ACancelledTaskMayAskToBeStartedAllTheSame) {
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch started(1);
  std::latch release(1);
  std::jthread first([&] {
    EXPECT_TRUE(group
                    .SpawnWithResult([&] {
                      started.count_down();
                      release.wait();
                    })
                    .Wait()
                    .ok());
  });
  started.wait();
  absl::Status seen;
  TaskHandle<void> handle =
      group.SpawnWithResult([&] { return seen = SleepUntilCancelled(); },
                            {.start_even_if_cancelled = true});
  handle.Cancel();
  release.count_down();
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_TRUE(absl::IsCancelled(seen));
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(TaskHandleTest, InACancelledGroupItsTaskMayAskToBeStarted) {
  TaskGroup group(InPool());
  group.Cancel();
  bool ran = false;
  TaskHandle<int> handle = group.SpawnWithResult(
      [&] {
        ran = true;
        return 1;
      },
      {.start_even_if_cancelled = true});
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
  EXPECT_EQ(*handle.Take(), 1);
}

TEST_P(TaskHandleTest, ManyThreadsMayWaitForOneTask) {
  TaskGroup group(InPool());
  std::latch release(1);
  TaskHandle<int> handle = group.SpawnWithResult([&] {
    release.wait();
    return 6;
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([handle] { EXPECT_TRUE(handle.Wait().ok()); });
  }
  release.count_down();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*handle.Take(), 6);
  EXPECT_TRUE(group.Wait().ok());
}

#ifdef ABSL_HAVE_EXCEPTIONS
// A094
TEST_P(TaskHandleTest, OfATaskThatThrewSaysWhat) {
  TaskGroup group(InPool());
  TaskHandle<int> handle = group.SpawnWithResult(
      []() -> int { throw std::runtime_error("no"); }, {.name = "asker"});
  EXPECT_EQ(handle.Wait(),
            absl::InternalError("asker threw std::runtime_error: no"));
  EXPECT_EQ(group.Wait(),
            absl::InternalError("asker threw std::runtime_error: no"));
  EXPECT_THROW(group.RethrowFirst(), std::runtime_error);
}
#endif

// A012, T025, T026: the group waits for the rest.
TEST_P(StartTest, ReturnsTheValueWhileTheTaskGoesOn) {
  TaskGroup group(InPool());
  std::latch release(1);
  std::atomic<bool> ended{false};
  absl::StatusOr<std::string> value =
      group.Start<std::string>([&](const Started<std::string>& started) {
        EXPECT_TRUE(started("foo").ok());
        release.wait();
        ended = true;
      });
  EXPECT_EQ(*value, "foo");
  EXPECT_FALSE(ended);
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ended);
}

// A007; any form of parameter.
TEST_P(StartTest, MayReturnNothing) {
  TaskGroup group(InPool());
  EXPECT_TRUE(group.Start<void>([](auto& started) { return started(); }).ok());
  EXPECT_TRUE(group
                  .Start<void>([](Started<void> started) {
                    EXPECT_TRUE(started().ok());
                  })
                  .ok());
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(StartTest, MoveOnlyValuesWork) {
  TaskGroup group(InPool());
  auto value = group.Start<std::unique_ptr<int>>(
      [](auto& started) { return started(std::make_unique<int>(2)); });
  EXPECT_EQ(**value, 2);
  EXPECT_TRUE(group.Wait().ok());
}

// A081, A082: until started() it belongs to who starts it, and from then on to
// the group alone.
TEST_P(StartTest, AStartedTaskIsNoLongerInTheScopeOfItsStarter) {
  TaskGroup group(InPool());
  CancelScope starter;
  std::latch cancelled(1);
  std::latch looked(1);
  absl::Status seen;
  ASSERT_TRUE(group
                  .Start<void>([&](const Started<void>& started) {
                    started().IgnoreError();
                    cancelled.wait();
                    seen = CheckCancelled();
                    looked.count_down();
                  })
                  .ok());
  starter.Cancel();
  cancelled.count_down();
  looked.wait();
  EXPECT_TRUE(seen.ok());
  EXPECT_TRUE(group.Wait().ok());
}

// A008, A010, T025
TEST_P(StartTest, ASecondCallOfStartedIsRefused) {
  TaskGroup group(InPool());
  absl::Status second;
  EXPECT_EQ(*group.Start<int>([&](auto& started) {
    EXPECT_TRUE(started(1).ok());
    second = started(2);
  }),
            1);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(second.code(), kFailedPrecondition);
}

// A009: from another thread, before the task has done its own part.
TEST_P(StartTest, StartedMayBeCalledElsewhere) {
  TaskGroup group(InPool());
  std::latch release(1);
  EXPECT_EQ(*group.Start<int>([&](const Started<int>& started) {
    std::thread([started] { EXPECT_TRUE(started(5).ok()); }).join();
    release.wait();
  }),
            5);
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

// A013, T025, T031: the error comes out of Start() with its payload, and the
// group stays usable.
TEST_P(StartTest, AnErrorBeforeStartedComesOutOfStart) {
  TaskGroup group(InPool());
  absl::Status error = absl::NotFoundError("no such port");
  error.SetPayload("port", absl::Cord("80"));
  absl::StatusOr<int> value =
      group.Start<int>([&](auto&) -> absl::Status { return error; });
  EXPECT_EQ(value.status(), error);
  EXPECT_EQ(value.status().GetPayload("port"), "80");
  std::atomic<bool> ran{false};
  group.Spawn([&] { ran = true; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
  EXPECT_TRUE(group.failures().empty());
}

// A014
TEST_P(StartTest, AnErrorAfterStartedComesOutOfTheGroup) {
  TaskGroup group(InPool());
  EXPECT_EQ(*group.Start<int>([](auto& started) {
    EXPECT_TRUE(started(2).ok());
    return absl::DataLossError("later");
  }),
            2);
  EXPECT_EQ(group.Wait(), absl::DataLossError("later"));
  EXPECT_EQ(group.failure_count(), 1);
}

// A015, T025
TEST_P(StartTest, ATaskThatEndsWithoutStartedIsAnError) {
  TaskGroup group(InPool());
  std::unique_ptr<Started<int>> copy;
  absl::StatusOr<int> value = group.Start<int>([&](Started<int>& started) {
    copy = std::make_unique<Started<int>>(started);
  });
  EXPECT_EQ(value.status().code(), kFailedPrecondition);
  EXPECT_THAT(std::string(value.status().message()), HasSubstr("started()"));
  EXPECT_EQ((*copy)(1).code(), kFailedPrecondition);
  EXPECT_TRUE(group.Wait().ok());
}

// A016: not started by default, started on request. The thread is not in the
// set, so that the reason is what the task ended with.
TEST_P(StartTest, InACancelledGroupTheTaskIsNotStartedUnlessItAsksForIt) {
  TaskSet group(InPool());
  group.Cancel(absl::CancelledError("enough"));
  bool ran = false;
  EXPECT_THAT(group
                  .Start<int>([&](auto& started) {
                    ran = true;
                    return started(1);
                  })
                  .status(),
              Says(absl::CancelledError("enough")));
  EXPECT_FALSE(ran);
  bool passed = false;
  absl::StatusOr<int> value = group.Start<int>(
      [&](Started<int>&) -> absl::Status {
        ran = true;
        absl::Status status = SleepUntilCancelled();
        passed = status.ok();
        return status;
      },
      {.start_even_if_cancelled = true});
  EXPECT_TRUE(absl::IsCancelled(value.status()));
  EXPECT_TRUE(ran);
  EXPECT_FALSE(passed);
  EXPECT_TRUE(group.Wait().ok());
}

// A017, T025: cancelled while blocked in Start(); started() is a no-op then.
TEST_P(StartTest, WhenItsScopeIsCancelledTheTaskIsCancelledAndWaitedFor) {
  TaskGroup group(InPool());
  std::latch asleep(1);
  std::atomic<bool> ended{false};
  absl::Status late;
  CancelScope* around = nullptr;
  std::latch entered(1);
  std::thread starter([&] {
    CancelScope scope;
    around = &scope;
    entered.count_down();
    absl::StatusOr<int> value =
        group.Start<int>([&](auto& started) -> absl::Status {
          asleep.count_down();
          absl::Status status = SleepUntilCancelled();
          late = started(1);
          ended = true;
          return status;
        });
    EXPECT_THAT(value.status(), Says(absl::CancelledError("give up")));
    EXPECT_TRUE(ended);
  });
  entered.wait();
  asleep.wait();
  around->Cancel(absl::CancelledError("give up"));
  starter.join();
  EXPECT_TRUE(absl::IsCancelled(late));
  EXPECT_FALSE(group.scope().cancelled());
  EXPECT_TRUE(group.Wait().ok());
}

// T025: an error of a start that was cancelled comes out of Start().
TEST_P(StartTest, AnErrorOfACancelledStartComesOutOfIt) {
  for (const absl::Status& error :
       {absl::InternalError("clean-up"),
        absl::CancelledError("the peer hung up"),
        absl::DeadlineExceededError("10 s without answer")}) {
    TaskGroup group(InPool());
    CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
    absl::StatusOr<int> value = group.Start<int>([&](auto&) -> absl::Status {
      SleepUntilCancelled().IgnoreError();
      return error;
    });
    EXPECT_EQ(value.status(), error);
    EXPECT_TRUE(group.failures().empty());
  }
}

TEST_P(StartTest, ATaskThatEndsWellAfterTheCancelWasCancelledAllTheSame) {
  TaskGroup group(InPool());
  CancelScope scope;
  EXPECT_THAT(group.Start<void>([&](const Started<void>&) {
    scope.Cancel(absl::CancelledError("give up"));
    SleepUntilCancelled().IgnoreError();
  }),
              Says(absl::CancelledError("give up")));
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(StartTest, ACancelledStartSleepsUntilTheTaskHasEnded) {
  TaskGroup group(InPool());
  std::latch cancelled(1);
  std::latch end(1);
  ScopedThread starter([&] {
    EXPECT_FALSE(group
                     .Start<void>([&](const Started<void>&) {
                       SleepUntilCancelled().IgnoreError();
                       cancelled.count_down();
                       end.wait();
                     })
                     .ok());
  });
  starter.scope().Cancel();
  cancelled.wait();
  starter.AwaitAsleep();
  end.count_down();
  starter.Join();
  EXPECT_TRUE(group.Wait().ok());
}

// A011: Start() racing a cancel has one outcome.
TEST_P(StartTest, RacingACancelItHasOneOutcome) {
  for (int round = 0; round < 50; ++round) {
    TaskGroup group(InPool());
    CancelScope* around = nullptr;
    std::latch ready(2);
    std::latch over(1);
    absl::Status announced;
    std::thread starter([&] {
      CancelScope scope;
      around = &scope;
      absl::StatusOr<int> value = group.Start<int>([&](auto& started) {
        ready.arrive_and_wait();
        announced = started(1);
      });
      over.wait();
      EXPECT_EQ(value.ok(), announced.ok()) << value.status() << announced;
    });
    ready.arrive_and_wait();
    around->Cancel();
    over.count_down();
    starter.join();
    EXPECT_TRUE(group.Wait().ok());
  }
}

// A006, T025
TEST_P(StartTest, OnAClosedGroupItFailsAtOnce) {
  TaskGroup group(InPool());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(group.Start<int>([](auto& started) { return started(1); })
                .status()
                .code(),
            kFailedPrecondition);
  EXPECT_TRUE(group.Wait().ok());
}

TEST(Start, WhereNoThreadCanBeHadItSaysSo) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  EXPECT_TRUE(absl::IsResourceExhausted(
      group.Start<void>([](auto& started) { return started(); })));
  EXPECT_TRUE(group.Wait().ok());
}

// T026: a pending start holds the group open.
TEST_P(StartTest, AnotherThreadsWaitIncludesAStartThatIsPending) {
  TaskGroup group(InPool());
  std::latch inside(1);
  std::latch release(1);
  std::atomic<bool> ended{false};
  std::thread starter([&] {
    EXPECT_TRUE(group
                    .Start<void>([&](auto& started) {
                      inside.count_down();
                      release.wait();
                      ended = true;
                      return started();
                    })
                    .ok());
  });
  inside.wait();
  std::thread waiter([&] {
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_TRUE(ended);
  });
  release.count_down();
  waiter.join();
  starter.join();
}

#ifdef ABSL_HAVE_EXCEPTIONS
TEST_P(StartTest, AnExceptionComesOutWhereAnErrorWould) {
  TaskGroup group(InPool());
  absl::StatusOr<int> value = group.Start<int>(
      [](Started<int>&) { throw std::runtime_error("early"); });
  EXPECT_THAT(std::string(value.status().message()),
              HasSubstr("threw std::runtime_error: early"));
  EXPECT_TRUE(group
                  .Start<int>([](auto& started) {
                    EXPECT_TRUE(started(1).ok());
                    throw std::runtime_error("late");
                  })
                  .ok());
  EXPECT_THAT(std::string(group.Wait().message()),
              HasSubstr("threw std::runtime_error: late"));
  EXPECT_EQ(group.failure_count(), 1);
  EXPECT_THROW(group.RethrowFirst(), std::runtime_error);
}
#endif

}  // namespace
}  // namespace tocsin
