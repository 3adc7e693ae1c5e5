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

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin {

class TaskGroup;

namespace internal {

class ScopeState;
class Sleeper;

// Guards the links between all scopes and sleepers. Taken by a thread that is
// about to sleep anyway and by one that cancels, never by CheckCancelled().
extern SlimMutex scope_tree_mutex;

// A token that was exported and is to be requested in the end. Made with it,
// so that cancelling allocates nothing.
struct StopRequest {
  std::stop_source source;
  std::unique_ptr<StopRequest> next;
};

// What a change of one scope means to the threads inside it: collected under
// scope_tree_mutex and carried out by the destructor. Declare it before the
// lock.
struct ScopeWakeUps {
  ScopeWakeUps() = default;
  ScopeWakeUps(const ScopeWakeUps&) = delete;
  ScopeWakeUps& operator=(const ScopeWakeUps&) = delete;
  ~ScopeWakeUps();

  FutexWakes asleep;
  std::unique_ptr<StopRequest> first_request;
  std::unique_ptr<StopRequest>* next_request = &first_request;
};

// The links of a scope in the tree of those that somebody sleeps in or took a
// token of. A scope joins that, with those around it, when either happens for
// the first time. All others have no links, and cost no lock and no memory.
struct ScopeLinks {
  const ScopeState* first_child ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* next_sibling ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* previous_sibling ABSL_GUARDED_BY(scope_tree_mutex) =
      nullptr;
  Sleeper* sleepers ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  std::atomic<uint32_t> wake_ups{0};  // goes up for those WithOthers
  std::stop_source exported ABSL_GUARDED_BY(scope_tree_mutex){std::nostopstate};
  std::unique_ptr<StopRequest> request ABSL_GUARDED_BY(scope_tree_mutex);
  int64_t timer ABSL_GUARDED_BY(scope_tree_mutex) = kNever;
};

// The tree itself.
class ScopeTree {
 public:
  // Has the scope join it, with those around it.
  static void Attach(const ScopeState& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // REQUIRES: it has joined. Nobody sleeps in it, and no scope inside is left.
  static void Detach(const ScopeState& scope)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // What a change of `scope` means to those who wait in it and inside of it.
  static void CollectWakeUps(const ScopeState& scope, ScopeWakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

 private:
  struct Fork;
};

// Goes up after every Cancel() and every change of a deadline or a shield.
// While it stands still, a scope once found clear is clear: the check of a
// scope at any depth compares two numbers instead of climbing to the outermost
// scope.
inline constinit std::atomic<uint64_t> scope_epoch{1};

// Null outside of any.
inline constinit thread_local ScopeState* current_scope = nullptr;

class ScopeState {
 public:
  // A child of the thread's current scope, and from here on the current one.
  ScopeState(absl::Time deadline, bool shield);
  // A child of `parent`, which may be null, that no thread is in yet: they come
  // in by ScopeEntry, and any thread may destroy it.
  explicit ScopeState(ScopeState* parent)
      : ScopeState(parent, false, kNever, false) {}
  ScopeState(const ScopeState&) = delete;
  ScopeState& operator=(const ScopeState&) = delete;
  ~ScopeState() {
    if (entered_ || attached_.load(std::memory_order_acquire)) Leave();
  }

  // That of a CancelScope.
  template <typename Scope>
  static ScopeState& Of(Scope& scope) {
    return scope.state_;
  }

  // Has it cancelled when `stop` is requested, too.
  void Adopt(std::stop_token stop);

  // The members of CancelScope, which tells of them.
  void Cancel(absl::Status reason = absl::CancelledError());
  bool cancelled() const {
    return clear_at_.load(std::memory_order_acquire) !=
               scope_epoch.load(std::memory_order_acquire) &&
           CancelledBy() != nullptr;
  }
  absl::Status status() const;
  absl::Time deadline() const;
  void set_deadline(absl::Time deadline);
  void set_shield(bool shield);
  std::stop_token stop_token() const;

  // What CheckCancelled() returns.
  static absl::Status CheckCurrent() {
    const ScopeState* scope = current_scope;
    if (scope == nullptr || !scope->cancelled()) return absl::OkStatus();
    return scope->WaitStatus();
  }
  // What a wait in it returns, OK as long as it goes on.
  absl::Status WaitStatus() const;

  ScopeState* parent() const { return parent_; }
  ScopeState* OuterInReach() const {
    return shield_.load(std::memory_order_acquire) ? nullptr : parent_;
  }
  bool Latched() const;  // cancelled by itself, its own deadline included

  // Ends the program, of which a scope was not destroyed in its turn.
  [[noreturn]] static void DieOf(const char* mistake);

 private:
  friend class DeadlineTimer;
  friend class ScopeTree;
  friend class Sleeper;

  // kLive until the first cause, which is one of the others for good.
  enum class State : uint8_t { kLive, kCancelled, kExpired };

  struct RequestCancel {
    ScopeState* scope;
    void operator()() const;
  };

  ScopeState(ScopeState* parent, bool entered, int64_t deadline, bool shield)
      : parent_(parent),
        entered_(entered),
        shield_(shield),
        deadline_(deadline),
        clear_at_(deadline != kNever ? 0
                  : parent != nullptr
                      ? parent->clear_at_.load(std::memory_order_acquire)
                      : scope_epoch.load(std::memory_order_acquire)) {}

  void Leave();

  const ScopeState* CancelledBy() const;
  absl::Status Cause() const;  // of one that is Latched()

  ScopeState* const parent_;
  const bool entered_;
  std::atomic<bool> shield_;
  mutable std::atomic<State> state_{State::kLive};
  std::atomic<int64_t> deadline_;           // its own, in Unix nanoseconds
  mutable std::atomic<uint64_t> clear_at_;  // see scope_epoch
  absl::Status reason_;  // written once, before state_ becomes kCancelled

  mutable std::atomic<bool> attached_{false};  // written under the lock
  union {
    mutable ScopeLinks links_;  // exists once attached_
  };

  // Last, because its callback uses all of the above.
  std::optional<std::stop_callback<RequestCancel>> adopted_;
};

// Makes `scope` the thread's current scope for as long as it lives.
class ScopeEntry {
 public:
  explicit ScopeEntry(ScopeState& scope)
      : scope_(&scope), outer_(std::exchange(current_scope, &scope)) {}
  // Of a CancelScope.
  template <typename Scope>
  explicit ScopeEntry(Scope& scope) : ScopeEntry(ScopeState::Of(scope)) {}
  ScopeEntry(const ScopeEntry&) = delete;
  ScopeEntry& operator=(const ScopeEntry&) = delete;
  ~ScopeEntry() {
    if (current_scope != scope_) DieOfOrder();
    current_scope = outer_;
  }

 private:
  [[noreturn]] static void DieOfOrder();

  ScopeState* const scope_;
  ScopeState* const outer_;
};

}  // namespace internal

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
  explicit CancelScope(std::stop_token stop) : CancelScope(Options()) {
    state_.Adopt(std::move(stop));
  }

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
  friend class TaskGroup;  // its tasks enter a scope that it does not
  friend class internal::ScopeState;

  // A child of `outer`, which may be null, that no thread is in yet.
  explicit CancelScope(internal::ScopeState* outer) : state_(outer) {}

  internal::ScopeState state_;
};

// The state of the thread's current scope, for loops that compute without
// waiting: kCancelled or kDeadlineExceeded once it is cancelled, OK until then
// and where there is no scope. Takes no lock; a few nanoseconds.
inline absl::Status CheckCancelled() {
  return internal::ScopeState::CheckCurrent();
}

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
