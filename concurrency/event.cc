#include "tocsin/concurrency/event.h"

#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"

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
  while (Waiter* waiter = waiters_.first()) {
    waiters_.Remove(*waiter);
    wakes.Add(waiter->sleeper);
  }
}

absl::Status Event::Wait() {
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  if (is_set()) return absl::OkStatus();
  Waiter self;
  {
    MutexLock lock(mutex_);
    if (is_set()) return absl::OkStatus();
    waiters_.Append(self);
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    MutexLock lock(mutex_);
    if (is_set()) return absl::OkStatus();
    if (!status.ok()) {
      waiters_.Remove(self);
      return status;
    }
  }
}

}  // namespace tocsin
