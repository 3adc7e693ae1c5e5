#include "tocsin/concurrency/event.h"

#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/waiter_list.h"

namespace tocsin::inline v0_2 {

using internal::MutexLock;

struct Event::Waiter {
  internal::Sleeper sleeper{"Event::Wait()"};
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

// Waits until the Set() that made is_set() true has released the lock.
Event::~Event() { MutexLock lock(queue_.mutex); }

void Event::Set() {
  internal::PendingWakes wakes;
  MutexLock lock(queue_.mutex);
  set_.store(true, std::memory_order_release);
  TOCSIN_STEP("Event: is set");
  while (Waiter* waiter = queue_.waiters.first()) {
    queue_.waiters.Remove(*waiter);
    wakes.Add(waiter->sleeper);
  }
}

absl::Status Event::Wait() {
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  if (is_set()) return absl::OkStatus();
  TOCSIN_STEP("Event: about to wait");
  Waiter self;
  {
    MutexLock lock(queue_.mutex);
    if (is_set()) return absl::OkStatus();
    queue_.waiters.Append(self);
    TOCSIN_STEP("Event: in the list");
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("Event: wait is over");
    MutexLock lock(queue_.mutex);
    if (is_set()) return absl::OkStatus();
    if (!status.ok()) {
      queue_.waiters.Remove(self);
      return status;
    }
  }
}

}  // namespace tocsin::inline v0_2
