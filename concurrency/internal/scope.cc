#include "tocsin/concurrency/internal/scope.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/made_group.h"
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
      MadeGroup::DieOfLeaving(
          *this, "out of order or on another thread than the one that made it");
    }
    if (last_made_group != made_before_) MadeGroup::CheckNoneIn(*this);
    current_scope = parent_;
  }
  // No thread uses the scope any more, so none can add it to the tree now.
  if (attached_.load(std::memory_order_acquire)) ScopeTree::Detach(*this);
}

void Scope::RequestCancel::operator()() const {
  TOCSIN_STEP("CancelScope: its stop token is requested");
  scope->CancelAs(token);
}

void Scope::CancelAs(const std::stop_token& token) {
  const ScopeCause cause = ScopeTree::CauseOf(token);
  CancelUntil(cause.exists() ? cause.WaitStatus()
                             : absl::CancelledError("stop was requested"),
              cause.cleaned_up_at);
}

void Scope::Cancel(absl::Status reason) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  const Instant now = Tick();
  if (Latch(now)) return;
  Cancel(std::move(reason), now, EndOfCleanUp(now, grace_), wake_ups);
}

void Scope::Cancel(absl::Status reason, absl::Duration grace) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  const Instant now = Tick();
  Cancel(std::move(reason), now, EndOfCleanUp(now, ToGrace(grace)), wake_ups);
}

void Scope::CancelUntil(absl::Status reason, Instant clean_up_ends) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  const Instant now = Tick();
  Cancel(std::move(reason), now, std::max(now, clean_up_ends), wake_ups);
}

void Scope::Cancel(absl::Status reason, Instant now, Instant cleaned_up_at,
                   ScopeWakeUps& wake_ups) {
  const bool in_tree = InTree();
  const bool was_cancelled = Latch(now);
  if (cleaned_up_at < cleaned_up_at_.load(std::memory_order_relaxed)) {
    cleaned_up_at_.store(cleaned_up_at, std::memory_order_release);
  } else if (was_cancelled) {
    return;
  }
  if (!was_cancelled) {
    reason_ = reason.ok() ? absl::CancelledError() : std::move(reason);
    cancelled_at_.store(now, std::memory_order_release);
    state_.store(State::kCancelled, std::memory_order_release);
  }
  TellOfChange(in_tree, wake_ups);
}

void Scope::TellOfChange(bool in_tree, ScopeWakeUps& wake_ups) {
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  if (in_tree) ScopeTree::CollectWakeUps(*this, wake_ups);
}

void Scope::set_deadline(const Deadline& deadline) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  const bool in_tree = InTree();
  const Instant now = Tick();
  if (Latch(now)) return;
  TOCSIN_STEP("CancelScope: about to move its deadline");
  wall_ahead_.store(deadline.wall_ahead, std::memory_order_release);
  cancelled_at_.store(now, std::memory_order_release);
  deadline_.store(deadline.instant, std::memory_order_release);
  TellOfChange(in_tree, wake_ups);
}

void Scope::set_shield(Shield shield) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  const bool in_tree = InTree();
  const Shield was = shield_.load(std::memory_order_relaxed);
  if (was == Shield::kAll && shield != was) lifted_at_ = Tick();
  shield_.store(shield, std::memory_order_release);
  TellOfChange(in_tree, wake_ups);
}

absl::Status Scope::NotDoneWithin(absl::Duration timeout) {
  return absl::DeadlineExceededError(
      absl::StrCat("not done within ", absl::FormatDuration(timeout)));
}

void ScopeEntry::DieOfOrder() const {
  MadeGroup::DieOfLeaving(*scope_, "after the scope around it was left");
}

}  // namespace tocsin::inline v0_2::internal
