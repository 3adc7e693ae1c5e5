// A TaskSet, which nobody is in, and a TaskGroup, which its thread is in.
#include "tocsin/concurrency/task_set.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <iterator>
#include <latch>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

absl::Status SleepForEver() { return tocsin::Sleep(absl::InfiniteDuration()); }

TEST(TaskGroup, TheWaitsOfItsThreadEndWhenATaskFails) {
  TaskGroup group;
  BlockingQueue<int> jobs(1);
  group.Spawn([&]() -> absl::Status {
    if (absl::StatusOr<int> job = jobs.Pop(); !job.ok()) return job.status();
    return absl::DataLossError("job 0");
  });
  absl::Status status;
  while (status.ok()) status = jobs.Push(0);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_THAT(group.Wait(), Says(absl::DataLossError("job 0")));
}

// As the guide has it: workers that are fed as they go.
TEST(TaskGroup, APushToWorkersOfWhichEachHasFailedEnds) {
  constexpr int kWorkers = 4;
  TaskGroup group;
  BlockingQueue<int> jobs(2);
  std::latch each_has_a_job(kWorkers);
  for (int i = 0; i < kWorkers; ++i) {
    group.Spawn([&]() -> absl::Status {
      for (int& job : jobs) {
        each_has_a_job.arrive_and_wait();
        return absl::DataLossError(absl::StrCat("job ", job));
      }
      return absl::OkStatus();
    });
  }
  absl::Status status;
  while (status.ok()) status = jobs.Push(7);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  jobs.Close();
  EXPECT_THAT(group.Wait(), Says(absl::DataLossError("job 7")));
  EXPECT_EQ(group.failure_count(), kWorkers);
}

TEST(TaskGroup, TheWaitsOfItsThreadEndWhenItIsCancelled) {
  TaskGroup group;
  group.Spawn([&] { group.Cancel(absl::CancelledError("enough")); });
  EXPECT_THAT(SleepForEver(), Says(absl::CancelledError("enough")));
  EXPECT_TRUE(group.Wait().ok());
}

TEST(TaskGroup, WhatStandsAfterWaitIsOutside) {
  TaskGroup group;
  group.Cancel();
  EXPECT_FALSE(CheckCancelled().ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(TaskGroup, WhatStandsAfterTheBlockIsOutside) {
  CancelScope outer;
  {
    TaskGroup group;
    group.Cancel();
    EXPECT_FALSE(CheckCancelled().ok());
  }
  EXPECT_TRUE(CheckCancelled().ok());
  outer.Cancel();
  EXPECT_FALSE(CheckCancelled().ok());
}

// Its inner scopes are left first, so the group by its destructor.
TEST(TaskGroup, MayBeWaitedForInAScopeInside) {
  {
    TaskGroup group;
    bool ran = false;
    {
      CancelScope inner;
      group.Spawn([&] { ran = true; });
      EXPECT_TRUE(group.Wait().ok());
      inner.Cancel();
      EXPECT_FALSE(CheckCancelled().ok());
    }
    EXPECT_TRUE(ran);
    EXPECT_TRUE(CheckCancelled().ok());
    group.scope().Cancel();
    EXPECT_FALSE(CheckCancelled().ok());
  }
  EXPECT_TRUE(CheckCancelled().ok());
}

// It leaves the group of its own thread alone.
TEST(TaskGroup, AWaitOnAnotherThreadLeavesItsThreadInside) {
  TaskGroup group;
  std::thread([&] { EXPECT_TRUE(group.Wait().ok()); }).join();
  group.Cancel();
  EXPECT_FALSE(CheckCancelled().ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(TaskGroup, AWaitOnAnotherThreadLeavesThatThreadWhereItIs) {
  {
    TaskGroup group;
    std::thread([&] {
      CancelScope own;
      EXPECT_TRUE(group.Wait().ok());
      own.Cancel();
      EXPECT_FALSE(CheckCancelled().ok());
    }).join();
  }
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(TaskGroup, GroupsOfATaskNest) {
  TaskGroup outer;
  outer.Spawn([&] {
    TaskGroup inner;
    inner.Spawn([&] { outer.Cancel(absl::CancelledError("all")); });
    EXPECT_THAT(SleepForEver(), Says(absl::CancelledError("all")));
    return inner.Wait();
  });
  EXPECT_THAT(SleepForEver(), Says(absl::CancelledError("all")));
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(outer.failure_count(), 0);
}

TEST(TaskGroupDeathTest, LeftOutOfOrderEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto group = std::make_unique<TaskGroup>();
        CancelScope inner;
        group.reset();
      },
      "a CancelScope was destroyed");
  EXPECT_DEATH(
      {
        auto group = std::make_unique<TaskGroup>();
        std::thread([&] { group.reset(); }).join();
      },
      "a CancelScope was destroyed");
}

// Makes a group that nobody destroys, as a singleton does with its member.
void LeaveGroup() {
  (new TaskGroup({.name = "cache"}))->Spawn([] {});
}
void LeaveIdleGroup() { new TaskGroup({.name = "cache"}); }
void LeaveGroupAfterItsWait() {
  (new TaskGroup({.name = "cache"}))->Wait().IgnoreError();
}
void LeaveGroupsAfterTheirWaits() {
  auto* outer = new TaskGroup({.name = "cache"});
  LeaveGroupAfterItsWait();
  outer->Wait().IgnoreError();
}

class LeftGroupDeathTest : public testing::TestWithParam<void (*)()> {
 protected:
  LeftGroupDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

constexpr char kNamesLeftGroup[] = "TaskGroup \"cache\".*take a TaskSet";

TEST_P(LeftGroupDeathTest, ByAScope) {
  EXPECT_DEATH(
      {
        CancelScope request;
        GetParam()();
      },
      kNamesLeftGroup);
  EXPECT_DEATH(MoveOnAfter(absl::Hours(1), GetParam()), kNamesLeftGroup);
  EXPECT_DEATH(
      {
        CleanUpScope clean_up;
        GetParam()();
      },
      kNamesLeftGroup);
  EXPECT_DEATH(
      {
        TaskGroup outer;
        GetParam()();
      },
      kNamesLeftGroup);
}

TEST_P(LeftGroupDeathTest, ByATask) {
  for (int threads : {0, 1}) {
    auto leave_in_task = [&](auto spawn) {
      auto pool = *ThreadPool::Create({.threads = threads});
      TaskSet tasks({.pool = pool.get()});
      spawn(tasks);
      tasks.Wait().IgnoreError();
    };
    EXPECT_DEATH(leave_in_task([](TaskSet& tasks) { tasks.Spawn(GetParam()); }),
                 kNamesLeftGroup);
    EXPECT_DEATH(leave_in_task(
                     [](TaskSet& tasks) { tasks.SpawnBackground(GetParam()); }),
                 kNamesLeftGroup);
    EXPECT_DEATH(leave_in_task([](TaskSet& tasks) {
                   tasks.SpawnWithResult(GetParam()).Wait().IgnoreError();
                 }),
                 kNamesLeftGroup);
    EXPECT_DEATH(leave_in_task([](TaskSet& tasks) {
                   tasks
                       .Start<void>([](auto& started) {
                         GetParam()();
                         return started();
                       })
                       .IgnoreError();
                 }),
                 kNamesLeftGroup);
  }
}

INSTANTIATE_TEST_SUITE_P(, LeftGroupDeathTest,
                         testing::Values(LeaveGroup, LeaveIdleGroup,
                                         LeaveGroupAfterItsWait,
                                         LeaveGroupsAfterTheirWaits));

TEST(TaskGroupDeathTest, DestroyedElsewhereAfterItsWaitEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto group = std::make_unique<TaskGroup>();
        group->Wait().IgnoreError();
        std::thread([&] { group.reset(); }).join();
      },
      "on another thread than the one that made it");
  EXPECT_DEATH(
      {
        auto outer = std::make_unique<TaskGroup>();
        auto inner =
            std::make_unique<TaskGroup>(TaskGroup::Options{.name = "inner"});
        inner->Wait().IgnoreError();
        outer->Wait().IgnoreError();
        outer.reset();
      },
      "TaskGroup \"inner\"");
}

TEST(TaskGroup, ThatHasBeenWaitedForStaysUntilTheEndOfItsScope) {
  TaskGroup outer;
  auto first = std::make_unique<TaskGroup>();
  EXPECT_TRUE(first->Wait().ok());
  CancelScope inner;
  auto second = std::make_unique<TaskGroup>();
  EXPECT_TRUE(second->Wait().ok());
  // Runs in the scope of the groups, on this thread, which leaves it again.
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup runs_here({.pool = pool.get()});
  TaskGroup beside({.pool = pool.get()});
  EXPECT_TRUE(beside.Wait().ok());
  int ran = 0;
  runs_here.Spawn([&] { ++ran; });
  EXPECT_TRUE(runs_here.Wait().ok());
  EXPECT_EQ(ran, 1);
  first.reset();
  second.reset();
  EXPECT_TRUE(outer.Wait().ok());
}

TEST(RunTaskGroup, ReturnsAnErrorOfTheBodyAfterItsWait) {
  EXPECT_THAT(RunTaskGroup([](TaskGroup& group) -> absl::Status {
                EXPECT_TRUE(group.Wait().ok());
                return absl::DataLossError("later");
              }),
              Says(absl::DataLossError("later")));
}

TEST(RunTaskGroup, ReturnsTheErrorOfATaskAndNotWhatItDidToTheBody) {
  EXPECT_THAT(RunTaskGroup([](TaskGroup& group) {
                group.Spawn([] { return absl::DataLossError("first"); });
                return SleepForEver();
              }),
              Says(absl::DataLossError("first")));
}

TEST(TaskSet, IsNoMatterOfTheScopeItWasMadeIn) {
  for (bool with_options : {false, true}) {
    std::optional<TaskSet> tasks;
    std::latch started(1);
    absl::Status status;
    {
      CancelScope request;
      if (with_options) {
        tasks.emplace(TaskSet::Options{.name = "of the program"});
      } else {
        tasks.emplace();
      }
      tasks->Spawn([&] {
        started.count_down();
        status = SleepForEver();
      });
      started.wait();
      request.Cancel(absl::CancelledError("the request is over"));
      EXPECT_FALSE(tasks->scope().cancelled());
    }
    tasks->Cancel(absl::CancelledError("the program is over"));
    EXPECT_TRUE(tasks->Wait().ok());
    EXPECT_THAT(status, Says(absl::CancelledError("the program is over")));
  }
}

TEST(TaskSet, IsEnteredByNobody) {
  TaskSet tasks;
  tasks.Cancel();
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskSet, ATaskOfOneMayMakeAnother) {
  std::optional<TaskSet> inner;
  TaskSet outer;
  std::latch ran(1);
  outer.Spawn([&] {
    inner.emplace();
    inner->Spawn([&] { ran.count_down(); });
  });
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_TRUE(inner->Wait().ok());
  ran.wait();
}

// A wait in a task of it looks for the tasks that wait for the end of this one.
TEST(TaskSet, ATaskOfOneMayWaitWhereItsMakerIsGone) {
  std::optional<TaskSet> made;
  alignas(TaskSet) std::byte place[sizeof(TaskSet)];
  auto* const maker = ::new (static_cast<void*>(place)) TaskSet;
  maker->Spawn([&] { made.emplace(); });
  EXPECT_TRUE(maker->Wait().ok());
  maker->~TaskSet();
  std::fill(std::begin(place), std::end(place), std::byte{0xff});
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskSet other({.pool = pool.get()});
  std::latch go_on(1);
  other.Spawn([&] { go_on.wait(); });
  made->Spawn([&] { return other.Wait(); });
  ScopedThread waits([&] { EXPECT_TRUE(made->Wait().ok()); });
  waits.AwaitAsleep();
  go_on.count_down();
  waits.Join();
}

TEST(TaskSet, MayBeAMemberThatOutlivesBlocks) {
  class Counter {
   public:
    Counter() {
      tasks_.Spawn([this] {
        ++counted_;
        return SleepForEver();
      });
    }
    void WaitForOne() {
      while (counted_ == 0) std::this_thread::yield();
    }

   private:
    std::atomic<int> counted_{0};
    TaskSet tasks_;
  };
  std::unique_ptr<Counter> counter;
  {
    CancelScope block;
    counter = std::make_unique<Counter>();
  }
  std::thread([&] {
    counter->WaitForOne();
    counter.reset();
  }).join();
}

TEST(TaskSet, WithANegativeLimitRefusesItsTasks) {
  TaskSet tasks({.name = "none", .max_running = -1});
  bool ran = false;
  tasks.Spawn([&] { ran = true; });
  tasks.SpawnBackground([&] { ran = true; });
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(tasks.SpawnWithResult([] { return 1; }).Take().status().code(),
            invalid);
  EXPECT_EQ(tasks.Start<void>([](auto& started) { return started(); }).code(),
            invalid);
  const absl::Status status = tasks.Wait();
  EXPECT_EQ(status.code(), invalid);
  EXPECT_THAT(status.ToString(), testing::HasSubstr("\"none\" is -1"));
  EXPECT_EQ(tasks.failure_count(), 3);
  for (const TaskFailure& failure : tasks.failures()) {
    EXPECT_EQ(failure.status.code(), invalid);
  }
  EXPECT_FALSE(ran);
}

// Calls `act` when it is destroyed and has not been moved from.
class AtDestruction {
 public:
  explicit AtDestruction(std::function<void()> act) : act_(std::move(act)) {}
  AtDestruction(AtDestruction&& other) noexcept
      : act_(std::exchange(other.act_, nullptr)) {}
  ~AtDestruction() {
    if (act_) act_();
  }

 private:
  std::function<void()> act_;
};

TEST(TaskSet, ATaskThatIsDiscardedCannotWaitForIt) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  for (bool elsewhere : {false, true}) {
    TaskSet tasks({.pool = pool.get()});
    absl::Status status;
    auto spawn = [&] {
      tasks.Spawn(
          [discarded = AtDestruction([&] { status = tasks.Wait(); })] {});
    };
    elsewhere ? std::thread(spawn).join() : spawn();
    tasks.Cancel();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(tasks.Wait().ok());
  }
}

TEST(TaskSet, ATaskThatIsDiscardedCannotWaitForItself) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskSet tasks({.pool = pool.get()});
  std::optional<TaskHandle<void>> handle;
  absl::Status status;
  handle = tasks.SpawnWithResult(
      [discarded = AtDestruction([&] { status = handle->Wait(); })] {});
  tasks.Cancel();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::IsCancelled(handle->Wait()));
}

TEST(TaskSet, ATaskThatIsDiscardedMayWaitForOthers) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskSet tasks({.pool = pool.get()});
  TaskSet others({.pool = pool.get()});
  int ran = 0;
  others.Spawn([&] { ++ran; });
  tasks.Spawn(
      [discarded = AtDestruction([&] { EXPECT_TRUE(others.Wait().ok()); })] {});
  tasks.Cancel();
  EXPECT_EQ(ran, 1);
}

TEST(TaskSetDeathTest, DestroyedByATaskThatIsDiscardedEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
        auto* tasks = new TaskSet({.pool = pool.get()});
        tasks->Spawn([last = AtDestruction([&] { delete tasks; })] {});
        tasks->Cancel();
      },
      "destroyed by a task");
}

TEST(TaskSet, WaitReturnsTheSameAfterARefusedSpawn) {
  TaskSet tasks;
  tasks.Spawn([] {});
  EXPECT_TRUE(tasks.Wait().ok());
  tasks.Spawn([] { return absl::InternalError("never runs"); });
  EXPECT_TRUE(tasks.Wait().ok());
  ASSERT_EQ(tasks.failure_count(), 1);
  EXPECT_EQ(tasks.failures()[0].status.code(),
            absl::StatusCode::kFailedPrecondition);
}

// The status of a wait is the task's cancellation by the scope that it names,
// whatever its code and whatever else has happened since. ---------------------

TEST(Cancellation, IsKnownWhateverTheReason) {
  for (const absl::Status& reason :
       {absl::CancelledError("enough"), absl::InternalError("disk full"),
        absl::DeadlineExceededError("the peer was slow")}) {
    TaskGroup group;
    group.Spawn([&] {
      group.Cancel(reason);
      return CheckCancelled();
    });
    EXPECT_TRUE(group.Wait().ok()) << reason;
    EXPECT_EQ(group.failure_count(), 0);
  }
}

TEST(Cancellation, IsKnownThoughAShieldWasPutUpSince) {
  CancelScope outer;
  TaskGroup group;
  group.Spawn([&] {
    outer.Cancel(absl::CancelledError("SIGTERM"));
    absl::Status stopped = CheckCancelled();
    group.scope().set_shield(true);
    return stopped;
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(group.failure_count(), 0);
}

TEST(Cancellation, ThroughAStopTokenIsThatOfTheScopeThatTookIt) {
  CancelScope request;
  request.Cancel(absl::CancelledError("the request is over"));
  std::thread([token = request.stop_token()] {
    CancelScope mine(token);
    TaskGroup group;
    group.Spawn([] { return CheckCancelled(); },
                {.start_even_if_cancelled = true});
    EXPECT_THAT(group.Wait(),
                Says(absl::CancelledError("the request is over")));
    EXPECT_EQ(group.failure_count(), 0);
  }).join();
}

TEST(Cancellation, OfTheScopeAroundAGroupIsKnownAfterADeadlineInBetween) {
  CancelScope outer;
  CancelScope between;
  TaskGroup group;
  group.Spawn([&] {
    outer.Cancel(absl::CancelledError("SIGTERM"));
    absl::Status stopped = CheckCancelled();
    between.set_deadline(absl::Now());
    EXPECT_FALSE(CheckCancelled().ok());
    return stopped;
  });
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("SIGTERM")));
  EXPECT_EQ(group.failure_count(), 0);
}

TEST(Cancellation, ByADeadlineAroundAGroupIsKnownAfterACancel) {
  CancelScope outer;
  TaskGroup group;
  group.Spawn([&] {
    outer.set_deadline(absl::Now());
    absl::Status timed_out = CheckCancelled();
    EXPECT_TRUE(absl::IsDeadlineExceeded(timed_out));
    group.Cancel();
    return timed_out;
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(group.Wait()));
  EXPECT_EQ(group.failure_count(), 0);
}

TEST(Cancellation, FromElsewhereIsAFailureInACancelledGroupToo) {
  TaskGroup group;
  group.Spawn([&] {
    group.Cancel();
    return absl::CancelledError("the peer hung up");
  });
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("the peer hung up")));
  EXPECT_EQ(group.failure_count(), 1);
}

TEST(Cancellation, OfAScopeThatATaskMadeIsAFailureInACancelledGroupToo) {
  TaskGroup group;
  group.Spawn([&] {
    group.Cancel();
    CancelScope shield({.timeout = absl::ZeroDuration(), .shield = true});
    return CheckCancelled();
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(group.Wait()));
  EXPECT_EQ(group.failure_count(), 1);
}

TEST(Cancellation, OfAnotherGroupIsAFailure) {
  TaskSet other;
  other.Cancel(absl::CancelledError("the other is over"));
  TaskHandle<int> handle = other.SpawnWithResult([] { return 1; });
  TaskGroup group;
  group.Spawn([&] {
    group.Cancel();
    EXPECT_FALSE(CheckCancelled().ok());
    CancelScope shield({.shield = true});
    return handle.Wait();
  });
  EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  EXPECT_EQ(group.failure_count(), 1);
  EXPECT_TRUE(other.Wait().ok());
}

TEST(Cancellation, IsKnownThroughAnInnerGroup) {
  CancelScope outer;
  TaskGroup group;
  group.Spawn([&] {
    TaskGroup inner;
    inner.Spawn([&] {
      outer.Cancel();
      return CheckCancelled();
    });
    return inner.Wait();
  });
  EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  EXPECT_EQ(group.failure_count(), 0);
}

}  // namespace
}  // namespace tocsin

// A call by its short name finds no function of Abseil by its argument.
namespace somewhere_else {

template <typename T>
concept SleepIsFound = requires(T duration) {
  Sleep(duration);
};
static_assert(!SleepIsFound<absl::Duration>,
              "Sleep() without tocsin:: is the function of somebody else");

}  // namespace somewhere_else
