#include "tocsin/concurrency/cancel_scope.h"

#include <latch>
#include <memory>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/internal/sleeper.h"

namespace tocsin {
namespace {

using internal::Sleeper;

absl::Status SleepUntilCancelled() {
  Sleeper sleeper;
  while (true) {
    if (absl::Status status = sleeper.Sleep(); !status.ok()) return status;
  }
}

TEST(CancelScope, OutsideOfAnyScopeNothingIsCancelled) {
  EXPECT_TRUE(CheckCancelled().ok());
}

// A022, A052, T010
TEST(CancelScope, EveryWaitInACancelledScopeReturnsAtOnceUntilItIsLeft) {
  {
    CancelScope scope;
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_FALSE(scope.cancelled());
    scope.Cancel();
    EXPECT_TRUE(scope.cancelled());
    EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
  }
  EXPECT_TRUE(CheckCancelled().ok());
}

// A023, A091, T033
TEST(CancelScope, TheFirstReasonIsKept) {
  CancelScope scope;
  EXPECT_TRUE(scope.status().ok());
  scope.Cancel(absl::InternalError("disk full"));
  scope.Cancel(absl::CancelledError("later"));
  EXPECT_EQ(scope.status(), absl::InternalError("disk full"));
  EXPECT_EQ(CheckCancelled(), absl::CancelledError("INTERNAL: disk full"));
}

// A038, T033: who waits is told of a deadline only where one passed.
TEST(CancelScope, AReasonThatLooksLikeADeadlineIsStillACancellation) {
  CancelScope scope;
  scope.Cancel(absl::DeadlineExceededError("the peer was slow"));
  EXPECT_EQ(scope.status(), absl::DeadlineExceededError("the peer was slow"));
  EXPECT_EQ(CheckCancelled(),
            absl::CancelledError("DEADLINE_EXCEEDED: the peer was slow"));
  EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
}

// A026, A024
TEST(CancelScope, CancelWakesASleepOnAnotherThread) {
  CancelScope* scope = nullptr;
  std::latch entered(1);
  absl::Status status;
  std::thread sleeper([&] {
    CancelScope inner;
    scope = &inner;
    entered.count_down();
    status = SleepUntilCancelled();
  });
  entered.wait();
  scope->Cancel(absl::CancelledError("enough"));
  sleeper.join();
  EXPECT_EQ(status, absl::CancelledError("enough"));
}

// A059, T013
TEST(CancelScope, CancelReachesSleepsInInnerScopes) {
  CancelScope* outer = nullptr;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope first;
    outer = &first;
    CancelScope second;
    CancelScope third;
    entered.count_down();
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
    EXPECT_TRUE(second.cancelled());
    EXPECT_TRUE(third.cancelled());
  });
  entered.wait();
  outer->Cancel();
  sleeper.join();
}

// A048, A049, A051
TEST(CancelScope, AShieldKeepsOutCancellationAndDeadlinesAroundIt) {
  CancelScope outer({.deadline = absl::InfinitePast()});
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
  {
    CancelScope shield({.shield = true});
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_EQ(shield.deadline(), absl::InfiniteFuture());
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

// A050, A055
TEST(CancelScope, AShieldDoesNotProtectFromItsOwnCancel) {
  CancelScope shield({.shield = true});
  shield.Cancel();
  EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
}

// A056: what the lifted shield lets in wakes who sleeps behind it.
TEST(CancelScope, LiftingAShieldLetsTheCancellationIn) {
  CancelScope* shield = nullptr;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope outer;
    CancelScope inner({.shield = true});
    shield = &inner;
    outer.Cancel();
    EXPECT_TRUE(CheckCancelled().ok());
    entered.count_down();
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
  });
  entered.wait();
  shield->set_shield(false);
  sleeper.join();
}

// A042
TEST(CancelScope, TheNearestDeadlineIsTheEffectiveOne) {
  const absl::Time soon = absl::FromUnixSeconds(4'000'000'000);
  CancelScope outer({.deadline = soon});
  CancelScope inner({.deadline = soon + absl::Seconds(1)});
  EXPECT_EQ(inner.deadline(), soon);
  inner.set_deadline(soon - absl::Seconds(1));
  EXPECT_EQ(inner.deadline(), soon - absl::Seconds(1));
  EXPECT_EQ(outer.deadline(), soon);
}

// A040, A062, T034
TEST(CancelScope, ADeadlineEndsASleep) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
}

// A063, T014
TEST(CancelScope, ADeadlineMovedNearerEndsASleepThatIsUnderWay) {
  CancelScope* scope = nullptr;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope inner;
    scope = &inner;
    entered.count_down();
    EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
  });
  entered.wait();
  scope->set_deadline(absl::Now());
  sleeper.join();
}

// T017: once passed, a deadline cannot be taken back.
TEST(CancelScope, APassedDeadlineIsNotUndoneByMovingIt) {
  CancelScope scope({.deadline = absl::Now() - absl::Seconds(1)});
  scope.set_deadline(absl::InfiniteFuture());
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
  scope.Cancel(absl::CancelledError("too late to matter"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
}

TEST(CancelScope, AnAdoptedStopTokenCancels) {
  std::stop_source source;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope scope(source.get_token());
    entered.count_down();
    EXPECT_EQ(SleepUntilCancelled(),
              absl::CancelledError("stop was requested"));
  });
  entered.wait();
  source.request_stop();
  sleeper.join();
  CancelScope late(source.get_token());
  EXPECT_TRUE(late.cancelled());
}

TEST(CancelScope, AnExportedStopTokenIsRequestedByACancelAroundTheScope) {
  CancelScope outer;
  CancelScope inner;
  std::stop_token token = inner.stop_token();
  EXPECT_FALSE(token.stop_requested());
  outer.Cancel();
  EXPECT_TRUE(token.stop_requested());
  EXPECT_TRUE(inner.stop_token().stop_requested());
}

TEST(CancelScope,
     AnExportedStopTokenIsRequestedByADeadlineWithoutAnybodyWaiting) {
  CancelScope outer;
  CancelScope inner;
  std::latch requested(1);
  std::stop_callback callback(inner.stop_token(),
                              [&] { requested.count_down(); });
  outer.set_deadline(absl::Now() + absl::Milliseconds(1));
  requested.wait();
  EXPECT_TRUE(absl::IsDeadlineExceeded(inner.status()));
}

TEST(CancelScope, AnExportedTokenOutlivesItsScope) {
  std::stop_token token;
  {
    CancelScope scope({.deadline = absl::Now() + absl::Hours(1)});
    token = scope.stop_token();
  }
  EXPECT_FALSE(token.stop_requested());
}

// T029
TEST(CancelScope, FiveThousandNestedScopesAreCancelledFromTheOutermost) {
  std::vector<std::unique_ptr<CancelScope>> scopes;
  for (int i = 0; i < 5000; ++i) {
    scopes.push_back(std::make_unique<CancelScope>());
  }
  std::stop_token innermost = scopes.back()->stop_token();
  scopes.front()->Cancel();
  EXPECT_TRUE(innermost.stop_requested());
  EXPECT_TRUE(scopes.back()->cancelled());
  while (!scopes.empty()) scopes.pop_back();
}

// A035, A036, A038
TEST(FailAfter, TellsItsOwnTimeoutFromEverythingElse) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      FailAfter(absl::Milliseconds(1), [] { return SleepUntilCancelled(); })));
  EXPECT_TRUE(FailAfter(absl::InfiniteDuration(), [] {
                return CheckCancelled();
              }).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      FailAfter(absl::Seconds(-1), [] { return CheckCancelled(); })));
  EXPECT_EQ(FailAfter(absl::Hours(1), [] { return absl::DataLossError("x"); }),
            absl::DataLossError("x"));
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
}

// A065
TEST(FailAfter, DoesNotClaimACancellationFromOutside) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
  EXPECT_EQ(FailAfter(absl::ZeroDuration(),
                      [] { return absl::CancelledError("outer"); }),
            absl::CancelledError("outer"));
}

// A040, A041, A034
TEST(MoveOnAfter, SaysWhetherTheTimeRanOut) {
  EXPECT_TRUE(MoveOnAfter(absl::Milliseconds(1),
                          [] { SleepUntilCancelled().IgnoreError(); }));
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_FALSE(MoveOnAfter(absl::InfiniteDuration(), [] {}));
}

// A042: as FailAfter(), it leaves to the outer scope what is the outer scope's.
TEST(MoveOnAfter, DoesNotClaimACancellationFromOutside) {
  CancelScope outer;
  outer.Cancel();
  EXPECT_FALSE(MoveOnAfter(absl::ZeroDuration(),
                           [] { EXPECT_FALSE(CheckCancelled().ok()); }));
}

// A076, T018
TEST(CancelScopeDeathTest, ScopesMustEndInTheReverseOrderOfTheirMaking) {
  EXPECT_DEATH(
      {
        auto outer = std::make_unique<CancelScope>();
        auto inner = std::make_unique<CancelScope>();
        outer.reset();
      },
      "destroyed out of order");
}

}  // namespace
}  // namespace tocsin
