// The state behind a BlockingQueue: its items, the threads that wait at either
// end, and a lock for each end.
//
// Any thread may call the members of BlockingQueue, and destroy the state once
// no thread is inside it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_QUEUE_STATE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_QUEUE_STATE_H_

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/fifo.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/short_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/waiter_list.h"

namespace tocsin::inline v0_2::internal {

template <typename T>
class QueueState {
 public:
  explicit QueueState(size_t capacity) : capacity_(capacity) {}
  QueueState(const QueueState&) = delete;
  QueueState& operator=(const QueueState&) = delete;

  absl::Status Push(T& item);
  absl::Status TryPush(T& item);
  absl::StatusOr<T> Pop();
  absl::StatusOr<T> TryPop();
  void Close();
  bool closed() const;
  size_t size() const;

 private:
  // Waiters live on the stacks of their threads. A Popper leaves its list once
  // it has an item, a Pusher once its item is taken, and either once the queue
  // is closed. While Poppers wait there is no item, and while Pushers wait
  // there is no room.
  struct Popper {
    std::optional<T> item;
    bool refused = false;
    Sleeper sleeper{"Pop()"};
    Popper* next = nullptr;
    Popper* previous = nullptr;
  };
  struct Pusher {
    explicit Pusher(T& pushed) : item(&pushed) {}

    T* const item;
    bool taken = false;
    bool refused = false;
    Sleeper sleeper{"Push()"};
    Pusher* next = nullptr;
    Pusher* previous = nullptr;
  };

  static absl::Status Closed() {
    return absl::OutOfRangeError("the queue is closed");
  }
  static absl::Status Drained() {
    return absl::OutOfRangeError("the queue is closed and drained");
  }

  // An everyday answer: without a text, it needs no memory.
  static absl::Status NotNow() {
    return absl::Status(absl::StatusCode::kUnavailable, "");
  }

  // Holds both locks.
  class ABSL_SCOPED_LOCKABLE BothEnds {
   public:
    explicit BothEnds(QueueState& queue)
        ABSL_EXCLUSIVE_LOCK_FUNCTION(queue.back_lock_, queue.front_lock_)
        : queue_(queue) {
      queue_.back_lock_.Lock();
      queue_.front_lock_.Lock();
    }
    BothEnds(const BothEnds&) = delete;
    BothEnds& operator=(const BothEnds&) = delete;
    ~BothEnds() ABSL_UNLOCK_FUNCTION() {
      const bool disturbed = queue_.closed_ || !queue_.poppers_.empty() ||
                             !queue_.pushers_.empty();
      queue_.apart_.store(!disturbed, std::memory_order_relaxed);
      queue_.front_lock_.Unlock();
      queue_.back_lock_.Unlock();
    }

   private:
    QueueState& queue_;
  };

  // With the lock of one end alone, if that suffices.
  bool PushAtBack(T& item) {
    MutexLock lock(back_lock_);
    if (!apart_.load(std::memory_order_relaxed)) return false;
    if (!items_.HasRoom(capacity_)) return false;
    items_.Push(std::move(item));
    return true;
  }
  bool MayPopAtFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(front_lock_) {
    return apart_.load(std::memory_order_relaxed) && items_.HasItem();
  }

  bool Put(T& item, PendingWake& wake)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(back_lock_, front_lock_);
  std::optional<T> Take(PendingWake& wake)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(back_lock_, front_lock_);
  absl::Status PushWaiting(T& item);
  absl::StatusOr<T> PopWaiting();

  // Yields until another look is worthwhile, but for no longer than it takes to
  // fall asleep and be woken.
  template <typename Predicate>
  static void Linger(Predicate worthwhile) {
    const auto start = std::chrono::steady_clock::now();
    do {
      sched_yield();
    } while (!worthwhile() && std::chrono::steady_clock::now() - start <
                                  std::chrono::microseconds(50));
  }

  // While the queue is open and no thread waits, producers need only the lock
  // of the back, and consumers only that of the front. All else needs both. So
  // `apart_`, which tells the two cases apart, can be read with either lock: no
  // thread begins to wait between a producer's read of it and the end of the
  // push, and a thread that begins later finds the item.
  const size_t capacity_;
  std::atomic<bool> apart_{true};
  bool closed_ ABSL_GUARDED_BY(back_lock_) ABSL_GUARDED_BY(front_lock_) = false;
  WaiterList<Popper> poppers_ ABSL_GUARDED_BY(back_lock_)
      ABSL_GUARDED_BY(front_lock_);
  WaiterList<Pusher> pushers_ ABSL_GUARDED_BY(back_lock_)
      ABSL_GUARDED_BY(front_lock_);
  Fifo<T> items_;  // each end by its lock
  alignas(64) ShortLock back_lock_;
  alignas(64) mutable ShortLock front_lock_;
};

template <typename T>
bool QueueState<T>::Put(T& item, PendingWake& wake) {
  if (closed_) return false;
  if (Popper* popper = poppers_.first()) {
    popper->item.emplace(std::move(item));
    poppers_.Remove(*popper);
    wake.Set(popper->sleeper);
    return true;
  }
  if (!items_.HasRoom(capacity_)) return false;
  items_.Push(std::move(item));
  return true;
}

template <typename T>
std::optional<T> QueueState<T>::Take(PendingWake& wake) {
  std::optional<T> item;
  Pusher* const pusher = pushers_.first();
  if (items_.HasItem()) {
    // The push comes first, because it may run out of memory.
    if (pusher != nullptr) items_.Push(std::move(*pusher->item));
    item.emplace(items_.Pop());
  } else if (pusher != nullptr) {  // a queue without capacity
    item.emplace(std::move(*pusher->item));
  }
  if (pusher != nullptr) {
    pusher->taken = true;
    pushers_.Remove(*pusher);
    wake.Set(pusher->sleeper);
  }
  return item;
}

template <typename T>
absl::Status QueueState<T>::Push(T& item) {
  if (absl::Status s = ScopeState::CheckCurrent(); !s.ok()) return s;
  if (PushAtBack(item)) return absl::OkStatus();
  {
    PendingWake wake;
    BothEnds lock(*this);
    if (Put(item, wake)) return absl::OkStatus();
    if (closed_) return Closed();
  }
  Linger([this] { return items_.size() < capacity_; });
  return PushWaiting(item);
}

template <typename T>
absl::Status QueueState<T>::PushWaiting(T& item) {
  TOCSIN_STEP("BlockingQueue: about to wait for room");
  Pusher self(item);
  {
    PendingWake wake;
    BothEnds lock(*this);
    if (Put(item, wake)) return absl::OkStatus();
    if (closed_) return Closed();
    pushers_.Append(self);
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("BlockingQueue: wait is over");
    BothEnds lock(*this);
    if (self.taken) return absl::OkStatus();
    if (self.refused) return Closed();
    if (!status.ok()) {
      pushers_.Remove(self);
      return status;
    }
  }
}

template <typename T>
absl::Status QueueState<T>::TryPush(T& item) {
  if (PushAtBack(item)) return absl::OkStatus();
  PendingWake wake;
  BothEnds lock(*this);
  if (Put(item, wake)) return absl::OkStatus();
  return closed_ ? Closed() : NotNow();
}

template <typename T>
absl::StatusOr<T> QueueState<T>::Pop() {
  if (absl::Status s = ScopeState::CheckCurrent(); !s.ok()) return s;
  {
    MutexLock lock(front_lock_);
    if (MayPopAtFront()) return items_.Pop();
  }
  {
    PendingWake wake;
    BothEnds lock(*this);
    if (std::optional<T> item = Take(wake)) return *std::move(item);
    if (closed_) return Drained();
  }
  Linger([this] { return items_.size() > 0; });
  return PopWaiting();
}

template <typename T>
absl::StatusOr<T> QueueState<T>::PopWaiting() {
  TOCSIN_STEP("BlockingQueue: about to wait for an item");
  Popper self;
  {
    PendingWake wake;
    BothEnds lock(*this);
    if (std::optional<T> item = Take(wake)) return *std::move(item);
    if (closed_) return Drained();
    poppers_.Append(self);
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("BlockingQueue: wait is over");
    BothEnds lock(*this);
    if (self.item.has_value()) return *std::move(self.item);
    if (self.refused) return Drained();
    if (!status.ok()) {
      poppers_.Remove(self);
      return status;
    }
  }
}

template <typename T>
absl::StatusOr<T> QueueState<T>::TryPop() {
  {
    MutexLock lock(front_lock_);
    if (MayPopAtFront()) return items_.Pop();
  }
  PendingWake wake;
  BothEnds lock(*this);
  if (std::optional<T> item = Take(wake)) return *std::move(item);
  return closed_ ? Drained() : NotNow();
}

template <typename T>
void QueueState<T>::Close() {
  while (true) {
    PendingWake wake;
    BothEnds lock(*this);
    closed_ = true;  // no thread begins to wait any more
    if (Popper* popper = poppers_.first()) {
      popper->refused = true;
      poppers_.Remove(*popper);
      wake.Set(popper->sleeper);
    } else if (Pusher* pusher = pushers_.first()) {
      pusher->refused = true;
      pushers_.Remove(*pusher);
      wake.Set(pusher->sleeper);
    } else {
      return;
    }
  }
}

// closed_ is written with both locks held, so either suffices to read it.
template <typename T>
bool QueueState<T>::closed() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  MutexLock lock(front_lock_);
  return closed_;
}

template <typename T>
size_t QueueState<T>::size() const {
  MutexLock lock(front_lock_);
  return items_.size();
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_QUEUE_STATE_H_
