// Code that puts things in order after a cancellation, in the time that the
// cancellation leaves for it.
//
//   absl::Status Serve(Connection& connection) {
//     absl::Status status = Answer(connection);  // ended by a cancellation
//     CleanUpScope clean_up;
//     connection.SayGoodbye();                   // its waits wait
//     return status;
//   }
//
// A cancelled scope stays cancelled, and every wait in it returns at once. A
// CleanUpScope keeps that out as long as the clean-up may take: the grace that
// CancelScope::Cancel(), TaskSet::Cancel() or CancelScopeOptions gave, less a
// tenth of it or a second, whichever is less, which the code around has to end
// in. Then the waits in it return with the reason of the cancellation. If
// several scopes around it are cancelled, what ends first counts. Where no
// grace was given it ends only with what comes later; so a Shutdown, which
// gives its own, bounds every clean-up in its scope.
//
// The grace goes along with the stop token of a CancelScope, and with the
// destructor of a TaskSet, as far as it is known by then. A bare stop token,
// and Start() where it gives up, bring none.
//
// It may be entered before anything is cancelled. It ends nothing by itself: a
// limit of its own, or a Cancel(), is a CancelScope inside it.
//
// A scope is made and destroyed by the same thread, in the order of nesting
// (checked, as for CancelScope). remaining() may be called from any thread.
#ifndef TOCSIN_CONCURRENCY_CLEAN_UP_SCOPE_H_
#define TOCSIN_CONCURRENCY_CLEAN_UP_SCOPE_H_

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/scope_state.h"

namespace tocsin::inline v0_2 {

class [[nodiscard]] CleanUpScope {
 public:
  CleanUpScope() = default;
  CleanUpScope(const CleanUpScope&) = delete;
  CleanUpScope& operator=(const CleanUpScope&) = delete;

  // How long waits in it may still wait: infinite as long as nothing limits it,
  // zero once its time is over.
  absl::Duration remaining() const {
    return internal::TimeUntil(state_.ends());
  }

 private:
  internal::Scope state_{internal::Deadline(),
                         internal::Shield::kUntilCleanedUp,
                         internal::kUnlimited};
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_CLEAN_UP_SCOPE_H_
