// The state behind a CancelScope: its parent, its deadline and shield, whether
// and why it is cancelled; and the scope that a thread is in.
//
// Any thread may read it, without a lock. What changes it is in scope.h.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_STATE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_STATE_H_

#include <atomic>
#include <cstdint>
#include <utility>

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
  explicit Deadline(absl::Duration timeout) : instant(After(timeout)) {}
  explicit Deadline(absl::Time time) {
    if (time == absl::InfiniteFuture()) return;
    wall_ahead = WallAhead();
    instant = FromWallTime(time, wall_ahead);
  }

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
           CancelledBy() != nullptr;
  }
  absl::Status status() const;
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
  bool IsCancelledFirst() const { return CancelledBy() == this; }

  // What CheckCancelled() returns.
  static absl::Status CheckCurrent() {
    const ScopeState* scope = current_scope;
    if (scope == nullptr || !scope->cancelled()) return absl::OkStatus();
    return scope->WaitStatus();
  }
  // What a wait in it returns; OK while the scope is not cancelled.
  absl::Status WaitStatus() const;
  // Why it returns that, if the scope is cancelled.
  ScopeCause WaitCause() const;
  // When the clean-up of what is in it will have to end.
  Instant CleanUpEnds() const;

  ScopeState* parent() const { return parent_; }
  ScopeState* OuterInReach() const {
    return shield() == Shield::kNothing ? parent_ : nullptr;
  }
  bool Latched() const;  // cancelled by itself, its own deadline included

  // Ends the program, because a scope was not destroyed in order of nesting.
  [[noreturn]] static void DieOf(const char* mistake);

 protected:
  friend class DeadlineTimer;
  friend class ScopeTree;
  friend class Sleeper;

  // kLive until the first cause, then one of the others for good. In the late
  // ones, a scope around this one had been cancelled before: that one's reason
  // counts, as long as no shield is between them.
  enum class State : uint8_t {
    kLive,
    kCancelled,
    kExpired,
    kCancelledLate,
    kExpiredLate
  };

  // This scope, and then those around it whose cancellation reaches it, if only
  // once its clean-up is over.
  class Reach;

  ScopeState(ScopeState* parent, const Deadline& deadline, Shield shield,
             Grace grace)
      : parent_(parent),
        shield_(shield),
        grace_(grace),
        deadline_(deadline.instant),
        wall_ahead_(deadline.wall_ahead),
        clear_at_(deadline.instant != kNever ? 0
                  : parent != nullptr
                      ? parent->clear_at_.load(std::memory_order_acquire)
                      : scope_epoch.load(std::memory_order_acquire)) {}
  // If the scope has joined the tree, its links have been destroyed by then.
  ~ScopeState() {}

  // The scope in reach that was cancelled first, this one included; or null.
  const ScopeState* CancelledBy() const;
  bool IsCancelledAround(Instant before) const;
  // When it was cancelled, or will be by its own deadline.
  Instant CancelledAt() const;
  // When it stops to be kept out by a CleanUpScope.
  Instant CleanedUpAt() const;
  Shield shield() const { return shield_.load(std::memory_order_acquire); }
  absl::Time OwnDeadline() const;
  ScopeCause Cause() const;  // of one that is Latched()

  ScopeState* const parent_;
  std::atomic<Shield> shield_;
  const Grace grace_;  // after its deadline
  mutable std::atomic<State> state_{State::kLive};
  std::atomic<Instant> deadline_;            // its own
  mutable std::atomic<int64_t> wall_ahead_;  // of that; written before it
  mutable std::atomic<uint64_t> clear_at_;   // see scope_epoch
  // Written once, before state_ becomes kCancelled or kCancelledLate.
  absl::Status reason_;
  Instant cancelled_at_;
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
