// The threads that sleep in the wait for the end of a group, and, in a group
// with a limit, for the turn of one of its tasks.
//
// The end wakes them all, and each task that is added wakes one. The lock of
// the group's home shard guards all members except AnyToRouse(), which any
// thread may call without it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_GROUP_WAITERS_H_
#define TOCSIN_CONCURRENCY_INTERNAL_GROUP_WAITERS_H_

#include <atomic>
#include <cstdint>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"

namespace tocsin::inline v0_2::internal {

// Threads to be woken once a shard's lock is released.
using WakeUps = FutexWakes;

class GroupWaiters {
 public:
  // On the stack of the thread that sleeps.
  struct Waiter {
    Sleeper& sleeper;
    bool roused = false;  // for a task that was added
    Waiter* next = nullptr;
  };

  bool empty() const { return waiters_ == nullptr; }
  // Whether a thread sleeps that no added task has roused. A thread that adds a
  // task calls this afterwards, and one that sleeps looks for tasks after
  // Enter(): one sees the other.
  bool AnyToRouse() const { return sleeping_.load() != 0; }

  void Enter(Waiter& waiter);
  void Leave(Waiter& waiter);

  // Wakes a thread that no task has roused, for another task. The caller passes
  // the result, if not null, to FutexWakeOne() once the lock is released.
  const std::atomic<uint32_t>* Rouse();
  void WakeAll(WakeUps& wake_ups);

 private:
  std::atomic<int> sleeping_{0};  // the waiters that are not roused
  Waiter* waiters_ = nullptr;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_GROUP_WAITERS_H_
