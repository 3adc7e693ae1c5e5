// A TaskSet, which nobody is in, and a TaskGroup, which its thread is in.
#include "tocsin/concurrency/task_set.h"

#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/wait.h"

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
