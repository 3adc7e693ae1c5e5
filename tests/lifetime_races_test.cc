// Whoever lets the owner of a scope or a group go touches it no more: each
// window in which that could be is held open at its step, and what is gone is
// gone from memory.
#include <sched.h>

#include <atomic>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/own_pages.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// Scopes. --------------------------------------------------------------------

bool IsCancelled(const CancelScope&) {
  return internal::current_scope->cancelled();
}

// Its thread learns of a change by looking, and has never slept in it.
class ScopeLifetime : public testing::Test {
 protected:
  // Changes a scope of another thread, which leaves it in the middle of that,
  // as soon as it looks changed.
  static void ExpectNotTouchedAfter(
      const std::function<void(CancelScope&)>& change,
      const std::function<bool(const CancelScope&)>& looks_changed =
          IsCancelled,
      bool in_clean_up = false) {
    std::atomic<CancelScope*> scope = nullptr;
    ScopedThread owner([&] {
      CancelScope outer;
      outer.Cancel();
      // A scope with a deadline is looked at each time.
      OwnPages<CancelScope> own(
          CancelScope::Options{.timeout = absl::Hours(1), .shield = true});
      std::optional<CleanUpScope> clean_up;
      if (in_clean_up) {
        own->Cancel();
        clean_up.emplace();
      }
      scope = &*own;
      while (!looks_changed(*own)) sched_yield();
    });
    while (scope == nullptr) sched_yield();
    HeldAt changed("CancelScope: changed, not yet announced");
    ScopedThread changer([&] { change(*scope); });
    changed.AwaitThread();
    owner.Join();
    changed.Release();
  }
};

TEST_F(ScopeLifetime, EndsWhenItIsSeenToBeCancelled) {
  ExpectNotTouchedAfter([](CancelScope& scope) { scope.Cancel(); });
}

TEST_F(ScopeLifetime, EndsWhenTheEndOfItsCleanUpIsSeenToHaveMoved) {
  ExpectNotTouchedAfter(
      [](CancelScope& scope) {
        scope.Cancel(absl::CancelledError(), absl::ZeroDuration());
      },
      IsCancelled, true);
}

TEST_F(ScopeLifetime, EndsWhenItsDeadlineIsSeenToHaveMoved) {
  ExpectNotTouchedAfter(
      [](CancelScope& scope) { scope.set_deadline(absl::UnixEpoch()); },
      [](const CancelScope& scope) {
        return scope.deadline() == absl::UnixEpoch();
      });
}

TEST_F(ScopeLifetime, EndsWhenItsShieldIsSeenToBeLifted) {
  ExpectNotTouchedAfter([](CancelScope& scope) { scope.set_shield(false); });
}

}  // namespace
}  // namespace tocsin
