// The state behind a CancelScope: its parent, its deadline and shield, whether
// and why it is cancelled; and the scope that a thread is in.
//
// Any thread may ask whether it is cancelled, without a lock, except where a
// deadline has just passed. Whoever asks why takes scope_tree_mutex, as does
// whoever changes it (scope.h): so what cancels a scope has an order, which is
// the same for all.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_STATE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_STATE_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope_cause.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

// Goes up after every Cancel() and every change of a deadline or a shield.
// While it stands still, a scope without deadlines in reach that was found
// clear stays clear: the check of a scope at any depth compares two numbers
// instead of climbing to the outermost scope.
extern std::atomic<uint64_t> scope_epoch;

// The scope that the thread is in; null if it is in none.
extern constinit thread_local ScopeState* current_scope;

// When a scope cancels itself.
struct Deadline {
  static constexpr int64_t kUnknown = INT64_MIN;

  Deadline() = default;
  explicit Deadline(absl::Duration timeout)
      : set_at(Now()), instant(Add(set_at, timeout)) {}
  explicit Deadline(absl::Time time) {
    if (time == absl::InfiniteFuture()) return;
    set_at = Now();
    wall_ahead = WallAhead();
    instant = FromWallTime(time, wall_ahead);
  }

  Instant set_at{};  // before that it does not pass
  Instant instant = kNever;
  // What the wall clock was ahead by then, if it has been asked: so that a
  // deadline is shown as it was given.
  int64_t wall_ahead = kUnknown;
};

// What a scope keeps out of what is around it.
enum class Shield : uint8_t {
  kNothing,
  kUntilCleanedUp,  // a cancellation, as long as its clean-up may take
  kAll,
};

// How long a clean-up may take. A duration of the clock, so that a scope is
// cheap to make.
using Grace = Instant::duration;
inline constexpr Grace kUnlimited = Grace::max();
Grace ToGrace(absl::Duration duration);

// When a CleanUpScope lets a cancellation in: a little before its grace ends,
// because the code around it has to end in time, too.
Instant EndOfCleanUp(Instant cancelled_at, Grace grace);

class ScopeState {
 public:
  ScopeState(const ScopeState&) = delete;
  ScopeState& operator=(const ScopeState&) = delete;

  // The members of CancelScope, documented there.
  bool cancelled() const {
    return clear_at_.load(std::memory_order_acquire) !=
               scope_epoch.load(std::memory_order_acquire) &&
           LooksCancelled();
  }
  absl::Status status() const ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  absl::Time deadline() const;
  // The same on the library's clock. Inside a CleanUpScope also when its time
  // is over.
  Instant ends() const;

  // Whether `status` is what this scope, or one around it, ended a wait with,
  // or a copy of it.
  bool IsCancellation(const absl::Status& status) const;
  // The same for this scope alone.
  bool Made(const absl::Status& status) const;
  template <typename T>
  bool Made(const absl::StatusOr<T>& result) const {
    return Made(result.status());
  }
  // Whether it is cancelled, and was so before any scope around it.
  bool IsCancelledFirst() const ABSL_LOCKS_EXCLUDED(scope_tree_mutex);

  // What CheckCancelled() returns.
  static absl::Status CheckCurrent() {
    const ScopeState* scope = current_scope;
    return scope == nullptr ? absl::OkStatus() : scope->WaitStatus();
  }
  // What a wait in it returns; OK while the scope is not cancelled.
  absl::Status WaitStatus() const ABSL_LOCKS_EXCLUDED(scope_tree_mutex) {
    return cancelled() ? Why().WaitStatus() : absl::OkStatus();
  }
  // Why it returns that.
  ScopeCause Cause() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // When the clean-up of what is in it will have to end.
  Instant CleanUpEnds() const;

  ScopeState* parent() const { return parent_; }
  ScopeState* OuterInReach() const {
    return shield() == Shield::kNothing ? parent_ : nullptr;
  }

  // Ends the program, because a scope was not destroyed in order of nesting.
  [[noreturn]] static void DieOf(const char* mistake);

 protected:
  friend class DeadlineTimer;
  friend class ScopeTree;
  friend class Sleeper;

  // kLive until it is cancelled itself, then one of the others for good.
  enum class State : uint8_t { kLive, kCancelled, kExpired };

  // This scope, and then those around it whose cancellation reaches it, if only
  // once its clean-up is over.
  class Reach;

  ScopeState(ScopeState* parent, const Deadline& deadline, Shield shield,
             Grace grace)
      : parent_(parent),
        shield_(shield),
        grace_(grace),
        deadline_(deadline.instant),
        cancelled_at_(deadline.set_at),
        wall_ahead_(deadline.wall_ahead),
        clear_at_(deadline.instant != kNever ? 0
                  : parent != nullptr
                      ? parent->clear_at_.load(std::memory_order_acquire)
                      : scope_epoch.load(std::memory_order_acquire)) {}
  // If the scope has joined the tree, its links have been destroyed by then.
  ~ScopeState() {}

  // What cancelled() does where something has changed since it was clear.
  bool LooksCancelled() const ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  ScopeCause Why() const ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // The scope in reach that was cancelled first, this one included; or null.
  const ScopeState* CancelledBy() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // Whether it is cancelled itself, by its deadline if that has passed `now`.
  bool Latch(Instant now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // The time, and at each call a later one: so nothing happens at the same time
  // as what was seen, or happened, before.
  static Instant Tick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // When it was cancelled, or will be by its own deadline.
  Instant CancelledAt() const;
  // When it stops to be kept out by a CleanUpScope.
  Instant CleanedUpAt() const;
  Shield shield() const { return shield_.load(std::memory_order_acquire); }
  absl::Time OwnDeadline() const;

  ScopeState* const parent_;
  std::atomic<Shield> shield_;
  const Grace grace_;  // after its deadline
  mutable std::atomic<State> state_{State::kLive};
  std::atomic<Instant> deadline_;            // its own
  std::atomic<Instant> cancelled_at_;        // kLive: when that was set
  mutable std::atomic<int64_t> wall_ahead_;  // of that; written before it
  mutable std::atomic<uint64_t> clear_at_;   // see scope_epoch
  absl::Status reason_ ABSL_GUARDED_BY(scope_tree_mutex);  // if kCancelled
  // When its shield was lifted last: what that kept out came in then.
  Instant lifted_at_ ABSL_GUARDED_BY(scope_tree_mutex) = Instant::min();
  // The earliest that a Cancel() told.
  std::atomic<Instant> cleaned_up_at_{kNever};
  // No other scope of the process ever has the same. 0 until it is first asked
  // for.
  mutable std::atomic<uint64_t> number_{0};

  mutable std::atomic<bool> attached_{false};  // written under the lock
  union {
    mutable ScopeLinks links_;  // exists once attached_
  };
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_STATE_H_
