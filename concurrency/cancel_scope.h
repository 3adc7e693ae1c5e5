// A stretch of a thread's execution that can be cancelled from outside.
//
// Cancellation is ambient: every thread has a current scope, and every wait of
// the library (Receive(), Pop(), SleepFor(), Wait(), ...) observes it. Nothing
// has to be passed down.
//
//   CancelScope scope({.deadline = absl::Now() + absl::Seconds(5)});
//   absl::StatusOr<SignalEvent> event = receiver.Receive();
//   // kDeadlineExceeded after five seconds, kCancelled after scope.Cancel().
//
// A thread that was handed a stop token joins in with one line:
//
//   std::jthread worker([&](std::stop_token stop) {
//     CancelScope scope(stop);
//     for (const SignalEvent& event : receiver) Reload(event);
//   });
//
// Cancellation is level-triggered: once a scope is cancelled, every wait in it
// returns at once, the first and all later ones, until the scope is left or a
// shield is entered. Scopes nest; what cancels a scope cancels those made
// inside it, on this thread or, through task groups, on others. The first
// reason wins and is kept; a scope is never un-cancelled.
//
// A scope is made and destroyed by the same thread, in the order of nesting
// (checked: the program ends with a message). Every other member may be called
// from any thread while the scope exists.
#ifndef TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_
#define TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_

#include <stop_token>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/scope.h"

namespace tocsin {

class CancelScope {
 public:
  struct Options {
    // When the scope cancels itself, on the wall clock. A time that has passed
    // means at once.
    absl::Time deadline = absl::InfiniteFuture();
    // Keeps out the cancellation and the deadlines of the scopes around this
    // one: for clean-up that must finish. Give it a deadline of its own.
    bool shield = false;
  };

  // A child of the thread's current scope, and from here on the current one.
  CancelScope() : CancelScope(Options()) {}
  explicit CancelScope(Options options)
      : state_(options.deadline, options.shield) {}
  // Also cancelled when `stop` is requested.
  explicit CancelScope(std::stop_token stop) : state_(std::move(stop)) {}

  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;

  // Cancels this scope and those inside it; does nothing if it is cancelled
  // already. Returns at once: wakes the waits, does not wait for them. Runs the
  // callbacks of exported stop tokens, here, with no lock held. Waits return
  // kCancelled with the reason's text, whatever its code.
  void Cancel(absl::Status reason = absl::CancelledError()) {
    state_.Cancel(std::move(reason));
  }

  // Whether waits in this scope return at once: it was cancelled, its deadline
  // has passed, or either holds for a scope around it and no shield is between.
  bool cancelled() const { return state_.cancelled(); }

  // Why: the reason given to Cancel(), kDeadlineExceeded for a deadline, of
  // the innermost cancelled scope. OK as long as cancelled() is false.
  absl::Status status() const { return state_.status(); }

  // The nearest of its own deadline and those around it, up to a shield.
  absl::Time deadline() const { return state_.deadline(); }

  // Moves the scope's own deadline; those who wait in the scope go by the new
  // one. Without effect once the scope is cancelled.
  void set_deadline(absl::Time deadline) { state_.set_deadline(deadline); }

  void set_shield(bool shield) { state_.set_shield(shield); }

  // A token that is requested when this scope is cancelled, by a deadline too:
  // for code that polls, or an interface that takes one. Callbacks run on the
  // thread that cancels, for a deadline on one of the library that serves all
  // scopes: they must not block. While the system refuses that one, deadlines
  // request no token; the next call that asks for one tries again. The token
  // stays valid after the scope, and nothing that happens from then on requests
  // it.
  std::stop_token stop_token() const { return state_.stop_token(); }

 private:
  friend class TaskGroup;  // whose tasks enter a scope that it does not
  friend class internal::Scope;

  // A child of the thread's current scope that no thread is in yet.
  explicit CancelScope(internal::Scope::NotEntered apart) : state_(apart) {}

  internal::Scope state_;
};

// The state of the thread's current scope, for loops that compute without
// waiting: kCancelled or kDeadlineExceeded once it is cancelled, OK until then
// and where there is no scope. Takes no lock; a few nanoseconds.
inline absl::Status CheckCancelled() { return internal::Scope::CheckCurrent(); }

// Runs `body` in a scope that is cancelled after `timeout`. True if the time
// ran out, which ended the waits of the body; false if a scope around it was
// cancelled, or nothing was. A timeout that is zero or negative is over at
// once.
bool MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body);

// The same for a body that can fail: kDeadlineExceeded, naming the timeout, if
// the time ran out and the body ended by that, with kCancelled or
// kDeadlineExceeded; else its status, also one that came late.
absl::Status FailAfter(absl::Duration timeout,
                       absl::FunctionRef<absl::Status()> body);

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_
