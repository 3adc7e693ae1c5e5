// How the failures of tasks come out of their group.
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <memory>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tests/without_exceptions.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {
namespace {

using testing::HasSubstr;

absl::Status SleepUntilCancelled() {
  internal::Sleeper sleeper("a test");
  while (true) {
    if (absl::Status status = sleeper.Sleep(); !status.ok()) return status;
  }
}

class TaskGroupErrorsTest : public testing::TestWithParam<int> {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "test", .threads = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(Workers, TaskGroupErrorsTest,
                         testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

// A058, T002, T027, E: Wait() returns the first error, repeatedly, as it is.
TEST_P(TaskGroupErrorsTest, TheFirstErrorCancelsTheSiblingsAndComesOut) {
  TaskGroup group(InPool());
  std::latch asleep(1);
  absl::Status seen;
  group.Spawn([&] {
    asleep.count_down();
    seen = SleepUntilCancelled();
    return seen;
  });
  absl::Status error = absl::DataLossError("bad block");
  error.SetPayload("block", absl::Cord("17"));
  group.Spawn(
      [&] {
        asleep.wait();
        return error;
      },
      {.name = "reader"});
  EXPECT_EQ(group.Wait(), error);
  EXPECT_EQ(group.Wait(), error);
  EXPECT_EQ(group.Wait().GetPayload("block"), "17");
  EXPECT_TRUE(absl::IsCancelled(seen));
  EXPECT_THAT(std::string(seen.message()),
              HasSubstr("reader failed: DATA_LOSS"));
  ASSERT_EQ(group.failures().size(), 1);  // A080: the cancellation is none
  EXPECT_EQ(group.failures()[0].task, "reader");
  EXPECT_EQ(group.failures()[0].status, error);
}

TEST_P(TaskGroupErrorsTest, TheReasonNamesTheGroup) {
  TaskGroup group({.pool = pool_.get(), .name = "loaders"});
  absl::Status seen;
  group.Spawn([&] { return seen = SleepUntilCancelled(); },
              {.start_even_if_cancelled = true});
  group.Spawn([] { return absl::DataLossError("bad block"); },
              {.name = "reader", .start_even_if_cancelled = true});
  EXPECT_EQ(group.Wait(), absl::DataLossError("bad block"));
  EXPECT_EQ(seen.message(), "reader of loaders failed: DATA_LOSS: bad block");
}

TEST(TaskGroupErrors, OfTheDefaultPoolCancelTheSiblingsToo) {
  TaskGroup group;
  absl::Status seen;
  group.Spawn([&] { seen = SleepUntilCancelled(); },
              {.start_even_if_cancelled = true});
  group.Spawn([] { return absl::DataLossError("bad block"); });
  EXPECT_EQ(group.Wait(), absl::DataLossError("bad block"));
  EXPECT_TRUE(absl::IsCancelled(seen));
}

TEST_P(TaskGroupErrorsTest, FailuresAreInTheOrderTheyHappened) {
  TaskGroup group(
      {.pool = pool_.get(), .max_running = 1, .cancel_on_error = false});
  for (int i = 0; i < 4; ++i) {
    group.Spawn([i] { return absl::AbortedError(absl::StrCat(i)); });
  }
  EXPECT_EQ(group.Wait(), absl::AbortedError("0"));
  const std::vector<TaskFailure> failures = group.failures();
  ASSERT_EQ(failures.size(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(failures[i].status, absl::AbortedError(absl::StrCat(i)));
    EXPECT_EQ(failures[i].task, absl::StrCat("task ", i + 1));
  }
}

// A031, T005, J: all fail.
TEST_P(TaskGroupErrorsTest, NoneOfSeveralFailuresIsLost) {
  TaskGroup group(InPool());
  std::latch both(2);
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&, i] {
      both.arrive_and_wait();
      return absl::UnavailableError(absl::StrCat(i));
    });
  }
  EXPECT_EQ(group.Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group.failures().size(), 2);
  EXPECT_EQ(group.failure_count(), 2);
  EXPECT_EQ(group.Wait(), group.failures()[0].status);
}

TEST_P(TaskGroupErrorsTest, WithoutCancelOnErrorTheSiblingsGoOn) {
  TaskGroup group({.pool = pool_.get(), .cancel_on_error = false});
  std::atomic<int> ran{0};
  for (int i = 0; i < 10; ++i) {
    group.Spawn([&]() -> absl::Status {
      ++ran;
      return absl::AbortedError("each");
    });
  }
  EXPECT_EQ(group.Wait(), absl::AbortedError("each"));
  EXPECT_EQ(ran, 10);
  EXPECT_EQ(group.failure_count(), 10);
  EXPECT_FALSE(group.scope().cancelled());
}

TEST_P(TaskGroupErrorsTest, FailuresAreKeptUpToABoundAndCountedBeyond) {
  TaskGroup group({.pool = pool_.get(), .cancel_on_error = false});
  const size_t count = TaskGroup::kFailuresKept + 7;
  for (size_t i = 0; i < count; ++i) {
    group.Spawn([] { return absl::UnknownError("x"); });
  }
  EXPECT_EQ(group.Wait(), absl::UnknownError("x"));
  EXPECT_EQ(group.failures().size(), TaskGroup::kFailuresKept);
  EXPECT_EQ(group.failure_count(), count);
}

// E, A086, T011, T032: the error and not the cancellation comes out, though a
// scope around was cancelled first.
TEST_P(TaskGroupErrorsTest, AnErrorWinsOverACancellation) {
  CancelScope outer;
  TaskGroup group(InPool());
  std::latch asleep(2);
  group.Spawn([&] {
    asleep.count_down();
    return SleepUntilCancelled();
  });
  group.Spawn([&]() -> absl::Status {
    asleep.count_down();
    SleepUntilCancelled().IgnoreError();
    return absl::InternalError("clean-up failed");  // A032
  });
  std::thread canceller([&] {
    asleep.wait();
    outer.Cancel();
  });
  EXPECT_EQ(group.Wait(), absl::InternalError("clean-up failed"));
  EXPECT_EQ(group.failure_count(), 1);
  canceller.join();
}

// A task's own kCancelled, in a scope that is not cancelled, is its failure.
TEST_P(TaskGroupErrorsTest, AForeignCancellationIsAnErrorLikeAnyOther) {
  TaskGroup group(InPool());
  group.Spawn([] { return absl::CancelledError("the peer hung up"); });
  EXPECT_THAT(group.Wait(), Says(absl::CancelledError("the peer hung up")));
  EXPECT_EQ(group.failure_count(), 1);
}

TEST_P(TaskGroupErrorsTest, ATimeoutOfATasksOwnIsAnErrorAlsoInACancelledGroup) {
  TaskGroup group(InPool());
  group.Cancel();
  group.Spawn([] { return absl::DeadlineExceededError("10 s without answer"); },
              {.start_even_if_cancelled = true});
  EXPECT_THAT(group.Wait(),
              Says(absl::DeadlineExceededError("10 s without answer")));
}

// B: each of 64 groups keeps its own error, the parent is unaffected.
TEST_P(TaskGroupErrorsTest, EachInnerGroupKeepsItsOwnError) {
  TaskGroup outer(InPool());
  std::atomic<int> right{0};
  for (int i = 0; i < 64; ++i) {
    outer.Spawn([&, i] {
      TaskGroup inner(InPool());
      const absl::Status error = absl::NotFoundError(absl::StrCat(i));
      inner.Spawn([error] { return error; });
      if (inner.Wait() == error) ++right;
    });
  }
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(right, 64);
}

// B, A067: an error handed on by the children cancels the parent, and the
// cancellations of the others are filtered out.
TEST_P(TaskGroupErrorsTest, AnErrorHandedOnByAnInnerGroupCancelsTheOuterOne) {
  TaskGroup outer(InPool());
  std::latch asleep(1);
  outer.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([&] {
      asleep.count_down();
      return SleepUntilCancelled();
    });
    return inner.Wait();
  });
  outer.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([&] {
      asleep.wait();
      return absl::OutOfRangeError("end");
    });
    return inner.Wait();
  });
  EXPECT_EQ(outer.Wait(), absl::OutOfRangeError("end"));
  EXPECT_EQ(outer.failure_count(), 1);
}

// A037: a fresh group after an unrelated failed one.
TEST_P(TaskGroupErrorsTest, AFailedGroupLeavesNothingBehind) {
  {
    TaskGroup failed(InPool());
    failed.Spawn([] { return absl::AbortedError("x"); });
    EXPECT_FALSE(failed.Wait().ok());
  }
  EXPECT_TRUE(CheckCancelled().ok());
  TaskGroup group(InPool());
  group.Spawn([] { return CheckCancelled(); });
  EXPECT_TRUE(group.Wait().ok());
}

// The body of RunTaskGroup().

// A020, A025, T001
TEST_P(TaskGroupErrorsTest, AnErrorOfTheBodyCancelsTheTasks) {
  absl::Status seen;
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) -> absl::Status {
        std::latch asleep(1);
        group.Spawn([&] {
          asleep.count_down();
          seen = SleepUntilCancelled();
          return seen;
        });
        asleep.wait();
        return absl::InvalidArgumentError("body");
      },
      InPool());
  EXPECT_EQ(status, absl::InvalidArgumentError("body"));
  EXPECT_TRUE(absl::IsCancelled(seen));
  EXPECT_THAT(std::string(seen.message()), HasSubstr("the body failed"));
}

TEST_P(TaskGroupErrorsTest, AnErrorOfTheBodyCancelsWhereThatOfATaskDoesNot) {
  absl::Status seen;
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) -> absl::Status {
        group.Spawn([&] { seen = SleepUntilCancelled(); },
                    {.start_even_if_cancelled = true});
        return absl::InvalidArgumentError("body");
      },
      {.pool = pool_.get(), .cancel_on_error = false});
  EXPECT_EQ(status, absl::InvalidArgumentError("body"));
  EXPECT_TRUE(absl::IsCancelled(seen));
}

TEST_P(TaskGroupErrorsTest, AnErrorOfATaskComesBeforeALaterOneOfTheBody) {
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) -> absl::Status {
        group.Spawn([] { return absl::DataLossError("task"); });
        SleepUntilCancelled().IgnoreError();
        return absl::InvalidArgumentError("body");
      },
      InPool());
  EXPECT_EQ(status, absl::DataLossError("task"));
}

TEST_P(TaskGroupErrorsTest, AForeignCancellationOfTheBodyIsItsError) {
  EXPECT_EQ(
      RunTaskGroup([](TaskGroup&) { return absl::CancelledError("hung up"); },
                   InPool()),
      absl::CancelledError("hung up"));
}

// A024, T006: the body sleeps in a wait of the library.
TEST_P(TaskGroupErrorsTest, AFailingTaskWakesTheBody) {
  absl::Status seen;
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) {
        group.Spawn([] { return absl::DataLossError("task"); });
        seen = SleepUntilCancelled();
        return seen;
      },
      InPool());
  EXPECT_TRUE(absl::IsCancelled(seen));
  EXPECT_EQ(status, absl::DataLossError("task"));
}

// A033, A068
TEST_P(TaskGroupErrorsTest, ABodyMayCancelItsOwnGroup) {
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) {
        group.Spawn([] { return SleepUntilCancelled(); });
        group.Cancel();
        return SleepUntilCancelled();
      },
      InPool());
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST_P(TaskGroupErrorsTest, ACancelFromOutsideEndsTheBodyAndComesOut) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
  EXPECT_THAT(
      RunTaskGroup([](TaskGroup&) { return SleepUntilCancelled(); }, InPool()),
      Says(absl::CancelledError("outer")));
}

TEST_P(TaskGroupErrorsTest, ABodyMayEndWithWait) {
  std::vector<TaskFailure> failures;
  absl::Status status = RunTaskGroup(
      [&](TaskGroup& group) {
        group.Spawn([] { return absl::AbortedError("once"); });
        absl::Status result = group.Wait();
        failures = group.failures();
        return result;
      },
      InPool());
  EXPECT_EQ(status, absl::AbortedError("once"));
  EXPECT_EQ(failures.size(), 1);
  EXPECT_TRUE(RunTaskGroup([](TaskGroup& group) {
                group.Spawn([] {});
                return group.Wait();
              }).ok());
}

// Issue 18: TaskFailure had a member more where the including file was compiled
// with exceptions, and the two took each other's failures for something else.
TEST(TaskFailure, IsTheSameForPartsWithAndWithoutExceptions) {
  auto pool = *ThreadPool::Create({.threads = 0});  // in the order of spawning
  TaskGroup group(
      {.pool = pool.get(), .max_running = 1, .cancel_on_error = false});
  without_exceptions::SpawnFailing(group, "first", absl::DataLossError("one"));
  group.Spawn([] { return absl::AbortedError("two"); }, {.name = "second"});
  std::vector<std::string> expected = {"first: DATA_LOSS: one",
                                       "second: ABORTED: two"};
#ifdef ABSL_HAVE_EXCEPTIONS
  group.Spawn([] { throw std::out_of_range("three"); }, {.name = "third"});
  expected.push_back(
      "third: INTERNAL: third threw std::out_of_range: three threw");
#endif
  EXPECT_FALSE(group.Wait().ok());
  EXPECT_EQ(without_exceptions::Describe(group.failures()), expected);
  ASSERT_EQ(group.failures().size(), expected.size());
  EXPECT_EQ(group.failures()[0].task, "first");
}

#ifdef ABSL_HAVE_EXCEPTIONS

// P: a task throws; A094, T002, E: panics exhaust no threads.
TEST_P(TaskGroupErrorsTest, AnExceptionIsAFailureAndIsKept) {
  for (int i = 0; i < 20; ++i) {
    TaskGroup group(InPool());
    group.Spawn([] { throw std::out_of_range("index 7"); }, {.name = "parser"});
    absl::Status status = group.Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(status.message(), "parser threw std::out_of_range: index 7");
    EXPECT_THROW(group.RethrowFirst(), std::out_of_range);
  }
}

// A095
TEST_P(TaskGroupErrorsTest, SomethingThatIsNoStdExceptionMayBeThrown) {
  TaskGroup group(InPool());
  group.Spawn([] { throw 42; });
  EXPECT_EQ(group.Wait().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(group.Wait().message()),
              HasSubstr("task 1 threw int"));
  try {
    group.RethrowFirst();
    ADD_FAILURE() << "nothing was thrown";
  } catch (int thrown) {
    EXPECT_EQ(thrown, 42);
  }
}

// A079, B: rethrown through two groups.
TEST_P(TaskGroupErrorsTest, AnExceptionMayBeHandedOnThroughNestedGroups) {
  TaskGroup outer(InPool());
  outer.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([] { throw std::runtime_error("deep"); });
    inner.Wait().IgnoreError();
    inner.RethrowFirst();
  });
  EXPECT_THAT(std::string(outer.Wait().message()),
              HasSubstr("threw std::runtime_error: deep"));
  EXPECT_EQ(outer.failure_count(), 1);
  EXPECT_THROW(outer.RethrowFirst(), std::runtime_error);
}

TEST_P(TaskGroupErrorsTest, ClosuresOfTasksThatThrowAreDestroyed) {
  auto token = std::make_shared<int>();
  TaskGroup group(InPool());
  group.Spawn([token] { throw std::runtime_error("x"); });
  EXPECT_FALSE(group.Wait().ok());
  EXPECT_EQ(token.use_count(), 1);
}

TEST_P(TaskGroupErrorsTest, RethrowFirstDoesNothingWhereNothingWasThrown) {
  TaskGroup group(InPool());
  group.Spawn([] { return absl::AbortedError("x"); });
  EXPECT_FALSE(group.Wait().ok());
  group.RethrowFirst();
}

TEST_P(TaskGroupErrorsTest, RethrowFirstFindsTheFirstThatWasThrown) {
  TaskGroup group(
      {.pool = pool_.get(), .max_running = 1, .cancel_on_error = false});
  group.Spawn([] { return absl::AbortedError("x"); });
  group.Spawn([] { throw std::out_of_range("first"); });
  group.Spawn([] { throw std::runtime_error("second"); });
  EXPECT_EQ(group.Wait(), absl::AbortedError("x"));
  EXPECT_THROW(group.RethrowFirst(), std::out_of_range);
}

// B: destroyed during unwinding, the original exception wins.
TEST_P(TaskGroupErrorsTest, AGroupDestroyedByAnExceptionLetsItPass) {
  std::atomic<bool> ended{false};
  EXPECT_THROW(
      {
        TaskGroup group(InPool());
        std::latch asleep(1);
        group.Spawn([&] {
          asleep.count_down();
          SleepUntilCancelled().IgnoreError();
          ended = true;
          throw std::runtime_error("too late");
        });
        asleep.wait();
        throw std::logic_error("first");
      },
      std::logic_error);
  EXPECT_TRUE(ended);
}

TEST_P(TaskGroupErrorsTest, AnExceptionOfTheBodyCancelsTheTasksAndPasses) {
  std::atomic<bool> ended{false};
  EXPECT_THROW(RunTaskGroup(
                   [&](TaskGroup& group) -> absl::Status {
                     std::latch asleep(1);
                     group.Spawn([&] {
                       asleep.count_down();
                       SleepUntilCancelled().IgnoreError();
                       ended = true;
                     });
                     asleep.wait();
                     throw std::logic_error("body");
                   },
                   InPool())
                   .IgnoreError(),
               std::logic_error);
  EXPECT_TRUE(ended);
  EXPECT_TRUE(CheckCancelled().ok());
}

// The others are no less in order than without it.
TEST_P(TaskGroupErrorsTest, RethrowFirstFindsWhatWasThrownAfterManyErrors) {
  TaskGroup group(
      {.pool = pool_.get(), .max_running = 1, .cancel_on_error = false});
  const size_t kept = TaskGroup::kFailuresKept;
  for (size_t i = 0; i < kept + 7; ++i) {
    group.Spawn([i] { return absl::UnknownError(absl::StrCat(i)); });
  }
  group.Spawn([] { throw std::out_of_range("first"); }, {.name = "thrower"});
  group.Spawn([] { throw std::runtime_error("second"); });
  group.Spawn([] { return absl::UnknownError("after it"); });
  EXPECT_EQ(group.Wait(), absl::UnknownError("0"));
  EXPECT_EQ(group.failure_count(), kept + 10);
  const std::vector<TaskFailure> failures = group.failures();
  ASSERT_EQ(failures.size(), kept);
  EXPECT_EQ(failures[kept - 2].status,
            absl::UnknownError(absl::StrCat(kept - 2)));
  EXPECT_EQ(failures[kept - 1].task, "thrower");
  EXPECT_THROW(group.RethrowFirst(), std::out_of_range);
}

TEST_P(TaskGroupErrorsTest, WhatWasThrownLaterTakesNoPlaceOfAnother) {
  TaskGroup group(
      {.pool = pool_.get(), .max_running = 1, .cancel_on_error = false});
  group.Spawn([] { throw std::out_of_range("first"); });
  const size_t kept = TaskGroup::kFailuresKept;
  for (size_t i = 1; i < kept; ++i) {
    group.Spawn([i] { return absl::UnknownError(absl::StrCat(i)); });
  }
  group.Spawn([] { throw std::runtime_error("second"); });
  EXPECT_FALSE(group.Wait().ok());
  EXPECT_EQ(group.failure_count(), kept + 1);
  EXPECT_EQ(group.failures().back().status,
            absl::UnknownError(absl::StrCat(kept - 1)));
  EXPECT_THROW(group.RethrowFirst(), std::out_of_range);
}

TEST_P(TaskGroupErrorsTest, ATaskThatEndsItsThreadEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        TaskGroup group(InPool());
        group.Spawn([] { pthread_exit(nullptr); }, {.name = "parser"});
        group.Wait().IgnoreError();
      },
      testing::KilledBySignal(SIGABRT), "parser called pthread_exit");
  EXPECT_EXIT(
      {
        TaskGroup group(InPool());
        group.Spawn(
            [] {
              pthread_cancel(pthread_self());
              pthread_testcancel();
            },
            {.name = "parser"});
        group.Wait().IgnoreError();
      },
      testing::KilledBySignal(SIGABRT), "parser .* pthread_cancel");
  EXPECT_EXIT(
      {
        TaskGroup group(InPool());
        group
            .SpawnWithResult(
                []() -> int {
                  pthread_exit(nullptr);
                  return 1;
                },
                {.name = "parser"})
            .Wait()
            .IgnoreError();
      },
      testing::KilledBySignal(SIGABRT), "parser called pthread_exit");
  EXPECT_EXIT(
      {
        TaskGroup group(InPool());
        group.Start<void>([](Started<void>&) { pthread_exit(nullptr); })
            .IgnoreError();
      },
      testing::KilledBySignal(SIGABRT), "the task called pthread_exit");
}

#endif  // ABSL_HAVE_EXCEPTIONS

}  // namespace
}  // namespace tocsin
