#include "tocsin/concurrency/internal/scope_state.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::internal {

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
  return by == nullptr ? absl::OkStatus() : by->Cause();
}

absl::Status ScopeState::WaitStatus() const {
  const ScopeState* by = CancelledBy();
  if (by == nullptr) return absl::OkStatus();
  absl::Status cause = by->Cause();
  if (absl::IsCancelled(cause) ||
      by->state_.load(std::memory_order_acquire) == State::kExpired) {
    return cause;
  }
  return absl::CancelledError(cause.ToString());
}

absl::Status ScopeState::Cause() const {
  if (state_.load(std::memory_order_acquire) == State::kCancelled) {
    return reason_;
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "the deadline of the cancel scope passed: ",
      absl::FormatTime(
          FromNanoseconds(deadline_.load(std::memory_order_relaxed)),
          absl::UTCTimeZone())));
}

absl::Time ScopeState::deadline() const {
  int64_t nearest = kNever;
  for (const ScopeState* s = this; s != nullptr; s = s->OuterInReach()) {
    nearest = std::min(nearest, s->deadline_.load(std::memory_order_acquire));
  }
  return FromNanoseconds(nearest);
}

// A deadline counts from the moment it is seen to have passed, so that a wall
// clock that is set back does not un-cancel a scope.
bool ScopeState::Latched() const {
  if (state_.load(std::memory_order_acquire) != State::kLive) return true;
  const int64_t deadline = deadline_.load(std::memory_order_acquire);
  if (deadline == kNever || deadline > NowInNanoseconds()) return false;
  State live = State::kLive;
  state_.compare_exchange_strong(live, State::kExpired);
  return true;
}

const ScopeState* ScopeState::CancelledBy() const {
  const uint64_t now = scope_epoch.load(std::memory_order_acquire);
  bool timed = false;
  for (const ScopeState* s = this; s != nullptr; s = s->OuterInReach()) {
    if (s->clear_at_.load(std::memory_order_acquire) == now) break;
    if (s->Latched()) return s;
    timed |= s->deadline_.load(std::memory_order_relaxed) != kNever;
  }
  TOCSIN_STEP("CancelScope: found clear");
  if (!timed) clear_at_.store(now, std::memory_order_release);
  return nullptr;
}

}  // namespace tocsin::internal
