#include "tocsin/concurrency/internal/deadline_timer.h"

#include <pthread.h>

#include <memory>

#include "tocsin/concurrency/internal/birth_state.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

DeadlineTimer& DeadlineTimer::Get() {
  static DeadlineTimer& timer = *new DeadlineTimer;
  return timer;
}

void DeadlineTimer::Set(const ScopeState* scope, Instant time) {
  if (scope->links_.timer == time && (running_ || time == kNever)) return;
  if (time != kNever) alarms_.insert({time, scope});
  if (scope->links_.timer != kNever && scope->links_.timer != time) {
    alarms_.erase({scope->links_.timer, scope});
  }
  scope->links_.timer = time;
  if (time == kNever) {
    if (bound_ && alarms_.empty()) Ring();
    return;
  }
  if (!running_) {
    pthread_t thread;
    // If the system refuses the thread, the next call tries again.
    running_ =
        StartThread<&DeadlineTimer::Run, "tocsin-timer">(thread, this) == 0;
    if (running_) pthread_detach(thread);
  } else if (alarms_.begin()->second == scope) {
    Ring();
  }
}

void DeadlineTimer::Ring() {
  changes_.fetch_add(1, std::memory_order_release);
  FutexWakeOne(&changes_);
}

void DeadlineTimer::ForgetAll() {
  alarms_.clear();
  running_ = false;
}

void DeadlineTimer::Run() {
  bound_ = FindBond() != Bond::kNone;
  while (true) {
    const uint32_t changes = changes_.load(std::memory_order_acquire);
    Instant next = kNever;
    std::unique_ptr<StopRequest> due;
    {
      MutexLock lock(scope_tree_mutex);
      if (alarms_.empty()) {
        if (bound_) {
          running_ = false;
          return;
        }
      } else {
        const auto [time, scope] = *alarms_.begin();
        ScopeCause cause = time <= Now() ? scope->Cause() : ScopeCause();
        if (cause.exists()) {
          alarms_.erase(alarms_.begin());
          scope->links_.timer = kNever;
          due = std::move(scope->links_.request);
          due->cause = std::move(cause);
        } else {
          next = time;
        }
      }
    }
    TOCSIN_STEP("DeadlineTimer: has looked at its alarms");
    if (due != nullptr) {
      due->Make();
    } else {
      FutexWait(changes_, changes, next);
    }
  }
}

}  // namespace tocsin::inline v0_2::internal
