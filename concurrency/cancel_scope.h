// A stretch of a thread's execution that can be cancelled from outside.
//
// Cancellation is ambient: every thread has a current scope, and the waits of
// the library (Receive(), Pop(), Sleep(), ...) observe it. Nothing has to be
// passed down.
//
//   CancelScope scope({.timeout = absl::Seconds(5)});
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
// shield is entered. Scopes nest: what cancels a scope cancels those made
// inside it, on this thread and, through task groups, on others.
//
// The first reason wins and is kept. Whatever tells why (waits, status(),
// CheckCancelled(), a stop token, MoveOnAfter(), FailAfter(), the Wait() of a
// TaskGroup) goes by the scope that was cancelled first, out of the one in
// question and those around it up to a shield. A scope counts as cancelled
// - by Cancel() or a stop token when that was called or requested;
// - by its deadline when that passed, whether anybody looked or not; if it had
//   passed before it was set, when it was set;
// - behind a shield that was lifted since, not before it was lifted; behind a
//   CleanUpScope, when the clean-up ended.
// Of two at the same time the outer one counts. Nothing that comes later
// changes the reason, but for a shield that is put up: of what is cancelled
// behind it, the first counts from then on; if nothing is, waits wait again.
//
// What a wait returns then, and what CheckCancelled() and status() return, is
// marked with the scope that was cancelled, in a payload of the absl::Status. A
// task group recognises by the mark, and not by the code, that a task ended
// because its scope did: so return such a status unchanged. A kCancelled from
// elsewhere, such as an RPC, is an error like any other.
//
// A scope is made and destroyed by the same thread, in the order of nesting
// (checked: the program ends with a message). Every other member may be called
// from any thread while the scope exists.
#ifndef TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_
#define TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_

#include <stop_token>
#include <type_traits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/scope.h"

namespace tocsin::inline v0_2 {

struct CancelScopeOptions {
  // The time after which the scope cancels itself, counted from its
  // construction. Zero or less means at once.
  absl::Duration timeout = absl::InfiniteDuration();
  // The same as a point in time; the earlier one counts. It is read off the
  // wall clock once: nobody who sets that clock later moves it.
  absl::Time deadline = absl::InfiniteFuture();
  // Keeps out the cancellation and the deadlines of the scopes around this one,
  // for good. Give it a timeout of its own. For clean-up there is CleanUpScope.
  bool shield = false;
  // How long the clean-up may take once this scope is cancelled (see
  // CleanUpScope). Zero or less means not at all.
  absl::Duration grace = absl::InfiniteDuration();
};

class [[nodiscard]] CancelScope {
 public:
  using Options = CancelScopeOptions;

  // Makes a child of the thread's current scope, and enters it.
  explicit CancelScope(Options options = {})
      : state_(DeadlineOf(options), ShieldOf(options.shield),
               internal::ToGrace(options.grace)) {}
  // Also cancelled when `stop` is requested. If that is a token of another
  // scope or of a StopOnSignal, then for the same reason, as long as the other
  // exists.
  explicit CancelScope(const std::stop_token& stop) : state_(stop) {}

  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;

  // Cancels this scope and those inside it. Does nothing if this scope was
  // cancelled before; if one around it was, that one's reason still counts.
  // Returns at once: wakes the waits and does not wait for them. Runs the
  // callbacks of exported stop tokens, here, with no lock held. Waits return
  // kCancelled with the reason's text, whatever its code.
  void Cancel(absl::Status reason = absl::CancelledError()) {
    state_.Cancel(std::move(reason));
  }
  // The same, with another grace than that of the options. Called again, it can
  // only shorten the clean-up.
  void Cancel(absl::Status reason, absl::Duration grace) {
    state_.Cancel(std::move(reason), grace);
  }

  // Whether waits in this scope return at once: it was cancelled, its deadline
  // has passed, or either holds for a scope around it and no shield is between.
  bool cancelled() const { return state_.cancelled(); }

  // Why: the first reason, as it was given to Cancel(), or kDeadlineExceeded.
  // OK as long as cancelled() is false.
  absl::Status status() const { return state_.status(); }

  // The nearest of its own deadline and those around it, up to a shield, and
  // inside a CleanUpScope the end of the clean-up: on the wall clock as that
  // was when the deadline was set, or was first asked for.
  absl::Time deadline() const { return state_.deadline(); }
  // The time until then; zero if it has passed.
  absl::Duration remaining() const;

  // Moves the scope's own deadline, with effect on waits that have begun.
  // Without effect once it has passed, or Cancel() was called.
  void set_deadline(absl::Time deadline);
  // The same, counted from now.
  void set_timeout(absl::Duration timeout);

  void set_shield(bool shield) { state_.set_shield(ShieldOf(shield)); }

  // A token that is requested when this scope is cancelled, by a deadline too:
  // for code that polls, or an interface that takes one. Callbacks run on the
  // thread that cancels, and for a deadline on a thread of the library that
  // serves all scopes: they must not block. While the system refuses that
  // thread, deadlines request no token; the next call of this tries again. The
  // token stays valid after the scope, but nothing requests it any more.
  std::stop_token stop_token() const { return state_.stop_token(); }

 private:
  friend class TaskSet;  // whose tasks enter its scope
  friend class internal::Scope;

  static internal::Deadline DeadlineOf(const Options& options);
  static internal::Shield ShieldOf(bool shield) {
    return shield ? internal::Shield::kAll : internal::Shield::kNothing;
  }

  // Makes a child of `parent`, which may be null. No thread is in it yet.
  explicit CancelScope(internal::ScopeState* parent) : state_(parent) {}

  internal::Scope state_;
};

// The state of the thread's current scope, for loops that compute without
// waiting: kCancelled or kDeadlineExceeded once it is cancelled, OK until then
// and where there is no scope. Takes no lock until then; a few nanoseconds.
inline absl::Status CheckCancelled() { return internal::Scope::CheckCurrent(); }

// Whether the body of MoveOnAfter() kept its time limit.
enum class TimeLimit { kKept, kPassed };

// Runs `body` in a scope that is cancelled after `timeout`, which ends the
// waits of the body, and not those after it. kPassed if that happened before
// the body returned, and was the first reason. A zero or negative timeout
// passes at once.
//
//   if (MoveOnAfter(absl::Seconds(5), [&] { Drain(); }) == TimeLimit::kPassed)
//   ...
TimeLimit MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body);

// The same for a body that can fail. Returns what the body returns, an
// absl::Status or an absl::StatusOr<T>. If that is the status with which the
// scope's timeout ended a wait, returns instead a kDeadlineExceeded that names
// the timeout.
//
//   absl::StatusOr<Job> job =
//       FailAfter(absl::Seconds(5), [&] { return jobs.Pop(); });
template <typename F>
std::invoke_result_t<F&> FailAfter(absl::Duration timeout, F&& body) {
  CancelScope scope({.timeout = timeout});
  std::invoke_result_t<F&> result = body();
  if (internal::Scope::Of(scope).Made(result)) {
    return internal::Scope::NotDoneWithin(timeout);
  }
  return result;
}

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_CANCEL_SCOPE_H_
