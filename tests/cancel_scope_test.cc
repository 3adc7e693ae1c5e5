#include "tocsin/concurrency/cancel_scope.h"

#include <malloc.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <latch>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

// By how many nanoseconds the clock on the wall was set back.
static std::atomic<int64_t> set_back{0};

// Stands before that of the C library.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_REALTIME) {
    *now = absl::ToTimespec(absl::TimeFromTimespec(*now) -
                            absl::Nanoseconds(set_back.load()));
  }
  return static_cast<int>(result);
}

namespace tocsin {
namespace {

using internal::Scope;
using internal::ScopeEntry;
using internal::Sleeper;

absl::Status SleepUntilCancelled() {
  Sleeper sleeper("a test");
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
  EXPECT_THAT(scope.status(), Says(absl::InternalError("disk full")));
  EXPECT_THAT(CheckCancelled(),
              Says(absl::CancelledError("INTERNAL: disk full")));
}

// A038, T033: who waits is told of a deadline only where one passed.
TEST(CancelScope, AReasonThatLooksLikeADeadlineIsStillACancellation) {
  CancelScope scope;
  scope.Cancel(absl::DeadlineExceededError("the peer was slow"));
  EXPECT_THAT(scope.status(),
              Says(absl::DeadlineExceededError("the peer was slow")));
  EXPECT_THAT(
      CheckCancelled(),
      Says(absl::CancelledError("DEADLINE_EXCEEDED: the peer was slow")));
  EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
}

TEST(CancelScope, WhoWaitsIsToldTheReasonWithoutItsPayloads) {
  absl::Status reason = absl::InternalError("disk full");
  reason.SetPayload("disk", absl::Cord("sda"));
  CancelScope scope;
  scope.Cancel(reason);
  EXPECT_EQ(scope.status().GetPayload("disk"), "sda");
  EXPECT_THAT(CheckCancelled(),
              Says(absl::CancelledError("INTERNAL: disk full")));
}

TEST(CancelScope, ACancelWithoutAReasonIsACancel) {
  CancelScope scope;
  scope.Cancel(absl::OkStatus());
  EXPECT_TRUE(absl::IsCancelled(scope.status()));
  EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
}

TEST(CancelScope, AScopeThatIsMadeInACancelledOneIsCancelled) {
  CancelScope outer;
  outer.Cancel();
  {
    CancelScope inner;
    EXPECT_TRUE(inner.cancelled());
    CancelScope innermost({.deadline = absl::FromUnixSeconds(4'000'000'000)});
    EXPECT_TRUE(innermost.cancelled());
  }
  CancelScope expired({.deadline = absl::UnixEpoch(), .shield = true});
  CancelScope inner;
  EXPECT_TRUE(absl::IsDeadlineExceeded(inner.status()));
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
  EXPECT_THAT(status, Says(absl::CancelledError("enough")));
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

// T020: a cancellation does not wake a wait that must not be given up, and is
// seen by the first one after it.
TEST(CancelScope, ACancellationReachesAThreadOnlyOnceItsShieldIsLeft) {
  CancelScope scope;
  std::latch shielded(1);
  std::latch cancelled(1);
  ScopedThread canceller([&] {
    shielded.wait();
    scope.Cancel();
    cancelled.count_down();
  });
  {
    CancelScope shield({.shield = true});
    Sleeper sleeper("a test");
    shielded.count_down();
    cancelled.wait();
    sleeper.Wake();
    EXPECT_TRUE(sleeper.Sleep().ok());
  }
  EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
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
  std::string task;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope outer;
    CancelScope inner({.shield = true});
    shield = &inner;
    outer.Cancel();
    EXPECT_TRUE(CheckCancelled().ok());
    task = TaskOfThisThread();
    entered.count_down();
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
  });
  entered.wait();
  AwaitState(task, "S");
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

// Two looks at the clock on the wall seldom find quite the same.
TEST(CancelScope, TheNearestDeadlineIsTheEffectiveOneToTheNanosecond) {
  const absl::Time soon = absl::FromUnixSeconds(4'000'000'000);
  CancelScope outer({.deadline = soon});
  set_back = absl::ToInt64Nanoseconds(-absl::Microseconds(5));
  CancelScope inner({.deadline = soon + absl::Nanoseconds(1)});
  set_back = 0;
  EXPECT_EQ(inner.deadline(), soon);
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

TEST(CancelScope, OnceItIsCancelledItsDeadlineStays) {
  CancelScope cancelled;
  cancelled.Cancel();
  cancelled.set_deadline(absl::UnixEpoch());
  EXPECT_EQ(cancelled.deadline(), absl::InfiniteFuture());
  CancelScope expired({.deadline = absl::UnixEpoch()});
  const absl::Status before = expired.status();
  expired.set_deadline(absl::UnixEpoch() + absl::Hours(1));
  EXPECT_EQ(expired.status(), before);
}

TEST(CancelScope, ADeadlineIsSeenThoughTheScopeWasFoundClearBefore) {
  CancelScope outer;
  CancelScope inner;
  EXPECT_FALSE(inner.cancelled());
  outer.set_deadline(absl::UnixEpoch());
  EXPECT_TRUE(inner.cancelled());
}

TEST(CancelScope, AClockThatIsSetBackDoesNotUncancel) {
  CancelScope scope({.deadline = internal::WallNow() - absl::Seconds(1)});
  CancelScope unseen(
      {.deadline = internal::WallNow() - absl::Seconds(1), .shield = true});
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
  set_back = absl::ToInt64Nanoseconds(absl::Hours(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(unseen.status()));
  set_back = 0;
}

// A043, A044, A046, A047
TEST(CancelScope, ADeadlineIsAPointInTimeOrNone) {
  {
    CancelScope never({.deadline = absl::InfiniteFuture()});
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_EQ(never.deadline(), absl::InfiniteFuture());
  }
  {
    CancelScope always({.deadline = absl::InfinitePast()});
    EXPECT_EQ(always.deadline(), absl::InfinitePast());
  }
  CancelScope passed({.deadline = absl::UnixEpoch()});
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
  EXPECT_NE(passed.status().message().find("1970"), std::string::npos);
}

// T021
TEST(CancelScope, ALoopThatOnlyChecksNoticesTheDeadline) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  while (CheckCancelled().ok()) {
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

// What is remembered of a look must not hide a deadline, wherever it stands.
TEST(CancelScope, ALoopThatOnlyChecksNoticesADeadlineAroundItAndWithin) {
  const auto check_until = [](absl::Time deadline) {
    while (internal::WallNow() < deadline && CheckCancelled().ok()) {
    }
  };
  {
    CancelScope outer({.deadline = absl::Now() + absl::Milliseconds(1)});
    CancelScope inner;
    check_until(outer.deadline());
    EXPECT_FALSE(CheckCancelled().ok());
    EXPECT_TRUE(outer.cancelled());
  }
  CancelScope outer;
  CancelScope inner({.deadline = absl::Now() + absl::Milliseconds(1)});
  CancelScope innermost;
  CancelScope({.shield = true}).Cancel();  // makes the next look a real one
  check_until(inner.deadline());
  EXPECT_FALSE(CheckCancelled().ok());
  EXPECT_TRUE(inner.cancelled());
  EXPECT_FALSE(outer.cancelled());
}

// A061, A066
TEST(CancelScope, ADeadlineBehindAShieldIsTheOnlyOneThatCounts) {
  const absl::Time later = absl::FromUnixSeconds(4'000'000'000);
  CancelScope outer({.deadline = absl::UnixEpoch()});
  CancelScope inner({.deadline = later, .shield = true});
  EXPECT_EQ(inner.deadline(), later);
  EXPECT_TRUE(CheckCancelled().ok());
  inner.set_deadline(absl::Now());
  EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
}

// T034: its own deadline passes even if it is shielded.
TEST(CancelScope, AShieldDoesNotProtectFromItsOwnDeadline) {
  CancelScope scope(
      {.deadline = absl::Now() + absl::Milliseconds(1), .shield = true});
  EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
}

// A048, T009
TEST(CancelScope, NoCheckFailsBehindAShieldUntilItIsLeft) {
  CancelScope outer;
  outer.Cancel();
  {
    CancelScope shield({.shield = true});
    CancelScope inner;
    EXPECT_TRUE(CheckCancelled().ok());
    EXPECT_FALSE(inner.cancelled());
    EXPECT_FALSE(inner.stop_token().stop_requested());
  }
  EXPECT_FALSE(CheckCancelled().ok());
}

// A056, T016
TEST(CancelScope, AShieldCanBePutUpInAScopeThatIsCancelledFromOutside) {
  CancelScope outer;
  CancelScope inner;
  outer.Cancel();
  EXPECT_TRUE(inner.cancelled());
  inner.set_shield(true);
  EXPECT_FALSE(inner.cancelled());
  EXPECT_TRUE(CheckCancelled().ok());
  inner.set_shield(false);
  EXPECT_TRUE(inner.cancelled());
}

// A053, T015
TEST(CancelScope, OfNestedCancelledScopesTheFirstTellsWhy) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
  {
    CancelScope inner;
    EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
    inner.Cancel(absl::CancelledError("inner"));
    EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
    EXPECT_THAT(inner.status(), Says(absl::CancelledError("outer")));
    // Its own reason is what is left where a shield is between them.
    inner.set_shield(true);
    EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("inner")));
  }
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
  {
    CancelScope inner;
    inner.Cancel(absl::CancelledError("inner"));
    EXPECT_THAT(inner.status(), Says(absl::CancelledError("outer")));
  }
}

TEST(CancelScope, BehindAShieldTheFirstOfThoseThatAreLeftTellsWhy) {
  CancelScope outer;
  CancelScope middle;
  CancelScope inner;
  outer.Cancel(absl::CancelledError("outer"));
  middle.Cancel(absl::CancelledError("middle"));
  inner.Cancel(absl::CancelledError("inner"));
  EXPECT_THAT(inner.status(), Says(absl::CancelledError("outer")));
  middle.set_shield(true);
  EXPECT_THAT(inner.status(), Says(absl::CancelledError("middle")));
  inner.set_shield(true);
  EXPECT_THAT(inner.status(), Says(absl::CancelledError("inner")));
}

TEST(CancelScope, BehindAShieldTheInnerReasonIsTheFirstWhereItCameFirst) {
  CancelScope outer;
  CancelScope middle;
  CancelScope inner;
  outer.Cancel(absl::CancelledError("outer"));
  inner.Cancel(absl::CancelledError("inner"));
  middle.Cancel(absl::CancelledError("middle"));
  middle.set_shield(true);
  EXPECT_THAT(inner.status(), Says(absl::CancelledError("inner")));
}

TEST(CancelScope, TheInnerReasonStaysWhereItCameFirst) {
  CancelScope outer;
  CancelScope inner;
  inner.Cancel(absl::CancelledError("inner"));
  outer.Cancel(absl::CancelledError("outer"));
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("inner")));
  EXPECT_THAT(outer.status(), Says(absl::CancelledError("outer")));
}

TEST(CancelScope, ADeadlineThatPassesLaterDoesNotChangeTheReason) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("first"));
  CancelScope inner;
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("first")));
  inner.set_deadline(absl::Now());
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("first")));
  EXPECT_TRUE(absl::IsCancelled(tocsin::Sleep(absl::Hours(1))));
}

// Also where nobody looked in between.
TEST(CancelScope, ADeadlineThatPassedBeforeACancelIsTheReason) {
  CancelScope outer;
  CancelScope inner({.deadline = absl::Now() - absl::Hours(1)});
  outer.Cancel(absl::CancelledError("later"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

// A054
TEST(CancelScope, ACancelOfTheOuterScopeOutlastsTheInner) {
  CancelScope outer;
  {
    CancelScope inner;
    inner.Cancel();
    EXPECT_FALSE(CheckCancelled().ok());
    outer.Cancel(absl::CancelledError("outer"));
  }
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
}

// A057: what is inside does not cancel what is around.
TEST(CancelScope, CancelDoesNotReachOutwards) {
  CancelScope outer;
  {
    CancelScope inner;
    inner.Cancel();
  }
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_FALSE(outer.cancelled());
}

// A073
TEST(CancelScope, CancelAfterTheWorkIsDoneIsSilent) {
  CancelScope scope;
  Sleeper sleeper("a test");
  sleeper.Wake();
  EXPECT_TRUE(sleeper.Sleep().ok());
  scope.Cancel();
  EXPECT_TRUE(scope.cancelled());
}

// A075, A019
TEST(CancelScope, WaitingBehindAShieldInACancelledScopeDoesNotSpin) {
  std::atomic<CancelScope*> shield{nullptr};
  ScopedThread sleeper([&] {
    CancelScope inner({.shield = true});
    shield = &inner;
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
  });
  sleeper.AwaitAsleep();
  sleeper.scope().Cancel();
  sleeper.AwaitAsleep();
  const int64_t before = sleeper.TimesAsleep();
  for (int i = 0; i < 100; ++i) {
    sleeper.scope().Cancel();
    sleeper.scope().set_deadline(absl::Now());
    std::this_thread::yield();
  }
  EXPECT_EQ(sleeper.TimesAsleep(), before);
  shield.load()->Cancel();
}

// Woken for nothing, it falls asleep again.
TEST(CancelScope, ADeadlineThatIsMovedAwayLetsTheSleepersSleepOn) {
  std::atomic<int> returns{0};
  ScopedThread sleeper([&] {
    Sleeper own("a test");
    while (own.Sleep().ok() && ++returns < 100) {
    }
  });
  sleeper.AwaitAsleep();
  sleeper.scope().set_deadline(absl::Now() + absl::Hours(1));
  while (returns == 0) std::this_thread::yield();
  sleeper.AwaitAsleep();  // or out of patience
  sleeper.scope().Cancel();
  sleeper.Join();
  EXPECT_LT(returns, 100);
}

TEST(Sleeper, ATimeoutEndsTheSleepAndIsNoNewsOfTheScope) {
  CancelScope scope({.deadline = absl::FromUnixSeconds(4'000'000'000)});
  Sleeper sleeper("a test", internal::After(absl::Milliseconds(1)));
  absl::Status status;
  while (status.ok()) status = sleeper.Sleep();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_FALSE(scope.cancelled());
}

TEST(Sleeper, AWaitThatIsOverIsNotSavedByAWakeUp) {
  Sleeper late("a test", internal::Now());
  late.Wake();
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.Sleep()));
  CancelScope scope;
  scope.Cancel();
  Sleeper cancelled("a test");
  cancelled.Wake();
  EXPECT_TRUE(absl::IsCancelled(cancelled.Sleep()));
}

TEST(Sleeper, OneWakeUpIsGoodForOneSleep) {
  CancelScope scope({.deadline = internal::WallNow() + absl::Milliseconds(1)});
  CancelScope shield({.shield = true});
  Sleeper sleeper("a test", internal::After(absl::Milliseconds(1)));
  EXPECT_FALSE(sleeper.woken());
  sleeper.Wake();
  EXPECT_TRUE(sleeper.woken());
  sleeper.Sleep().IgnoreError();
  EXPECT_FALSE(sleeper.woken());
}

// Each place in the list of those who sleep in a scope can be left.
TEST(CancelScope, WhoeverSleepsInItIsWokenAndNobodyElse) {
  for (int gone = 0; gone < 3; ++gone) {
    CancelScope scope;
    std::optional<Sleeper> sleepers[3];
    for (std::optional<Sleeper>& sleeper : sleepers) {
      sleeper.emplace("a test");
      sleeper->Wake();
      EXPECT_TRUE(sleeper->Sleep().ok());
      EXPECT_FALSE(sleeper->woken());
    }
    sleepers[gone].reset();
    const int next = (gone + 1) % 3;
    const int last = (gone + 2) % 3;
    scope.set_deadline(absl::FromUnixSeconds(4'000'000'000));
    EXPECT_TRUE(sleepers[next]->woken());
    EXPECT_TRUE(sleepers[last]->woken());
    sleepers[next].reset();
    EXPECT_TRUE(sleepers[last]->Sleep().ok());
    scope.Cancel();
    EXPECT_TRUE(sleepers[last]->woken());
  }
}

// More than the wake-ups that one cancel can keep for later, and all of those
// who share a word.
TEST(CancelScope, ACancelWakesAllHoweverMany) {
  CancelScope shared;
  Scope& outer = Scope::Of(shared);
  std::vector<std::unique_ptr<ScopedThread>> threads;
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 140; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&, i] {
      ScopeEntry entry(outer);
      std::optional<CancelScope> own;
      if (i >= 70 && i % 2 == 0) own.emplace();
      cancelled +=
          absl::IsCancelled(i < 70 ? SleepUntilCancelled()
                                   : tocsin::Sleep(absl::InfiniteDuration()));
    }));
  }
  for (const auto& thread : threads) thread->AwaitAsleep();
  outer.Cancel();
  threads.clear();
  EXPECT_EQ(cancelled, 140);
}

// A083: nothing of a scope stays behind on a thread that goes on to other work.
TEST(CancelScope, AThreadThatLeftACancelledScopeIsAsNew) {
  std::thread worker([] {
    for (int i = 0; i < 3; ++i) {
      CancelScope task;
      EXPECT_TRUE(CheckCancelled().ok());
      EXPECT_TRUE(task.status().ok());
      task.Cancel();
      EXPECT_FALSE(CheckCancelled().ok());
    }
  });
  worker.join();
}

// T017: asked before anybody waits in it
TEST(CancelScope, ADeadlineThatPassedCountsThoughNobodyWaited) {
  CancelScope scope({.deadline = absl::Now() - absl::Seconds(1)});
  EXPECT_TRUE(scope.cancelled());
  EXPECT_TRUE(absl::IsDeadlineExceeded(scope.status()));
}

// A011, T033: of many who cancel at once, one gives the reason.
TEST(CancelScope, CancelsThatRaceLeaveOneReason) {
  for (int i = 0; i < 100; ++i) {
    ScopedThread sleeper([] { SleepUntilCancelled().IgnoreError(); });
    std::vector<std::thread> cancellers;
    std::atomic<int> differing{0};
    for (int reason = 0; reason < 3; ++reason) {
      cancellers.emplace_back([&, reason] {
        sleeper.scope().Cancel(absl::CancelledError(absl::StrCat(reason)));
        const absl::Status first = sleeper.scope().status();
        sleeper.scope().set_deadline(absl::UnixEpoch());
        differing += first != sleeper.scope().status();
      });
    }
    for (std::thread& canceller : cancellers) canceller.join();
    EXPECT_EQ(differing, 0);
  }
}

// No wake-up is lost between the look at the scope and the sleep: each sleeper
// that missed its Cancel() would hang.
TEST(CancelScope, ASleepThatRacesWithCancelOrADeadlineEnds) {
  for (int i = 0; i < 300; ++i) {
    ScopedThread sleeper([] { SleepUntilCancelled().IgnoreError(); });
    if (i % 3 == 0) {
      sleeper.scope().set_deadline(absl::Now() + absl::Microseconds(i));
    } else {
      sleeper.scope().Cancel();
    }
  }
}

// T030
TEST(CancelScope, MovingADeadlineAgainAndAgainTakesNoMemory) {
  CancelScope scope;
  std::stop_token token = scope.stop_token();
  const absl::Time base = absl::Now() + absl::Hours(1);
  scope.set_deadline(base);
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 10'000; ++i) {
    scope.set_deadline(base + absl::Seconds(i));
  }
  EXPECT_LT(mallinfo2().uordblks, before + 4096);
  EXPECT_FALSE(token.stop_requested());
}

// The alarm that is due last was set first, and the one in between is gone.
TEST(CancelScope, TheTimerKeepsToTheDeadlinesAsTheyAre) {
  CancelScope late({.deadline = absl::Now() + absl::Hours(1)});
  std::latch late_requested(1);
  std::stop_callback first(late.stop_token(),
                           [&] { late_requested.count_down(); });
  {
    CancelScope gone({.deadline = absl::Now() + absl::Milliseconds(1)});
    gone.stop_token();
  }
  CancelScope soon({.deadline = absl::Now() + absl::Milliseconds(1)});
  std::latch soon_requested(1);
  std::stop_callback second(soon.stop_token(),
                            [&] { soon_requested.count_down(); });
  soon_requested.wait();
  EXPECT_FALSE(late.stop_token().stop_requested());
  late.set_deadline(absl::Now() + absl::Milliseconds(1));
  late_requested.wait();
}

// A shield that is lifted puts the deadline around it in force.
TEST(CancelScope, TheTimerLearnsOfALiftedShield) {
  CancelScope outer({.deadline = absl::Now() + absl::Milliseconds(1)});
  CancelScope inner({.shield = true});
  std::latch requested(1);
  std::stop_callback callback(inner.stop_token(),
                              [&] { requested.count_down(); });
  EXPECT_FALSE(inner.cancelled());
  inner.set_shield(false);
  requested.wait();
}

// The callback of the token it took up may be running when it is left.
TEST(CancelScope, AStopRequestRacesWithLeavingTheScope) {
  for (int i = 0; i < 300; ++i) {
    std::stop_source source;
    std::thread requester([&] { source.request_stop(); });
    {
      CancelScope scope(source.get_token());
      CheckCancelled().IgnoreError();
    }
    requester.join();
  }
}

// A030: the request came first
TEST(CancelScope, AnAdoptedStopTokenCancels) {
  std::stop_source source;
  std::latch entered(1);
  std::thread sleeper([&] {
    CancelScope scope(source.get_token());
    entered.count_down();
    EXPECT_THAT(SleepUntilCancelled(),
                Says(absl::CancelledError("stop was requested")));
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

TEST(CancelScope, EveryTokenOfAScopeIsRequested) {
  CancelScope scope;
  std::stop_token first = scope.stop_token();
  std::stop_token second = scope.stop_token();
  EXPECT_EQ(first, second);
  scope.Cancel();
  EXPECT_TRUE(first.stop_requested());
  EXPECT_TRUE(second.stop_requested());
}

TEST(CancelScope, ATokenOfACancelledScopeIsRequestedAlready) {
  CancelScope outer;
  outer.Cancel();
  CancelScope inner;
  EXPECT_TRUE(inner.stop_token().stop_requested());
  CancelScope expired({.deadline = absl::UnixEpoch(), .shield = true});
  EXPECT_TRUE(expired.stop_token().stop_requested());
}

// Callbacks run with no lock held: they may use this scope and others.
TEST(CancelScope, ACallbackOfItsTokenMayUseScopes) {
  CancelScope scope;
  auto ends_by = [&](absl::FunctionRef<void(CancelScope&)> change) {
    CancelScope inner({.shield = true});
    std::thread::id ran_on;
    std::stop_callback callback(inner.stop_token(), [&] {
      ran_on = std::this_thread::get_id();
      inner.Cancel();
      inner.set_shield(true);
      EXPECT_TRUE(inner.stop_token().stop_requested());
    });
    change(inner);
    EXPECT_EQ(ran_on, std::this_thread::get_id());
  };
  ends_by([](CancelScope& inner) { inner.Cancel(); });
  ends_by([](CancelScope& inner) { inner.set_deadline(absl::UnixEpoch()); });
  scope.Cancel();
  ends_by([](CancelScope& inner) { inner.set_shield(false); });
}

TEST(CancelScope, ACallbackThatADeadlineRunsMayUseScopes) {
  CancelScope scope;
  CancelScope other;
  std::thread::id ran_on;
  std::latch requested(1);
  std::stop_callback callback(scope.stop_token(), [&] {
    ran_on = std::this_thread::get_id();
    EXPECT_TRUE(scope.stop_token().stop_requested());
    other.Cancel();
    requested.count_down();
  });
  scope.set_timeout(absl::Milliseconds(50));
  requested.wait();
  EXPECT_TRUE(other.cancelled());
  EXPECT_NE(ran_on, std::this_thread::get_id());
}

// A tree of scopes, as threads make it that enter one and the same:
//
//   root - first - inside first
//        - shielded - inside shielded
//        - last - inside last
class ScopeTree : public ::testing::TestWithParam<std::vector<int>> {
 protected:
  enum { kFirst, kShielded, kLast, kBranches };

  struct Branch {
    explicit Branch(CancelScope& root, bool shielded)
        : entry(Scope::Of(root)), branch({.shield = shielded}) {}
    ScopeEntry entry;
    CancelScope branch;
    CancelScope inside;
  };

  ScopeTree() {
    for (int i = 0; i < kBranches; ++i) {
      branches_[i].emplace(root_, i == kShielded);
    }
    // They join the tree in one order or another.
    for (int i : GetParam()) tokens_[i] = branches_[i]->inside.stop_token();
  }
  // In the reverse order of their making.
  ~ScopeTree() override {
    for (int i = kBranches; i-- > 0;) branches_[i].reset();
  }

  CancelScope root_;
  std::optional<Branch> branches_[kBranches];
  std::stop_token tokens_[kBranches];
};

INSTANTIATE_TEST_SUITE_P(
    Joined, ScopeTree,
    ::testing::Values(std::vector{0, 1, 2}, std::vector{0, 2, 1},
                      std::vector{1, 0, 2}, std::vector{1, 2, 0},
                      std::vector{2, 0, 1}, std::vector{2, 1, 0}));

TEST_P(ScopeTree, ACancelReachesAllThatAreNotShielded) {
  root_.Cancel();
  EXPECT_TRUE(tokens_[kFirst].stop_requested());
  EXPECT_FALSE(tokens_[kShielded].stop_requested());
  EXPECT_TRUE(tokens_[kLast].stop_requested());
  branches_[kShielded]->branch.set_shield(false);
  EXPECT_TRUE(tokens_[kShielded].stop_requested());
}

TEST_P(ScopeTree, ACancelDoesNotReachTheBranchesBesideIt) {
  branches_[kFirst]->branch.Cancel();
  EXPECT_TRUE(tokens_[kFirst].stop_requested());
  EXPECT_FALSE(tokens_[kShielded].stop_requested());
  EXPECT_FALSE(tokens_[kLast].stop_requested());
}

TEST_P(ScopeTree, ADeadlineReachesAllThatAreNotShielded) {
  std::latch requested(2);
  std::stop_callback first(tokens_[kFirst], [&] { requested.count_down(); });
  std::stop_callback last(tokens_[kLast], [&] { requested.count_down(); });
  root_.set_deadline(absl::Now());
  requested.wait();
  EXPECT_FALSE(tokens_[kShielded].stop_requested());
}

TEST_P(ScopeTree, WhatIsLeftOfItIsReached) {
  branches_[kLast].reset();
  root_.Cancel();
  EXPECT_FALSE(tokens_[kLast].stop_requested());
  EXPECT_TRUE(tokens_[kFirst].stop_requested());
  branches_[kShielded].reset();
  EXPECT_FALSE(tokens_[kShielded].stop_requested());
}

// The alarm goes with the scope, though the deadline comes.
// Where the scope was, nothing else is until the end of the test: an alarm that
// is left behind finds what it looks for.
TEST(CancelScope, TheDeadlineOfAScopeThatWasLeftRequestsNothing) {
  std::optional<CancelScope> scope;
  std::stop_token token;
  absl::Time deadline;
  absl::Duration ahead = absl::Milliseconds(1);
  do {
    deadline = internal::WallNow() + (ahead *= 2);
    scope.emplace(CancelScope::Options{.deadline = deadline});
    token = scope->stop_token();
    scope.reset();
  } while (internal::WallNow() >= deadline);  // until it was left in time
  CancelScope later({.deadline = deadline + absl::Nanoseconds(1)});
  std::latch requested(1);
  std::stop_callback callback(later.stop_token(),
                              [&] { requested.count_down(); });
  requested.wait();
  EXPECT_FALSE(token.stop_requested());
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
}

// A065
TEST(FailAfter, DoesNotClaimACancellationFromOutside) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
  EXPECT_EQ(FailAfter(absl::ZeroDuration(),
                      [] { return absl::CancelledError("outer"); }),
            absl::CancelledError("outer"));
}

TEST(CancelScope, ATimeoutCountsFromTheBeginning) {
  const absl::Time before = absl::Now();
  CancelScope scope({.timeout = absl::Hours(1)});
  const absl::Time after = absl::Now();
  // The wall clock is not read off to the nanosecond.
  EXPECT_GE(scope.deadline(), before + absl::Hours(1) - absl::Milliseconds(1));
  EXPECT_LE(scope.deadline(), after + absl::Hours(1) + absl::Milliseconds(1));
  EXPECT_GT(scope.remaining(), absl::ZeroDuration());
  EXPECT_LE(scope.remaining(), absl::Hours(1));
}

TEST(CancelScope, OfATimeoutAndADeadlineTheEarlierCounts) {
  CancelScope scope(
      {.timeout = absl::Hours(1), .deadline = absl::FromUnixSeconds(1)});
  EXPECT_EQ(scope.deadline(), absl::FromUnixSeconds(1));
  EXPECT_EQ(scope.remaining(), absl::ZeroDuration());
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

TEST(CancelScope, WithoutADeadlineAllTimeRemains) {
  CancelScope scope;
  EXPECT_EQ(scope.remaining(), absl::InfiniteDuration());
  CancelScope forever({.timeout = absl::InfiniteDuration()});
  EXPECT_EQ(forever.deadline(), absl::InfiniteFuture());
}

TEST(CancelScope, ATimeoutThatIsOverCancelsAtOnce) {
  for (const absl::Duration timeout :
       {absl::ZeroDuration(), -absl::Hours(1), -absl::InfiniteDuration()}) {
    CancelScope scope({.timeout = timeout});
    EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled())) << timeout;
  }
}

TEST(CancelScope, ATimeoutCanBeSetAnew) {
  CancelScope scope({.timeout = absl::Hours(1)});
  scope.set_timeout(absl::InfiniteDuration());
  EXPECT_EQ(scope.remaining(), absl::InfiniteDuration());
  scope.set_timeout(absl::ZeroDuration());
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
}

TEST(CancelScope, AReasonComesThroughAStopToken) {
  CancelScope outer;
  std::latch entered(1);
  absl::Status status;
  std::thread thread([&, token = outer.stop_token()] {
    CancelScope mine(token);
    entered.count_down();
    status = SleepUntilCancelled();
  });
  entered.wait();
  outer.Cancel(absl::CancelledError("disk full"));
  thread.join();
  EXPECT_THAT(status, Says(absl::CancelledError("disk full")));
}

TEST(CancelScope, AReasonComesThroughAStopTokenThatIsRequestedAlready) {
  CancelScope other;
  CancelScope outer;
  const std::stop_token of_other = other.stop_token();
  const std::stop_token token = outer.stop_token();
  outer.Cancel(absl::CancelledError("disk full"));
  std::thread thread([&] {
    {
      CancelScope not_cancelled(of_other);
      EXPECT_TRUE(CheckCancelled().ok());
    }
    CancelScope mine(token);
    EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("disk full")));
  });
  thread.join();
}

TEST(CancelScope, ADeadlineComesThroughAStopToken) {
  std::latch entered(1);
  absl::Status status;
  CancelScope outer;
  std::thread thread([&, token = outer.stop_token()] {
    CancelScope mine(token);
    entered.count_down();
    status = SleepUntilCancelled();
  });
  entered.wait();
  outer.set_deadline(absl::Now());
  thread.join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  std::thread late([token = outer.stop_token()] {
    CancelScope mine(token);
    EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled())) << CheckCancelled();
  });
  late.join();
}

// The timer requests a token while the scope is left, and a callback cancels
// another scope in the midst of it.
TEST(CancelScope, AReasonComesThroughAStopTokenThoughItsScopeIsLeftMeanwhile) {
  const std::thread::id here = std::this_thread::get_id();
  absl::Duration ahead = absl::Milliseconds(1);
  bool requested_here = true;
  while (requested_here) {  // where the deadline had passed before it was set
    requested_here = false;
    std::optional<CancelScope> scope(std::in_place);
    const std::stop_token token = scope->stop_token();
    std::atomic<bool> first{true};
    std::latch requesting(1);
    std::latch left(1);
    const auto keep_the_timer = [&] {
      if (std::this_thread::get_id() == here) {
        requested_here = true;
      } else if (first.exchange(false)) {
        CancelScope other;
        other.stop_token();
        other.Cancel();
        requesting.count_down();
        left.wait();
      }
    };
    // One of the two comes before that of `mine`.
    std::stop_callback before(token, keep_the_timer);
    std::latch entered(1);
    absl::Status status;
    std::thread thread([&] {
      CancelScope mine(token);
      entered.count_down();
      status = SleepUntilCancelled();
    });
    entered.wait();
    std::stop_callback after(token, keep_the_timer);
    scope->set_deadline(internal::WallNow() + (ahead *= 2));
    if (!requested_here) requesting.wait();
    const absl::Status reason = scope->status();
    scope.reset();
    left.count_down();
    thread.join();
    EXPECT_THAT(status, Says(reason));
  }
}

// Each place in the list of those who gave a token can be left.
TEST(CancelScope, AReasonComesThroughWhicheverStopTokenWasTakenFirst) {
  const auto reason_of = [](const std::stop_token& token) {
    CancelScope shield({.shield = true});
    CancelScope mine(token);
    return CheckCancelled();
  };
  std::vector<int> order = {0, 1, 2};
  do {
    std::optional<CancelScope> scopes[3];
    std::stop_token tokens[3];
    for (std::optional<CancelScope>& scope : scopes) {
      scope.emplace(CancelScope::Options{.shield = true});
    }
    for (int i : order) tokens[i] = scopes[i]->stop_token();
    for (int i = 0; i < 3; ++i) {
      scopes[i]->Cancel(absl::CancelledError(absl::StrCat(i)));
    }
    for (int left = 3; left >= 0; --left) {
      for (int i = 0; i < 3; ++i) {
        EXPECT_THAT(reason_of(tokens[i]),
                    Says(absl::CancelledError(
                        i < left ? absl::StrCat(i) : "stop was requested")));
      }
      if (left > 0) scopes[left - 1].reset();
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(CancelScope, AStopTokenWhoseScopeIsGoneHasNoReasonOfItsOwn) {
  std::stop_token token;
  {
    CancelScope scope;
    token = scope.stop_token();
    scope.Cancel(absl::CancelledError("disk full"));
  }
  CancelScope mine(token);
  EXPECT_THAT(CheckCancelled(),
              Says(absl::CancelledError("stop was requested")));
}

// What a callback of our token requests is not ours.
TEST(CancelScope, AForeignTokenThatIsRequestedMeanwhileDoesNotGetTheReason) {
  std::stop_source foreign;
  CancelScope outer;
  std::stop_callback hand_on(outer.stop_token(),
                             [&] { foreign.request_stop(); });
  absl::Status status;
  std::latch entered(1);
  std::thread thread([&] {
    CancelScope mine(foreign.get_token());
    entered.count_down();
    status = SleepUntilCancelled();
  });
  entered.wait();
  outer.Cancel(absl::CancelledError("disk full"));
  thread.join();
  EXPECT_THAT(status, Says(absl::CancelledError("stop was requested")));
}

// A040, A041, A034
TEST(MoveOnAfter, SaysWhetherTheTimeRanOut) {
  EXPECT_EQ(TimeLimit::kPassed, MoveOnAfter(absl::Milliseconds(1), [] {
              SleepUntilCancelled().IgnoreError();
            }));
  EXPECT_TRUE(CheckCancelled().ok());
  EXPECT_EQ(TimeLimit::kKept, MoveOnAfter(absl::InfiniteDuration(), [] {}));
}

// A042: as FailAfter(), it leaves to the outer scope what is the outer scope's.
TEST(MoveOnAfter, DoesNotClaimACancellationFromOutside) {
  CancelScope outer;
  outer.Cancel();
  EXPECT_EQ(TimeLimit::kKept, MoveOnAfter(absl::ZeroDuration(), [] {
              EXPECT_FALSE(CheckCancelled().ok());
            }));
}

// A070
TEST(MoveOnAfter, NothingEscapesWhenTheScopeAroundIsCancelledAfterIt) {
  {
    CancelScope scope;
    EXPECT_EQ(TimeLimit::kPassed, MoveOnAfter(absl::ZeroDuration(), [&] {
                EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
              }));
    EXPECT_TRUE(CheckCancelled().ok());
    scope.Cancel();
    EXPECT_TRUE(absl::IsCancelled(SleepUntilCancelled()));
  }
  EXPECT_TRUE(CheckCancelled().ok());
}

// A037
TEST(FailAfter, WorksAfterAnUnrelatedCancellation) {
  {
    CancelScope unrelated;
    unrelated.Cancel();
    EXPECT_FALSE(CheckCancelled().ok());
  }
  EXPECT_TRUE(FailAfter(absl::Hours(1), [] { return CheckCancelled(); }).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      FailAfter(absl::ZeroDuration(), [] { return CheckCancelled(); })));
}

// A038, A065
TEST(FailAfter, DoesNotTakeACancelBeforeItsDeadlineForATimeout) {
  CancelScope outer;
  EXPECT_THAT(FailAfter(absl::Hours(1),
                        [&] {
                          outer.Cancel(absl::CancelledError("enough"));
                          return SleepUntilCancelled();
                        }),
              Says(absl::CancelledError("enough")));
}

// A039, A045
TEST(FailAfter, NamesTheTimeout) {
  EXPECT_EQ(
      FailAfter(absl::Milliseconds(1), [] { return SleepUntilCancelled(); }),
      absl::DeadlineExceededError("not done within 1ms"));
}

// What was done in time or regardless of it is not thrown away.
TEST(FailAfter, ABodyThatSucceedsRegardlessSucceeds) {
  EXPECT_TRUE(
      FailAfter(absl::ZeroDuration(), [] { return absl::OkStatus(); }).ok());
}

// A066
TEST(FailAfter, TimesOutBehindAShieldInACancelledScope) {
  CancelScope outer;
  outer.Cancel(absl::CancelledError("outer"));
  {
    CancelScope shield({.shield = true});
    EXPECT_TRUE(absl::IsDeadlineExceeded(FailAfter(
        absl::Milliseconds(1), [] { return SleepUntilCancelled(); })));
    EXPECT_TRUE(CheckCancelled().ok());
  }
  EXPECT_THAT(CheckCancelled(), Says(absl::CancelledError("outer")));
}

TEST(FailAfter, AFailureOfTheBodyIsNotReplacedByTheTimeOut) {
  EXPECT_EQ(FailAfter(absl::ZeroDuration(),
                      [] { return absl::DataLossError("disk full"); }),
            absl::DataLossError("disk full"));
}

TEST(FailAfter, AStatusFromElsewhereIsNotReplacedByTheTimeOut) {
  for (const absl::Status& error : {absl::CancelledError("a task"),
                                    absl::DeadlineExceededError("a peer's")}) {
    EXPECT_EQ(FailAfter(absl::ZeroDuration(),
                        [&] {
                          EXPECT_FALSE(CheckCancelled().ok());
                          return error;
                        }),
              error);
  }
}

TEST(FailAfter, ReturnsWhatTheBodyReturns) {
  const absl::StatusOr<std::unique_ptr<int>> result =
      FailAfter(absl::Hours(1), []() -> absl::StatusOr<std::unique_ptr<int>> {
        return std::make_unique<int>(5);
      });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(**result, 5);
  EXPECT_THAT(
      FailAfter(absl::ZeroDuration(),
                []() -> absl::StatusOr<int> { return CheckCancelled(); })
          .status(),
      Says(absl::DeadlineExceededError("not done within 0")));
}

TEST(FailAfter, KeepsATimeoutThatCameBeforeACancelAroundIt) {
  CancelScope outer;
  EXPECT_THAT(FailAfter(absl::ZeroDuration(),
                        [&] {
                          absl::Status status = CheckCancelled();
                          outer.Cancel(absl::CancelledError("later"));
                          return status;
                        }),
              Says(absl::DeadlineExceededError("not done within 0")));
}

TEST(FailAfter, InTimeTheStatusOfTheBodyIsKept) {
  EXPECT_EQ(
      FailAfter(absl::Hours(1), [] { return absl::CancelledError("a task"); }),
      absl::CancelledError("a task"));
  EXPECT_EQ(FailAfter(absl::Hours(1),
                      [] { return absl::DeadlineExceededError("a peer"); }),
            absl::DeadlineExceededError("a peer"));
}

TEST(MoveOnAfter, ACancelOfItsOwnBodyIsNoTimeOut) {
  CancelScope outer;
  EXPECT_EQ(TimeLimit::kKept,
            MoveOnAfter(absl::Hours(1), [&] { outer.Cancel(); }));
}

// A034, T010
TEST(MoveOnAfter, LeavesLaterWaitsAlone) {
  EXPECT_EQ(TimeLimit::kPassed, MoveOnAfter(absl::ZeroDuration(), [] {
              EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
              EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCancelled()));
            }));
  Sleeper sleeper("a test");
  sleeper.Wake();
  EXPECT_TRUE(sleeper.Sleep().ok());
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

// A078, T018, T019
TEST(CancelScopeDeathTest, AScopeMustBeLeftOnItsOwnThread) {
  EXPECT_DEATH(
      {
        auto scope = std::make_unique<CancelScope>();
        std::thread([&] { scope.reset(); }).join();
      },
      "another thread");
}

TEST(CancelScopeDeathTest, AScopeMustNotBeLeftBeforeThoseThatSleepInIt) {
  EXPECT_DEATH(
      {
        std::optional<CancelScope> scope(std::in_place);
        ScopedThread sleeper([&] {
          ScopeEntry entry(Scope::Of(*scope));
          SleepUntilCancelled().IgnoreError();
        });
        sleeper.AwaitAsleep();
        scope.reset();
      },
      "something inside it still waits");
}

TEST(CancelScopeDeathTest, AScopeMustNotBeLeftBeforeThoseInsideIt) {
  EXPECT_DEATH(
      {
        std::optional<CancelScope> scope(std::in_place);
        ScopedThread user([&] {
          ScopeEntry entry(Scope::Of(*scope));
          CancelScope inner;
          SleepUntilCancelled().IgnoreError();
        });
        user.AwaitAsleep();
        scope.reset();
      },
      "something inside it still waits");
}

TEST(CancelScopeDeathTest, WhatEnteredAScopeMustLeaveItInTurn) {
  EXPECT_DEATH(
      {
        CancelScope scope;
        std::optional<ScopeEntry> entry(std::in_place, Scope::Of(scope));
        auto inner = std::make_unique<CancelScope>();
        entry.reset();
      },
      "after the scope around it was left");
}

// The exit status of a forked child that runs `body`.
int StatusOfFork(absl::FunctionRef<void()> body) {
  Child child(Fork([body] {
    alarm(10);  // not to stay if it hangs
    body();
  }));
  return ExitStatus(child.Wait());
}

// What other threads left in the scopes of the one that forks, sleepers and
// inner scopes before and after its own, is not there in the child.
TEST(CancelScopeInAForkedChild, WhatOthersLeftInTheScopesIsGone) {
  std::optional<CancelScope> outer(std::in_place);
  auto sleep_in_it = [&] {
    ScopeEntry entry(Scope::Of(*outer));
    SleepUntilCancelled().IgnoreError();
  };
  auto sleep_inside = [&] {
    ScopeEntry entry(Scope::Of(*outer));
    CancelScope own;
    SleepUntilCancelled().IgnoreError();
  };
  ScopedThread first(sleep_in_it);
  first.AwaitAsleep();
  ScopedThread second(sleep_inside);
  second.AwaitAsleep();
  std::optional<CancelScope> inner(std::in_place);
  std::stop_token token = inner->stop_token();
  ScopedThread third(sleep_inside);
  third.AwaitAsleep();
  EXPECT_EQ(StatusOfFork([&] {
              outer->Cancel();
              EXPECT_TRUE(token.stop_requested());
              inner.reset();
              outer.reset();
            }),
            0);
  EXPECT_EQ(StatusOfFork([&] {
              inner.reset();
              outer->set_deadline(absl::UnixEpoch());
              EXPECT_TRUE(absl::IsDeadlineExceeded(SleepUntilCancelled()));
              EXPECT_FALSE(token.stop_requested());  // of a scope that was left
              outer.reset();
            }),
            0);
  EXPECT_FALSE(token.stop_requested());
  inner.reset();
  outer->Cancel();
}

// As when a handler forks in the middle of a wait, and the child comes back.
TEST(CancelScopeInAForkedChild, AWaitThatItComesBackIntoEntersItsScopeAnew) {
  std::optional<CancelScope> outer(std::in_place);
  ScopedThread other([&] {
    ScopeEntry entry(Scope::Of(*outer));
    SleepUntilCancelled().IgnoreError();
  });
  other.AwaitAsleep();
  std::optional<Sleeper> sleeper(std::in_place, "a test");
  const auto sleep = [&] {
    sleeper->Wake();
    EXPECT_TRUE(sleeper->Sleep().ok());
  };
  sleep();
  EXPECT_EQ(StatusOfFork([&] {
              sleeper.reset();
              outer.reset();
            }),
            0);
  EXPECT_EQ(StatusOfFork([&] {
              sleep();
              outer->Cancel();
              EXPECT_TRUE(sleeper->woken());
              sleeper.reset();
              outer.reset();
            }),
            0);
  sleeper.reset();
  outer->Cancel();
}

TEST(CancelScopeInAForkedChild, ItsOwnScopesCanBeLeftThoughOnlyOthersSlept) {
  std::optional<CancelScope> outer(std::in_place);
  ScopedThread sleeper([&] {
    ScopeEntry entry(Scope::Of(*outer));
    CancelScope own;
    SleepUntilCancelled().IgnoreError();
  });
  sleeper.AwaitAsleep();
  EXPECT_EQ(StatusOfFork([&] { outer.reset(); }), 0);
  {
    CancelScope inner;
    EXPECT_EQ(StatusOfFork([&] {
                CancelScope innermost;
                std::stop_token token = innermost.stop_token();
                outer->Cancel();
                EXPECT_TRUE(token.stop_requested());
              }),
              0);
  }
  outer->Cancel();
  sleeper.Join();
}

TEST(CancelScopeInAForkedChild, AReasonComesThroughTokensOfItsOwnScopesOnly) {
  ScopedThread thread([] { SleepUntilCancelled().IgnoreError(); });
  CancelScope own;
  const std::stop_token of_own = own.stop_token();
  const std::stop_token of_other = thread.scope().stop_token();
  thread.scope().Cancel(absl::CancelledError("the parent's"));
  EXPECT_EQ(StatusOfFork([&] {
              {
                CancelScope mine(of_other);
                EXPECT_THAT(CheckCancelled(),
                            Says(absl::CancelledError("stop was requested")));
              }
              own.Cancel(absl::CancelledError("disk full"));
              CancelScope shield({.shield = true});
              CancelScope mine(of_own);
              EXPECT_THAT(CheckCancelled(),
                          Says(absl::CancelledError("disk full")));
            }),
            0);
}

// A forked child has none of the threads that slept in the scopes around it,
// and no timer until it needs one. ThreadSanitizer allows no thread there.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST(CancelScopeDeathTest, ScopesWorkInAForkedChild) {
  CancelScope outer;
  CancelScope inner({.deadline = absl::Now() + absl::Hours(1)});
  inner.stop_token();
  std::atomic<bool> over{false};
  std::thread user([&] {
    while (!over) {
      CancelScope scope({.deadline = absl::Now() + absl::Hours(1)});
      scope.stop_token();
      scope.Cancel();
    }
  });
  ScopedThread sleeper([] { SleepUntilCancelled().IgnoreError(); });
  sleeper.AwaitAsleep();
  for (int i = 0; i < 20; ++i) {
    const absl::Time soon = absl::Now() + absl::Milliseconds(1);
    const pid_t child = fork();  // where absl::Now() may hang
    if (child == 0) {
      std::latch requested(2);
      std::stop_callback of_inner(inner.stop_token(),
                                  [&] { requested.count_down(); });
      CancelScope own({.deadline = soon});
      std::stop_callback of_own(own.stop_token(),
                                [&] { requested.count_down(); });
      const bool in_time = absl::IsDeadlineExceeded(SleepUntilCancelled());
      outer.Cancel();
      requested.wait();
      _exit(in_time && inner.cancelled() ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_FALSE(outer.cancelled());
  over = true;
  user.join();
  sleeper.scope().Cancel();
}

// The parent's alarm for it is not the child's.
TEST(CancelScopeInAForkedChild, ADeadlineThatWasSetBeforeItRequestsTheToken) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(100)});
  std::stop_token token = scope.stop_token();
  EXPECT_EQ(
      StatusOfFork([&] {
        CancelScope other({.deadline = internal::WallNow() + absl::Hours(1)});
        other.stop_token();  // starts the timer
        std::latch requested(1);
        std::stop_callback callback(scope.stop_token(),
                                    [&] { requested.count_down(); });
        requested.wait();
      }),
      0);
}

TEST(CancelScopeInAForkedChild, TheDeadlinesOfOtherThreadsRequestNothing) {
  static std::atomic<bool> requested;
  const absl::Time soon = absl::Now() + absl::Milliseconds(50);
  std::optional<std::stop_callback<void (*)()>> callback;
  ScopedThread other([&] {
    CancelScope scope({.deadline = soon});
    callback.emplace(scope.stop_token(), [] { requested = true; });
    SleepUntilCancelled().IgnoreError();
    callback.reset();
  });
  other.AwaitAsleep();
  EXPECT_EQ(StatusOfFork([&] {
              const bool before = requested;
              CancelScope later({.deadline = soon + absl::Milliseconds(1)});
              std::latch later_requested(1);
              std::stop_callback count(later.stop_token(),
                                       [&] { later_requested.count_down(); });
              later_requested.wait();
              EXPECT_EQ(requested, before);
            }),
            0);
}
#endif

}  // namespace
}  // namespace tocsin
