#include "tocsin/concurrency/wait.h"

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

TEST(SleepUntil, ReturnsOnceTheTimeHasCome) {
  const absl::Time time = internal::Now() + absl::Milliseconds(2);
  EXPECT_TRUE(SleepUntil(time).ok());
  EXPECT_GE(internal::Now(), time);
}

// T008, J: negative means already expired
TEST(SleepFor, WhatIsNotAheadIsOverAtOnce) {
  EXPECT_TRUE(tocsin::SleepFor(absl::ZeroDuration()).ok());
  EXPECT_TRUE(tocsin::SleepFor(absl::Seconds(-1)).ok());
  EXPECT_TRUE(tocsin::SleepFor(-absl::InfiniteDuration()).ok());
  EXPECT_TRUE(SleepUntil(absl::InfinitePast()).ok());
  EXPECT_TRUE(SleepUntil(absl::UnixEpoch()).ok());
}

// A022, T010
TEST(SleepFor, FailsInACancelledScopeEvenForNoTime) {
  CancelScope scope;
  scope.Cancel(absl::CancelledError("enough"));
  EXPECT_EQ(tocsin::SleepFor(absl::ZeroDuration()),
            absl::CancelledError("enough"));
  EXPECT_EQ(tocsin::SleepFor(absl::InfiniteDuration()),
            absl::CancelledError("enough"));
  EXPECT_EQ(SleepUntil(absl::InfinitePast()), absl::CancelledError("enough"));
}

// A024, A026, J: interrupts running sleepers
TEST(SleepFor, AnInfiniteSleepEndsWithItsScope) {
  absl::Status status;
  ScopedThread sleeper(
      [&] { status = tocsin::SleepFor(absl::InfiniteDuration()); });
  sleeper.AwaitAsleep();
  sleeper.scope().Cancel(absl::CancelledError("enough"));
  sleeper.Join();
  EXPECT_EQ(status, absl::CancelledError("enough"));
}

// A035, A040, T034
TEST(SleepUntil, TheDeadlineOfTheScopeComesFirst) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntil(absl::InfiniteFuture())));
  EXPECT_TRUE(absl::IsDeadlineExceeded(tocsin::SleepFor(absl::Hours(1))));
}

// A063
TEST(SleepUntil, ADeadlineMovedAwayLetsItSleepOn) {
  absl::Status status;
  ScopedThread sleeper(
      [&] { status = tocsin::SleepFor(absl::InfiniteDuration()); });
  sleeper.scope().set_deadline(absl::Now() + absl::Hours(1));
  sleeper.AwaitAsleep();
  sleeper.scope().set_deadline(absl::InfiniteFuture());
  sleeper.AwaitAsleep();
  sleeper.scope().set_deadline(absl::Now());
  sleeper.Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

}  // namespace
}  // namespace tocsin
