#include "tocsin/concurrency/clean_up_scope.h"

#include <csignal>
#include <stop_token>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scoped_thread.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::Gt;
using ::testing::Le;

absl::Status Reason() { return absl::CancelledError("stop it"); }

absl::Status WaitForever() { return Event().Wait(); }

TEST(CleanUpScope, KeepsACancellationOut) {
  CancelScope scope;
  scope.Cancel();
  {
    CleanUpScope clean_up;
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_TRUE(Sleep(absl::Nanoseconds(1)).ok());
    EXPECT_EQ(clean_up.remaining(), absl::InfiniteDuration());
  }
  EXPECT_FALSE(CheckCancelled().ok());
}

TEST(CleanUpScope, HasNoLimitBeforeAnythingIsCancelled) {
  CancelScope scope;
  const CleanUpScope clean_up;
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_EQ(clean_up.remaining(), absl::InfiniteDuration());
}

TEST(CleanUpScope, HasTheGraceButForATenth) {
  CancelScope scope;
  scope.Cancel(Reason(), absl::Seconds(8));
  const CleanUpScope clean_up;
  EXPECT_THAT(clean_up.remaining(),
              AllOf(Gt(absl::ZeroDuration()), Le(absl::Milliseconds(7200))));
}

TEST(CleanUpScope, LeavesNoMoreThanASecond) {
  CancelScope scope;
  scope.Cancel(Reason(), absl::Hours(1));
  const CleanUpScope clean_up;
  EXPECT_THAT(
      clean_up.remaining(),
      AllOf(Gt(absl::Minutes(55)), Le(absl::Hours(1) - absl::Seconds(1))));
}

TEST(CleanUpScope, ItsWaitsEndWithTheReasonWhenItsTimeIsOver) {
  CancelScope scope;
  scope.Cancel(Reason(), absl::Milliseconds(1));
  const CleanUpScope clean_up;
  EXPECT_THAT(WaitForever(), Says(Reason()));
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
  EXPECT_EQ(clean_up.remaining(), absl::ZeroDuration());
}

TEST(CleanUpScope, WithoutAGraceThereIsNone) {
  for (const absl::Duration none :
       {absl::ZeroDuration(), -absl::InfiniteDuration()}) {
    CancelScope scope;
    scope.Cancel(Reason(), none);
    const CleanUpScope clean_up;
    EXPECT_THAT(CheckCancelled(), Says(Reason()));
  }
}

TEST(CleanUpScope, ACancellationWithoutGraceWakesIt) {
  ScopedThread thread([] {
    const CleanUpScope clean_up;
    EXPECT_THAT(WaitForever(), Says(Reason()));
  });
  thread.AwaitAsleep();
  thread.scope().Cancel(Reason(), absl::ZeroDuration());
}

TEST(CleanUpScope, ACancellationLimitsAWaitThatHasBegun) {
  ScopedThread thread([] {
    const CleanUpScope clean_up;
    EXPECT_THAT(WaitForever(), Says(Reason()));
  });
  thread.AwaitAsleep();
  thread.scope().Cancel(Reason(), absl::Milliseconds(1));
}

TEST(CleanUpScope, TheFirstReasonCountsAndTheLeastGrace) {
  ScopedThread thread([] {
    const CleanUpScope clean_up;
    EXPECT_THAT(WaitForever(), Says(Reason()));
  });
  thread.AwaitAsleep();
  thread.scope().Cancel(Reason());
  thread.scope().Cancel(absl::CancelledError("again"), absl::Milliseconds(1));
  thread.Join();

  CancelScope scope;
  scope.Cancel(Reason(), absl::Seconds(8));
  scope.Cancel(absl::CancelledError("again"), absl::Hours(1));
  scope.Cancel();
  EXPECT_THAT(CleanUpScope().remaining(), Le(absl::Milliseconds(7200)));
}

TEST(CleanUpScope, OfTheScopesAroundItWhatEndsFirstCounts) {
  CancelScope outer;
  CancelScope inner;
  inner.Cancel(Reason());
  outer.Cancel(absl::CancelledError("of all"), absl::ZeroDuration());
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
  const CleanUpScope clean_up;
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("of all")));
}

TEST(CleanUpScope, ItsReasonStaysWhatItWas) {
  CancelScope outer;
  CancelScope inner;
  inner.Cancel(absl::CancelledError("later"), absl::Milliseconds(1));
  outer.Cancel(Reason(), absl::ZeroDuration());
  const CleanUpScope clean_up;
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
  {
    // Until the other grace is over, too.
    const CancelScope shield(
        {.timeout = absl::Milliseconds(2), .shield = true});
    EXPECT_FALSE(WaitForever().ok());
  }
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
}

TEST(CleanUpScope, ACancelMayGiveMoreThanTheOptions) {
  CancelScope scope({.timeout = absl::Hours(1), .grace = absl::ZeroDuration()});
  scope.Cancel(Reason(), absl::Hours(9));
  scope.Cancel(absl::CancelledError("again"));
  const CleanUpScope clean_up;
  EXPECT_THAT(clean_up.remaining(), Gt(absl::Hours(2)));
}

TEST(CleanUpScope, AScopeMayTellTheGraceOfItsDeadline) {
  CancelScope scope({.timeout = absl::ZeroDuration(), .grace = absl::Hours(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
  const CleanUpScope clean_up;
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_THAT(clean_up.remaining(),
              AllOf(Gt(absl::Minutes(55)), Le(absl::Minutes(59.99))));
}

TEST(CleanUpScope, AfterADeadlineItsWaitsEndWithThat) {
  CancelScope scope(
      {.timeout = absl::Milliseconds(1), .grace = absl::Milliseconds(1)});
  const CleanUpScope clean_up;
  const absl::Status status = WaitForever();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_THAT(status, Says(scope.status()));
}

TEST(CleanUpScope, ADeadlineWithoutAGraceDoesNotEndIt) {
  CancelScope scope({.timeout = absl::ZeroDuration()});
  const CleanUpScope clean_up;
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_EQ(clean_up.remaining(), absl::InfiniteDuration());
}

TEST(CleanUpScope, ACancelHasTheGraceOfTheOptionsIfItTellsNone) {
  CancelScope scope({.grace = absl::ZeroDuration()});
  scope.Cancel(Reason());
  const CleanUpScope clean_up;
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
}

TEST(CleanUpScope, AScopeInsideHasItsOwnReason) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("of all"), absl::Hours(1));
  const CleanUpScope clean_up;
  CancelScope inner;
  EXPECT_THAT(inner.remaining(), Le(clean_up.remaining() + absl::Seconds(1)));
  inner.Cancel(Reason());
  EXPECT_THAT(CheckCancelled(), Says(Reason()));
}

TEST(CleanUpScope, AShieldInsideKeepsOutItsEndToo) {
  CancelScope outer;
  outer.Cancel(Reason(), absl::ZeroDuration());
  const CleanUpScope clean_up;
  const CancelScope shield({.shield = true});
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(CleanUpScope, IsInsideAShieldNoLongerThanThat) {
  CancelScope outer;
  CancelScope shield({.timeout = absl::Milliseconds(1),
                      .shield = true,
                      .grace = absl::ZeroDuration()});
  outer.Cancel(Reason(), absl::ZeroDuration());
  const CleanUpScope clean_up;
  EXPECT_TRUE(absl::IsDeadlineExceeded(WaitForever()));
}

TEST(CleanUpScope, ATokenInsideIsRequestedWhenItsTimeIsOver) {
  CancelScope outer;
  const CleanUpScope clean_up;
  CancelScope inner;
  const std::stop_token token = inner.stop_token();
  outer.Cancel(Reason(), absl::Milliseconds(1));
  EXPECT_FALSE(WaitForever().ok());
  Event requested;
  const std::stop_callback callback(token, [&] { requested.Set(); });
  const CancelScope shield({.shield = true});
  EXPECT_TRUE(requested.Wait().ok());
}

TEST(CleanUpScope, AStopTokenCarriesTheGrace) {
  CancelScope outer;
  const std::stop_token token = outer.stop_token();
  ScopedThread thread([&] {
    CancelScope joined(token);
    EXPECT_THAT(WaitForever(), Says(Reason()));
    const CleanUpScope clean_up;
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_THAT(clean_up.remaining(), Le(absl::Milliseconds(7200)));
  });
  thread.AwaitAsleep();
  outer.Cancel(Reason(), absl::Seconds(8));
}

TEST(CleanUpScope, AStopTokenThatIsRequestedAlreadyCarriesTheGrace) {
  CancelScope outer;
  outer.Cancel(Reason(), absl::Seconds(8));
  ScopedThread thread([token = outer.stop_token()] {
    CancelScope joined(token);
    EXPECT_THAT(CleanUpScope().remaining(), Le(absl::Milliseconds(7200)));
  });
}

TEST(CleanUpScope, AStopTokenCarriesTheLeastGraceOfTheScopesAroundIt) {
  CancelScope outer;
  CancelScope inner;
  inner.Cancel(Reason());
  outer.Cancel(Reason(), absl::Seconds(8));
  ScopedThread thread([token = inner.stop_token()] {
    CancelScope joined(token);
    EXPECT_THAT(CleanUpScope().remaining(), Le(absl::Milliseconds(7200)));
  });
}

TEST(CleanUpScope, AStopTokenOfOthersHasNoLimit) {
  std::stop_source stop;
  CancelScope joined(stop.get_token());
  stop.request_stop();
  const CleanUpScope clean_up;
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_EQ(clean_up.remaining(), absl::InfiniteDuration());
}

TEST(CleanUpScope, ATaskWhoseCleanUpWasEndedHasNotFailed) {
  TaskSet tasks;
  tasks.Spawn([] {
    EXPECT_FALSE(WaitForever().ok());
    const CleanUpScope clean_up;
    return WaitForever();
  });
  tasks.Cancel(Reason(), absl::Milliseconds(1));
  EXPECT_TRUE(tasks.Wait().ok());
  EXPECT_EQ(tasks.failure_count(), 0);
}

TEST(CleanUpScope, TheDestructorOfATaskSetHandsOnTheGrace) {
  CancelScope scope;
  scope.Cancel(Reason(), absl::Milliseconds(1));
  TaskSet tasks;
  tasks.Spawn(
      [] {
        const CleanUpScope clean_up;
        EXPECT_FALSE(WaitForever().ok());
      },
      {.start_even_if_cancelled = true});
}

TEST(CleanUpScope, AGroupInsideRunsItsTasks) {
  CancelScope outer;
  outer.Cancel(Reason(), absl::Hours(1));
  const CleanUpScope clean_up;
  int saved = 0;
  EXPECT_TRUE(RunTaskGroup([&](TaskGroup& group) {
                group.Spawn([&] {
                  saved = 1;
                  return Sleep(absl::Nanoseconds(1));
                });
                return group.Wait();
              }).ok());
  EXPECT_EQ(saved, 1);
}

TEST(CleanUpScope, HasTheGraceOfAShutdown) {
  FakeSignals signals;
  TaskGroup group;
  const auto shutdown =
      Shutdown::Start(signals.service(), group,
                      {.drain = absl::Seconds(5), .grace = absl::Seconds(8)});
  ASSERT_TRUE(shutdown.ok());
  group.Spawn([] {
    EXPECT_FALSE(WaitForever().ok());
    const CleanUpScope clean_up;
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_THAT(clean_up.remaining(),
                AllOf(Gt(absl::ZeroDuration()), Le(absl::Milliseconds(7200))));
  });
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(5));
  EXPECT_TRUE(group.Wait().ok());
}

}  // namespace
}  // namespace tocsin
