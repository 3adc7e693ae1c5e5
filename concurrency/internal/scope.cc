#include "tocsin/concurrency/internal/scope.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

void Scope::Adopt(const std::stop_token& stop) {
  if (stop.stop_possible()) {
    adopted_.emplace(stop, RequestCancel{this, stop});
  }
}

void Scope::Leave() {
  adopted_.reset();  // waits for the Cancel() it may be running
  if (entered_) {
    if (current_scope != this) {
      DieOf("out of order or on another thread than the one that made it");
    }
    current_scope = parent_;
  }
  // No thread uses the scope any more, so none can add it to the tree now.
  if (attached_.load(std::memory_order_acquire)) ScopeTree::Detach(*this);
}

void Scope::RequestCancel::operator()() const { scope->CancelAs(token); }

void Scope::CancelUntil(absl::Status reason, Instant clean_up_ends) {
  Cancel(std::move(reason), Now(), clean_up_ends);
}

void Scope::CancelAs(const std::stop_token& token) {
  ScopeTree::Reason reason = ScopeTree::ReasonOf(token);
  CancelUntil(std::move(reason.status), reason.cleaned_up_at);
}

void Scope::Cancel(absl::Status reason) {
  if (Latched()) return;
  const Instant now = Now();
  Cancel(std::move(reason), now, EndOfCleanUp(now, grace_));
}

void Scope::Cancel(absl::Status reason, absl::Duration grace) {
  const Instant now = Now();
  Cancel(std::move(reason), now, EndOfCleanUp(now, ToGrace(grace)));
}

void Scope::Cancel(absl::Status reason, Instant at, Instant cleaned_up_at) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (cleaned_up_at < cleaned_up_at_.load(std::memory_order_relaxed)) {
    cleaned_up_at_.store(cleaned_up_at, std::memory_order_release);
  } else if (Latched()) {
    return;
  }
  Latch(std::move(reason), at);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void Scope::Latch(absl::Status reason, Instant at) {
  if (Latched()) return;
  reason_ = reason.ok() ? absl::CancelledError() : std::move(reason);
  cancelled_at_ = at;
  const ScopeState* const outer = OuterInReach();
  const bool late = outer != nullptr && outer->cancelled();
  State live = State::kLive;
  state_.compare_exchange_strong(
      live, late ? State::kCancelledLate : State::kCancelled);
}

void Scope::set_deadline(const Deadline& deadline) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (Latched()) return;
  wall_ahead_.store(deadline.wall_ahead, std::memory_order_release);
  deadline_.store(deadline.instant, std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void Scope::set_shield(Shield shield) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  shield_.store(shield, std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

absl::Status Scope::NotDoneWithin(absl::Duration timeout) {
  return absl::DeadlineExceededError(
      absl::StrCat("not done within ", absl::FormatDuration(timeout)));
}

void ScopeEntry::DieOfOrder() {
  ScopeState::DieOf("after the scope around it was left");
}

}  // namespace tocsin::inline v0_2::internal
