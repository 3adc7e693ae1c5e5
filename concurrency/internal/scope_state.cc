#include "tocsin/concurrency/internal/scope_state.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_cause.h"
#include "tocsin/concurrency/internal/scope_links.h"
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
  return cancelled() ? Why().status() : absl::OkStatus();
}

bool ScopeState::IsCancelledFirst() const {
  if (!cancelled()) return false;
  MutexLock lock(scope_tree_mutex);
  return CancelledBy() == this;
}

ScopeCause ScopeState::Why() const {
  MutexLock lock(scope_tree_mutex);
  return Cause();
}

ScopeCause ScopeState::Cause() const {
  const ScopeState* const by = CancelledBy();
  if (by == nullptr) return ScopeCause();
  ScopeCause cause;
  if (by->state_.load(std::memory_order_relaxed) == State::kCancelled) {
    cause.reason = by->reason_;
  } else {
    cause.deadline = by->OwnDeadline();
  }
  cause.scope = by->number_.load(std::memory_order_relaxed);
  if (cause.scope == 0) {
    static uint64_t last = 0;  // guarded by scope_tree_mutex
    cause.scope = ++last;
    by->number_.store(cause.scope, std::memory_order_release);
  }
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

Instant ScopeState::Tick() {
  static Instant last;  // guarded by scope_tree_mutex
  return last = std::max(Now(), last + Instant::duration(1));
}

bool ScopeState::Latch(Instant now) const {
  if (state_.load(std::memory_order_relaxed) != State::kLive) return true;
  if (deadline_.load(std::memory_order_relaxed) > now) return false;
  state_.store(State::kExpired, std::memory_order_release);
  return true;
}

Instant ScopeState::CancelledAt() const {
  const Instant at = cancelled_at_.load(std::memory_order_acquire);
  if (state_.load(std::memory_order_acquire) == State::kCancelled) return at;
  return std::max(at, deadline_.load(std::memory_order_acquire));
}

Instant ScopeState::CleanedUpAt() const {
  const Instant told = cleaned_up_at_.load(std::memory_order_acquire);
  if (state_.load(std::memory_order_acquire) == State::kCancelled) return told;
  return std::min(told, EndOfCleanUp(CancelledAt(), grace_));
}

bool ScopeState::LooksCancelled() const {
  const uint64_t epoch = scope_epoch.load(std::memory_order_acquire);
  bool timed = false;
  for (Reach s(this); s; s.Climb()) {
    if (s->clear_at_.load(std::memory_order_acquire) == epoch) break;
    const Instant deadline = s->deadline_.load(std::memory_order_acquire);
    timed |= deadline != kNever;
    if (s->state_.load(std::memory_order_acquire) == State::kLive) {
      if (deadline > Now()) continue;
      MutexLock lock(scope_tree_mutex);
      return CancelledBy() != nullptr;
    }
    if (!s.late()) return true;
    const Instant cleaned_up_at = s->CleanedUpAt();
    timed |= cleaned_up_at != kNever;
    if (cleaned_up_at <= Now()) return true;
  }
  TOCSIN_STEP("CancelScope: found clear");
  if (!timed) clear_at_.store(epoch, std::memory_order_release);
  return false;
}

// Of two at the same time, the outer one.
const ScopeState* ScopeState::CancelledBy() const {
  const Instant now = Tick();
  const ScopeState* first = nullptr;
  Instant first_at = now;
  Instant lifted_at = Instant::min();
  for (Reach s(this); s; s.Climb()) {
    if (s->Latch(now)) {
      const Instant at = std::max(s.CancelledAt(), lifted_at);
      if (at <= first_at) {
        first = s.scope();
        first_at = at;
      }
    }
    lifted_at = std::max(lifted_at, s->lifted_at_);
  }
  return first;
}

}  // namespace tocsin::inline v0_2::internal
