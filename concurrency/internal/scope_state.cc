#include "tocsin/concurrency/internal/scope_state.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "tocsin/concurrency/internal/scope_cause.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

constinit std::atomic<uint64_t> scope_epoch{1};
constinit thread_local ScopeState* current_scope = nullptr;

namespace {

// What a clean-up leaves of its grace to the code around it: a tenth, up to
// this.
constexpr Grace kMostLeft = std::chrono::seconds(1);

}  // namespace

Grace ToGrace(absl::Duration duration) {
  return std::max(Grace(absl::ToInt64Nanoseconds(duration)), Grace::zero());
}

Instant EndOfCleanUp(Instant cancelled_at, Grace grace) {
  if (grace == kUnlimited) return kNever;
  return Add(cancelled_at,
             absl::FromChrono(grace - std::min(grace / 10, kMostLeft)));
}

class ScopeState::Reach {
 public:
  explicit Reach(const ScopeState* scope) : scope_(scope) {}

  explicit operator bool() const { return scope_ != nullptr; }
  const ScopeState* operator->() const { return scope_; }
  const ScopeState* scope() const { return scope_; }
  // Whether a CleanUpScope is between.
  bool late() const { return late_; }
  void Climb() {
    const Shield shield = scope_->shield();
    late_ |= shield == Shield::kUntilCleanedUp;
    scope_ = shield == Shield::kAll ? nullptr : scope_->parent_;
  }

  // When a cancellation of that scope takes effect.
  Instant CancelledAt() const {
    return late_ ? scope_->CleanedUpAt() : scope_->CancelledAt();
  }
  // When something will.
  Instant ends() const {
    return late_ ? scope_->CleanedUpAt()
                 : scope_->deadline_.load(std::memory_order_acquire);
  }

 private:
  const ScopeState* scope_;
  bool late_ = false;
};

void ScopeState::DieOf(const char* mistake) {
  std::fprintf(stderr,
               "tocsin: a CancelScope was destroyed %s. Keep scopes in local "
               "variables and task groups inside the scope they were made in, "
               "so that the inner ones end first.\n",
               mistake);
  std::abort();
}

absl::Status ScopeState::status() const {
  const ScopeState* by = CancelledBy();
  return by == nullptr ? absl::OkStatus() : by->Cause().status();
}

absl::Status ScopeState::WaitStatus() const {
  const ScopeState* by = CancelledBy();
  return by == nullptr ? absl::OkStatus() : by->Cause().WaitStatus();
}

ScopeCause ScopeState::WaitCause() const {
  const ScopeState* by = CancelledBy();
  if (by == nullptr) return ScopeCause();
  ScopeCause cause = by->Cause();
  cause.cleaned_up_at = CleanUpEnds();
  return cause;
}

Instant ScopeState::CleanUpEnds() const {
  Instant nearest = kNever;
  for (Reach s(this); s; s.Climb()) {
    nearest = std::min(nearest, s->CleanedUpAt());
  }
  return nearest;
}

ScopeCause ScopeState::Cause() const {
  ScopeCause cause;
  const State state = state_.load(std::memory_order_acquire);
  if (state == State::kCancelled || state == State::kCancelledLate) {
    cause.reason = reason_;
  } else {
    cause.deadline = OwnDeadline();
  }
  cause.scope = number_.load(std::memory_order_acquire);
  if (cause.scope == 0) {
    static std::atomic<uint64_t> last{0};
    const uint64_t fresh = last.fetch_add(1, std::memory_order_relaxed) + 1;
    if (number_.compare_exchange_strong(cause.scope, fresh)) {
      cause.scope = fresh;
    }
  }
  return cause;
}

bool ScopeState::IsCancellation(const absl::Status& status) const {
  const std::optional<uint64_t> number = ScopeOf(status);
  if (!number.has_value()) return false;
  for (const ScopeState* s = this; s != nullptr; s = s->parent_) {
    if (s->number_.load(std::memory_order_acquire) == *number) return true;
  }
  return false;
}

bool ScopeState::Made(const absl::Status& status) const {
  return ScopeOf(status) == number_.load(std::memory_order_acquire);
}

Instant ScopeState::ends() const {
  Instant nearest = kNever;
  for (Reach s(this); s; s.Climb()) nearest = std::min(nearest, s.ends());
  return nearest;
}

absl::Time ScopeState::deadline() const {
  const Instant nearest = ends();
  for (const ScopeState* s = this; s != nullptr; s = s->OuterInReach()) {
    if (s->deadline_.load(std::memory_order_acquire) == nearest) {
      return s->OwnDeadline();
    }
  }
  return ToWallTime(nearest, WallAhead());  // moved since
}

absl::Time ScopeState::OwnDeadline() const {
  const Instant deadline = deadline_.load(std::memory_order_acquire);
  if (deadline == kNever) return absl::InfiniteFuture();
  int64_t ahead = wall_ahead_.load(std::memory_order_acquire);
  if (ahead == Deadline::kUnknown) {
    const int64_t now = WallAhead();
    if (wall_ahead_.compare_exchange_strong(ahead, now)) ahead = now;
  }
  return ToWallTime(deadline, ahead);
}

// A deadline that was seen to have passed is not moved any more.
bool ScopeState::Latched() const {
  if (state_.load(std::memory_order_acquire) != State::kLive) return true;
  const Instant deadline = deadline_.load(std::memory_order_acquire);
  if (deadline == kNever || deadline > Now()) return false;
  State live = State::kLive;
  state_.compare_exchange_strong(live, IsCancelledAround(deadline)
                                           ? State::kExpiredLate
                                           : State::kExpired);
  return true;
}

// Whether a scope around this one, in reach, was cancelled by the time
// `before`, even if only by a deadline that no thread has seen to pass.
bool ScopeState::IsCancelledAround(Instant before) const {
  Reach s(this);
  for (s.Climb(); s; s.Climb()) {
    if (s.CancelledAt() <= before) return true;
  }
  return false;
}

Instant ScopeState::CancelledAt() const {
  const State state = state_.load(std::memory_order_acquire);
  return state == State::kCancelled || state == State::kCancelledLate
             ? cancelled_at_
             : deadline_.load(std::memory_order_acquire);
}

Instant ScopeState::CleanedUpAt() const {
  const State state = state_.load(std::memory_order_acquire);
  const Instant told = cleaned_up_at_.load(std::memory_order_acquire);
  const Instant deadline = deadline_.load(std::memory_order_acquire);
  if (deadline == kNever || state == State::kCancelled ||
      state == State::kCancelledLate) {
    return told;
  }
  return std::min(told, EndOfCleanUp(deadline, grace_));
}

const ScopeState* ScopeState::CancelledBy() const {
  const uint64_t now = scope_epoch.load(std::memory_order_acquire);
  bool timed = false;
  const ScopeState* late = nullptr;
  Instant late_at = kNever;
  for (Reach s(this); s; s.Climb()) {
    if (s->clear_at_.load(std::memory_order_acquire) == now) break;
    timed |= s->deadline_.load(std::memory_order_relaxed) != kNever;
    if (!s->Latched()) continue;
    const State state = s->state_.load(std::memory_order_acquire);
    if (s.late()) {
      const Instant cleaned_up_at = s->CleanedUpAt();
      timed |= cleaned_up_at != kNever;
      if (cleaned_up_at > Now()) continue;
    } else if (state == State::kCancelled || state == State::kExpired) {
      return s.scope();
    }
    if (s.CancelledAt() <= late_at) {
      late = s.scope();
      late_at = s.CancelledAt();
    }
  }
  if (late != nullptr) return late;
  TOCSIN_STEP("CancelScope: found clear");
  if (!timed) clear_at_.store(now, std::memory_order_release);
  return nullptr;
}

}  // namespace tocsin::inline v0_2::internal
