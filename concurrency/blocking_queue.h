// A closable first-in, first-out queue between threads.
//
// Any member may be called from any thread, by any number of producers and
// consumers at once; destroy the queue only once no thread is inside it.
//
//   BlockingQueue<Job> jobs(100);
//   // Producers:
//   if (absl::Status status = jobs.Push(std::move(job)); !status.ok()) ...
//   jobs.Close();  // no more
//   // Consumers:
//   for (Job& job : jobs) Run(job);  // ends once closed and drained
//
// Every item pushed is popped once or still there. A Pop() that is cancelled or
// runs into a deadline takes nothing; one that was given an item in the same
// moment returns the item. A Push() that fails leaves its argument as it was.
// Those who wait are served in the order they came, and an item that a waiting
// Pop() was given cannot be taken by another.
//
// Both observe the thread's cancel scope: kCancelled or kDeadlineExceeded, at
// once if the scope had ended before the call, though there be an item or room.
// Give the scope a deadline for a Pop() with a timeout.
//
// The move constructor of T, and the destructor of a T moved from, run under
// the queue's lock: they must not throw, nor use the queue. Items left over are
// destroyed with the queue.
#ifndef TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_
#define TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/fifo.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/short_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/waiter_list.h"

namespace tocsin {
namespace internal {

template <typename T>
class QueueState {
 public:
  explicit QueueState(size_t capacity) : capacity_(capacity) {}
  QueueState(const QueueState&) = delete;
  QueueState& operator=(const QueueState&) = delete;

  absl::Status Push(T& item);
  bool TryPush(T& item);
  absl::StatusOr<T> Pop();
  std::optional<T> TryPop();
  void Close();
  size_t size() const;

 private:
  // Those who wait live on the stacks of their threads. A Popper is out of the
  // list once it has an item, a Pusher once its item is taken, and either once
  // the queue is closed. While Poppers wait there is no item, and while Pushers
  // wait no room.
  struct Popper {
    std::optional<T> item;
    bool refused = false;
    Sleeper sleeper;
    Popper* next = nullptr;
    Popper* previous = nullptr;
  };
  struct Pusher {
    explicit Pusher(T& pushed) : item(&pushed) {}

    T* const item;
    bool taken = false;
    bool refused = false;
    Sleeper sleeper;
    Pusher* next = nullptr;
    Pusher* previous = nullptr;
  };

  static absl::Status Closed() {
    return absl::FailedPreconditionError("the queue is closed");
  }
  static absl::Status Drained() {
    return absl::OutOfRangeError("the queue is closed and drained");
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

  // With the lock of one end alone, where that suffices.
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

  // Yields until another look is worthwhile, or falling asleep and being woken
  // would hardly take longer.
  template <typename Predicate>
  static void Linger(Predicate worthwhile) {
    const auto start = std::chrono::steady_clock::now();
    do {
      sched_yield();
    } while (!worthwhile() && std::chrono::steady_clock::now() - start <
                                  std::chrono::microseconds(50));
  }

  // As long as the queue is open and nobody waits, producers need the lock of
  // the back alone and consumers that of the front. All else is done with both
  // held. So `apart_`, which says which of the two it is, can be read with
  // either: nobody begins to wait between a producer's look at it and the end
  // of his push, and who begins later finds the item.
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
    // First what can fail for want of memory.
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
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
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
bool QueueState<T>::TryPush(T& item) {
  if (PushAtBack(item)) return true;
  PendingWake wake;
  BothEnds lock(*this);
  return Put(item, wake);
}

template <typename T>
absl::StatusOr<T> QueueState<T>::Pop() {
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
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
std::optional<T> QueueState<T>::TryPop() {
  {
    MutexLock lock(front_lock_);
    if (MayPopAtFront()) return items_.Pop();
  }
  PendingWake wake;
  BothEnds lock(*this);
  return Take(wake);
}

template <typename T>
void QueueState<T>::Close() {
  while (true) {
    PendingWake wake;
    BothEnds lock(*this);
    closed_ = true;  // nobody joins those who wait any more
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

template <typename T>
size_t QueueState<T>::size() const {
  MutexLock lock(front_lock_);
  return items_.size();
}

}  // namespace internal

template <typename T>
class BlockingQueue {
 public:
  class Iterator;

  static constexpr size_t kUnbounded = static_cast<size_t>(-1);

  // Holds up to `capacity` items. With none, a Push() waits for the Pop() that
  // takes its item.
  explicit BlockingQueue(size_t capacity = kUnbounded) : state_(capacity) {}
  BlockingQueue(const BlockingQueue&) = delete;
  BlockingQueue& operator=(const BlockingQueue&) = delete;

  // Blocks while the queue is full. kFailedPrecondition once it is closed, also
  // for those who wait then.
  absl::Status Push(T&& item) { return state_.Push(item); }
  absl::Status Push(const T& item) { return Push(T(item)); }

  // False, and the item left as it was, if the queue is full or closed.
  bool TryPush(T&& item) { return state_.TryPush(item); }
  bool TryPush(const T& item) { return TryPush(T(item)); }

  // Blocks while the queue is empty. kOutOfRange once it is closed and drained.
  absl::StatusOr<T> Pop() { return state_.Pop(); }

  // Nothing if the queue is empty.
  std::optional<T> TryPop() { return state_.TryPop(); }

  // Refuses all further pushes; what is in the queue can still be popped. Again
  // does nothing.
  void Close() { state_.Close(); }

  // The number of items in the queue. One of a Push() that waits is not yet.
  size_t size() const { return state_.size(); }

  // Blocking iteration, by several threads at once too: each item goes to one
  // of them. It ends when Pop() fails: closed and drained, or the thread's
  // scope has ended, which CheckCancelled() tells.
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  internal::QueueState<T> state_;
};

// Holds the item it stands at.
template <typename T>
class BlockingQueue<T>::Iterator {
 public:
  using value_type = T;
  using difference_type = std::ptrdiff_t;

  explicit Iterator(BlockingQueue* queue) : queue_(queue) { ++*this; }

  T& operator*() const { return *item_; }
  Iterator& operator++() {
    item_.reset();
    absl::StatusOr<T> item = queue_->Pop();
    if (item.ok()) item_.emplace(*std::move(item));
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const Iterator& iterator, std::default_sentinel_t) {
    return !iterator.item_.has_value();
  }

 private:
  BlockingQueue* queue_;
  mutable std::optional<T> item_;
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_
