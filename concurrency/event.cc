#include "tocsin/concurrency/event.h"

#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin {

using internal::MutexLock;

struct Event::Waiter {
  internal::Sleeper sleeper;
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

// Lets the Set() that made is_set() true get out of the lock.
Event::~Event() { MutexLock lock(mutex_); }

void Event::Set() {
  internal::PendingWakes wakes;
  MutexLock lock(mutex_);
  set_.store(true, std::memory_order_release);
  TOCSIN_STEP("Event: is set");
  while (Waiter* waiter = waiters_.first()) {
    waiters_.Remove(*waiter);
    wakes.Add(waiter->sleeper);
  }
}

absl::Status Event::Wait() {
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  if (is_set()) return absl::OkStatus();
  TOCSIN_STEP("Event: about to wait");
  Waiter self;
  {
    MutexLock lock(mutex_);
    if (is_set()) return absl::OkStatus();
    waiters_.Append(self);
    TOCSIN_STEP("Event: in the list");
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("Event: wait is over");
    MutexLock lock(mutex_);
    if (is_set()) return absl::OkStatus();
    if (!status.ok()) {
      waiters_.Remove(self);
      return status;
    }
  }
}

}  // namespace tocsin
