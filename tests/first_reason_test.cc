// The rule of cancel_scope.h: the first reason wins and is kept.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"

// By how many nanoseconds the clock of deadlines is ahead; where it stands, if
// it stands still.
static std::atomic<int64_t> ahead{0};
static std::atomic<int64_t> stands_at{0};

// Stands before that of the C library.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_MONOTONIC) {
    *now = absl::ToTimespec(absl::DurationFromTimespec(*now) +
                            absl::Nanoseconds(ahead.load()));
  }
  if (result == 0 && clock == CLOCK_MONOTONIC && stands_at.load() != 0) {
    *now = absl::ToTimespec(absl::Nanoseconds(stands_at.load()));
  }
  return static_cast<int>(result);
}

namespace tocsin {
namespace {

using internal::Deadline;
using internal::Scope;
using testing::HasSubstr;

// Nobody waits for a deadline here: it passes because the clock is set.
constexpr absl::Duration kSoon = absl::Hours(1);
constexpr absl::Duration kLater = absl::Hours(2);

void LetPass(absl::Duration duration) {
  ahead += absl::ToInt64Nanoseconds(duration);
}

absl::Status First() { return absl::CancelledError("first"); }
absl::Status Later() { return absl::CancelledError("later"); }

TEST(FirstReason, OfTwoDeadlinesThatPassedUnseenIsTheEarlier) {
  {
    CancelScope outer({.timeout = kSoon});
    CancelScope inner({.timeout = kLater});
    LetPass(kLater);
    EXPECT_EQ(inner.status(), outer.status());
  }
  CancelScope outer({.timeout = kLater});
  CancelScope inner({.timeout = kSoon});
  LetPass(kLater);
  EXPECT_NE(inner.status(), outer.status());
  EXPECT_EQ(CheckCancelled(), inner.status());
}

TEST(FirstReason, OfTwoDeadlinesAtTheSameTimeIsThatOfTheOuterScope) {
  const Deadline soon(kSoon);
  CancelScope outer;
  Scope::Of(outer).set_deadline(soon);
  CancelScope inner;
  Scope::Of(inner).set_deadline(soon);
  LetPass(kSoon);
  EXPECT_EQ(inner.status(), outer.status());
}

TEST(FirstReason, IsADeadlineThatPassedUnseenBeforeACancel) {
  CancelScope outer;
  CancelScope inner({.timeout = kSoon});
  CancelScope innermost;
  LetPass(kSoon);
  outer.Cancel(Later());
  innermost.Cancel(Later());
  inner.Cancel(Later());
  EXPECT_TRUE(absl::IsDeadlineExceeded(inner.status()));
  EXPECT_EQ(CheckCancelled(), inner.status());
  EXPECT_THAT(outer.status(), Says(Later()));
}

TEST(FirstReason, IsACancelBeforeADeadline) {
  CancelScope outer;
  CancelScope inner({.timeout = kSoon});
  CancelScope innermost({.timeout = kSoon});
  outer.Cancel(First());
  LetPass(kSoon);
  EXPECT_THAT(inner.status(), Says(First()));
  EXPECT_THAT(CheckCancelled(), Says(First()));
  EXPECT_THAT(Sleep(absl::Hours(1)), Says(First()));
}

TEST(FirstReason, IsOfTheInnerScopeWhereThatWasCancelledFirst) {
  CancelScope outer({.timeout = kSoon});
  CancelScope inner;
  CancelScope innermost({.timeout = kLater});
  inner.Cancel(First());
  LetPass(kLater);
  EXPECT_THAT(CheckCancelled(), Says(First()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(outer.status()));
}

// Those of some machines take microseconds for a step.
TEST(FirstReason, IsKeptWhereTheClockStandsStill) {
  stands_at = internal::Now().time_since_epoch().count();
  CancelScope outer;
  CancelScope inner;
  inner.Cancel(First());
  EXPECT_THAT(CheckCancelled(), Says(First()));
  outer.Cancel(Later());
  EXPECT_THAT(CheckCancelled(), Says(First()));
  stands_at = 0;
}

// A wait in the scope has returned the reason by then.
TEST(FirstReason, IsKeptWhereADeadlineIsMovedIntoThePast) {
  CancelScope outer;
  CancelScope inner;
  outer.Cancel(First());
  EXPECT_THAT(CheckCancelled(), Says(First()));
  inner.set_deadline(absl::UnixEpoch());
  EXPECT_THAT(CheckCancelled(), Says(First()));
  inner.set_timeout(-absl::Hours(1));
  EXPECT_THAT(CheckCancelled(), Says(First()));
}

TEST(FirstReason, IsNotADeadlineThatWasMovedIntoThePastLater) {
  CancelScope outer;
  CancelScope inner({.timeout = kSoon});
  LetPass(kLater);
  outer.set_deadline(absl::UnixEpoch());
  EXPECT_THAT(outer.status().message(), HasSubstr("1970"));
  EXPECT_NE(inner.status(), outer.status());
}

TEST(FirstReason, OfAScopeThatIsMadeInACancelledOneIsThatOfTheOther) {
  CancelScope outer;
  outer.Cancel(First());
  {
    CancelScope inner({.deadline = absl::UnixEpoch()});
    EXPECT_THAT(CheckCancelled(), Says(First()));
  }
  {
    CancelScope inner({.timeout = -absl::Hours(1)});
    EXPECT_THAT(CheckCancelled(), Says(First()));
  }
  EXPECT_THAT(FailAfter(-absl::Hours(1), CheckCancelled), Says(First()));
  EXPECT_EQ(MoveOnAfter(-absl::Hours(1), [] {}), TimeLimit::kKept);
}

TEST(FirstReason, OfADeadlineIsKeptWhereThatIsMovedAfterwards) {
  CancelScope scope({.timeout = kSoon});
  LetPass(kSoon);
  CancelScope unseen({.timeout = kSoon, .shield = true});
  const absl::Status before = scope.status();
  scope.set_timeout(kLater);
  EXPECT_EQ(scope.status(), before);
  scope.set_deadline(absl::UnixEpoch());
  EXPECT_EQ(scope.status(), before);
  const absl::Time deadline = unseen.deadline();
  LetPass(kSoon);
  unseen.set_timeout(kLater);
  EXPECT_EQ(unseen.deadline(), deadline);
  EXPECT_TRUE(absl::IsDeadlineExceeded(unseen.status()));
}

TEST(FirstReason, BehindAShieldIsNotWhatItKeepsOut) {
  CancelScope outer;
  CancelScope shield({.shield = true});
  CancelScope inner({.timeout = kSoon});
  outer.Cancel(Later());
  LetPass(kSoon);
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

// Also where nobody looked before.
TEST(FirstReason, IsKeptWhereAShieldIsLifted) {
  for (const bool seen : {false, true}) {
    CancelScope outer;
    CancelScope shield({.shield = true});
    CancelScope inner({.timeout = kSoon});
    outer.Cancel(Later());
    LetPass(kSoon);
    if (seen) {
      EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
    }
    shield.set_shield(false);
    EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
    EXPECT_THAT(shield.status(), Says(Later()));
  }
}

TEST(FirstReason, BehindALiftedShieldIsWhatItKeptOutIfNothingElseWasBefore) {
  CancelScope outer;
  CancelScope shield({.shield = true});
  CancelScope inner({.timeout = kSoon});
  outer.Cancel(First());
  shield.set_shield(false);
  shield.set_shield(false);
  LetPass(kSoon);
  EXPECT_THAT(CheckCancelled(), Says(First()));
}

TEST(FirstReason, IsOneOfThoseThatAShieldLeftWhereItIsLiftedAgain) {
  for (const bool seen : {false, true}) {
    CancelScope outer;
    CancelScope shield;
    CancelScope inner({.timeout = kSoon});
    outer.Cancel(absl::CancelledError("outer"));
    LetPass(kSoon);
    if (seen) {
      EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
    }
    shield.set_shield(true);
    if (seen) {
      EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
    }
    shield.set_shield(false);
    EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
  }
}

TEST(FirstReason, InACleanUpScopeIsWhatEndedItIfNothingElseWasBefore) {
  for (const bool cancel : {false, true}) {
    CancelScope outer;
    outer.Cancel(First(), kSoon);
    const CleanUpScope clean_up;
    CancelScope inner({.timeout = kLater});
    LetPass(cancel ? kSoon : kLater);
    if (cancel) inner.Cancel(Later());
    EXPECT_THAT(CheckCancelled(), Says(First()));
  }
}

TEST(FirstReason, InACleanUpScopeIsOneOfItsOwnThatCameBeforeItsEnd) {
  for (const bool cancel : {false, true}) {
    CancelScope outer;
    outer.Cancel(Later(), kLater);
    const CleanUpScope clean_up;
    CancelScope inner({.timeout = kSoon});
    if (cancel) inner.Cancel(First());
    LetPass(kLater);
    EXPECT_EQ(absl::IsDeadlineExceeded(CheckCancelled()), !cancel);
    EXPECT_EQ(absl::IsCancelled(CheckCancelled()), cancel);
    // What ends the clean-up sooner does so from now on.
    outer.Cancel(Later(), absl::ZeroDuration());
    Scope::Of(outer).CancelUntil(Later(), internal::Instant());
    EXPECT_EQ(absl::IsDeadlineExceeded(CheckCancelled()), !cancel);
  }
}

TEST(FirstReason, InACleanUpScopeIsKeptWhereItsEndIsMovedIntoThePast) {
  CancelScope outer;
  outer.Cancel(Later(), absl::InfiniteDuration());
  const CleanUpScope clean_up;
  CancelScope inner({.timeout = kSoon});
  LetPass(kSoon);
  Scope::Of(outer).CancelUntil(Later(), internal::Instant());
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

TEST(FirstReason, OfAStopTokenCountsFromItsRequestOn) {
  std::stop_source stop;
  CancelScope outer({.timeout = kSoon});
  CancelScope inner(stop.get_token());
  stop.request_stop();
  LetPass(kSoon);
  const absl::Status first = CheckCancelled();
  EXPECT_THAT(first, Says(absl::CancelledError("stop was requested")));
  EXPECT_TRUE(absl::IsDeadlineExceeded(outer.status()));
  // Made in a scope that was cancelled before.
  CancelScope innermost(stop.get_token());
  EXPECT_EQ(CheckCancelled(), first);
}

TEST(FirstReason, IsADeadlineThatPassedUnseenBeforeAStopRequest) {
  std::stop_source stop;
  CancelScope outer({.timeout = kSoon});
  CancelScope inner(stop.get_token());
  LetPass(kSoon);
  stop.request_stop();
  EXPECT_EQ(CheckCancelled(), outer.status());
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

TEST(FirstReason, IsATimeoutForMoveOnAfterWhateverCameAfterIt) {
  CancelScope outer;
  EXPECT_EQ(MoveOnAfter(kSoon,
                        [&] {
                          LetPass(kSoon);
                          outer.Cancel(Later());
                        }),
            TimeLimit::kPassed);
}

TEST(FirstReason, IsACancelForMoveOnAfterAlsoWhereTheTimeRunsOutLater) {
  CancelScope outer;
  EXPECT_EQ(MoveOnAfter(kSoon,
                        [&] {
                          outer.Cancel(First());
                          LetPass(kSoon);
                        }),
            TimeLimit::kKept);
}

TEST(FirstReason, IsATimeoutForMoveOnAfterBehindAShieldThatIsLifted) {
  CancelScope outer;
  CancelScope shield({.shield = true});
  outer.Cancel(Later());
  EXPECT_EQ(MoveOnAfter(kSoon,
                        [&] {
                          LetPass(kSoon);
                          shield.set_shield(false);
                        }),
            TimeLimit::kPassed);
}

TEST(FirstReason, IsATimeoutForFailAfterWhateverCameAfterIt) {
  CancelScope outer;
  const absl::Status status = FailAfter(kSoon, [&] {
    LetPass(kSoon);
    outer.Cancel(Later());
    return CheckCancelled();
  });
  EXPECT_THAT(status, Says(absl::DeadlineExceededError("not done within 1h")));
}

TEST(FirstReason, IsACancelForFailAfterAlsoWhereTheTimeRunsOutLater) {
  CancelScope outer;
  EXPECT_THAT(FailAfter(kSoon,
                        [&] {
                          outer.Cancel(First());
                          LetPass(kSoon);
                          return CheckCancelled();
                        }),
              Says(First()));
}

class FirstReasonOfAGroup : public testing::TestWithParam<int> {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "test", .threads = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(Workers, FirstReasonOfAGroup,
                         testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

TEST_P(FirstReasonOfAGroup, IsNoFailureThoughADeadlineInsideItHasPassed) {
  CancelScope outer;
  absl::Status waited;
  const absl::Status status = FailAfter(kSoon, [&] {
    TaskGroup group(InPool());
    group.Spawn([&] {
      outer.Cancel(First());
      absl::Status stopped = CheckCancelled();
      LetPass(kSoon);
      return stopped;
    });
    waited = group.Wait();
    EXPECT_EQ(group.failure_count(), 0);
    return waited;
  });
  EXPECT_THAT(status, Says(First()));
  EXPECT_EQ(status, waited);
}

TEST_P(FirstReasonOfAGroup,
       IsNoFailureThoughTheGroupIsCancelledAfterADeadline) {
  const absl::Status status = FailAfter(kSoon, [&] {
    TaskGroup group(InPool());
    group.Spawn([&] {
      LetPass(kSoon);
      absl::Status timed_out = CheckCancelled();
      EXPECT_TRUE(absl::IsDeadlineExceeded(timed_out));
      group.Cancel(Later());
      return timed_out;
    });
    absl::Status waited = group.Wait();
    EXPECT_EQ(group.failure_count(), 0);
    return waited;
  });
  EXPECT_THAT(status, Says(absl::DeadlineExceededError("not done within 1h")));
}

TEST_P(FirstReasonOfAGroup, ThatIsAnErrorStaysThatOfTheOtherTasks) {
  CancelScope outer({.timeout = kSoon});
  TaskGroup group(InPool());
  absl::Status seen;
  group.Spawn(
      [&] {
        seen = Sleep(absl::InfiniteDuration());
        LetPass(kSoon);
        EXPECT_EQ(CheckCancelled(), seen);
        return seen;
      },
      {.start_even_if_cancelled = true});
  group.Spawn([] { return absl::DataLossError("bad block"); },
              {.name = "reader", .start_even_if_cancelled = true});
  EXPECT_THAT(group.Wait(), Says(absl::DataLossError("bad block")));
  EXPECT_EQ(group.failure_count(), 1);
  EXPECT_THAT(
      seen, Says(absl::CancelledError("reader failed: DATA_LOSS: bad block")));
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

// What cancelled the group itself is absorbed, if that came first.
TEST_P(FirstReasonOfAGroup, IsWhatItsWaitReturns) {
  for (const bool own_first : {false, true}) {
    CancelScope outer;
    TaskGroup group(InPool());
    group.Spawn([&] {
      if (own_first) group.Cancel(First());
      outer.Cancel(own_first ? Later() : First());
      group.Cancel(Later());
      return CheckCancelled();
    });
    EXPECT_THAT(group.Wait(), Says(own_first ? absl::OkStatus() : First()));
    EXPECT_EQ(group.failure_count(), 0);
  }
}

TEST_P(FirstReasonOfAGroup, IsWhatRunTaskGroupReturns) {
  for (const bool with_task : {false, true}) {
    for (const bool own_first : {false, true}) {
      CancelScope outer;
      const absl::Status status = RunTaskGroup(
          [&](TaskGroup& group) {
            if (with_task) group.Spawn([] {});
            if (own_first) group.Cancel(First());
            outer.Cancel(own_first ? Later() : First());
            group.Cancel(Later());
            return CheckCancelled();
          },
          InPool());
      EXPECT_THAT(status, Says(own_first ? absl::OkStatus() : First()));
    }
  }
}

}  // namespace
}  // namespace tocsin
