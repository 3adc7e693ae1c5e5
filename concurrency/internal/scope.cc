#include "tocsin/concurrency/internal/scope.h"

#include <atomic>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::internal {

void Scope::Adopt(std::stop_token stop) {
  if (stop.stop_possible()) {
    adopted_.emplace(std::move(stop), RequestCancel{this});
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
  // Whoever joined it to the tree has left it again, and nobody can any more.
  if (attached_.load(std::memory_order_acquire)) ScopeTree::Detach(*this);
}

void Scope::RequestCancel::operator()() const {
  scope->Cancel(absl::CancelledError("stop was requested"));
}

void Scope::Cancel(absl::Status reason) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (Latched()) return;
  reason_ = reason.ok() ? absl::CancelledError() : std::move(reason);
  State live = State::kLive;
  if (!state_.compare_exchange_strong(live, State::kCancelled)) return;
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void Scope::set_deadline(absl::Time deadline) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (Latched()) return;
  deadline_.store(ToNanoseconds(deadline), std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void Scope::set_shield(bool shield) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  shield_.store(shield, std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void ScopeEntry::DieOfOrder() {
  ScopeState::DieOf("after the scope around it was left");
}

}  // namespace tocsin::internal
