// A list of waiters, and their wake-ups, which are made once the lock that
// guards the list is released.
//
// Any thread that holds that lock, which is the owner's, may use the list.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WAITER_LIST_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WAITER_LIST_H_

#include <atomic>
#include <cstdint>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"

namespace tocsin::inline v0_2::internal {

// Waiters in the order they came. A waiter lives on the stack of its thread and
// has the members `Waiter* next` and `Waiter* previous`, null unless it is in a
// list. The owner's lock guards the list and the waiters in it.
template <typename Waiter>
class WaiterList {
 public:
  bool empty() const { return first_ == nullptr; }
  Waiter* first() const { return first_; }

  void Append(Waiter& waiter) {
    waiter.previous = last_;
    (last_ != nullptr ? last_->next : first_) = &waiter;
    last_ = &waiter;
  }

  void Remove(Waiter& waiter) {
    (waiter.previous != nullptr ? waiter.previous->next : first_) = waiter.next;
    (waiter.next != nullptr ? waiter.next->previous : last_) = waiter.previous;
    waiter.next = waiter.previous = nullptr;
  }

 private:
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

// The system call that wakes a sleeper, made when this goes out of scope:
// declare it before the lock that keeps the sleeper alive.
class PendingWake {
 public:
  PendingWake() = default;
  PendingWake(const PendingWake&) = delete;
  PendingWake& operator=(const PendingWake&) = delete;
  ~PendingWake() {
    if (asleep_ != nullptr) FutexWakeOne(asleep_);
  }

  void Set(Sleeper& sleeper) { asleep_ = sleeper.WakeLater(); }

 private:
  const std::atomic<uint32_t>* asleep_ = nullptr;
};

// The system calls that wake any number of sleepers, made when this goes out of
// scope: declare it before the lock that keeps the sleepers alive.
class PendingWakes {
 public:
  PendingWakes() = default;
  PendingWakes(const PendingWakes&) = delete;
  PendingWakes& operator=(const PendingWakes&) = delete;

  void Add(Sleeper& sleeper) { asleep_.Add(sleeper.WakeLater()); }

 private:
  FutexWakes asleep_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WAITER_LIST_H_
