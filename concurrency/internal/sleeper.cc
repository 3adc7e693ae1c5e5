#include "tocsin/concurrency/internal/sleeper.h"

#include <algorithm>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wait_note.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin::inline v0_2::internal {

Sleeper::Sleeper(const char* name, Instant timeout, BlockingCall* call)
    : Wakeable(call, false),
      wait_{.call = name},
      scope_(current_scope),
      timeout_(timeout) {}

Sleeper::Sleeper(const Wait& wait, Unscoped, Instant timeout)
    : Wakeable(nullptr, false),
      wait_(wait),
      scope_(nullptr),
      timeout_(timeout) {}

Sleeper::Sleeper(const char* name, Instant timeout, WithOthers)
    : Wakeable(nullptr, current_scope != nullptr),
      wait_{.call = name},
      scope_(current_scope),
      timeout_(timeout) {}

const Wait& Sleeper::WaitSince() {
  if (wait_.since == Instant()) wait_.since = Now();
  return wait_;
}

void Sleeper::Join() {
  if (joined_in_ == scope_generation || scope_ == nullptr) return;
  joined_in_ = scope_generation;
  ScopeTree::Enter(*scope_, *this);
}

absl::Status Sleeper::Sleep(uint32_t how) {
  // Joins the tree before it looks at the scope: a thread that cancels it after
  // the look finds this sleeper and wakes it.
  Join();
  const uint32_t wake_ups =
      with_others_ ? scope_->links_.wake_ups.load(std::memory_order_acquire)
                   : 0;
  Instant until = timeout_;
  if (scope_ != nullptr) {
    if (absl::Status status = scope_->WaitStatus(); !status.ok()) return status;
    TOCSIN_STEP("Sleeper: found its scope clear");
    until = std::min(until, scope_->ends());
  }
  if (timeout_ != kNever && timeout_ <= Now()) {
    return absl::DeadlineExceededError("the timeout of the call passed");
  }
  if (with_others_) {
    const NotedWait noted(WaitSince());
    SlotRelease release;
    FutexWait(scope_->links_.wake_ups, wake_ups, until);
    return absl::OkStatus();
  }
  uint32_t awake = kAwake;
  if (word_.compare_exchange_strong(awake, how, std::memory_order_acq_rel)) {
    TOCSIN_STEP("Sleeper: about to sleep");
    const NotedWait noted(WaitSince());
    SlotRelease release;
    if (how == kAsleep) {
      FutexWait(word_, kAsleep, until);
    } else {
      call_->Block(*this, until);
    }
  }
  word_.exchange(kAwake, std::memory_order_acq_rel);
  return absl::OkStatus();
}

}  // namespace tocsin::inline v0_2::internal
