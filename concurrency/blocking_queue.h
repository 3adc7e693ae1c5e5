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
// Threads that wait are served in the order they came, and an item that a
// waiting Pop() was given cannot be taken by another.
//
// Push() and Pop() observe the thread's cancel scope: kCancelled or
// kDeadlineExceeded, at once if the scope had ended before the call, even if
// there is an item or room. A Pop() with a timeout:
// FailAfter(timeout, [&] { return queue.Pop(); }).
//
// At either end kOutOfRange means that the queue is closed. From TryPush() and
// TryPop() kUnavailable means that there is no room or no item right now.
//
// The move constructor of T, and the destructor of a T moved from, run under
// the queue's lock: they must not throw and must not use the queue. Items left
// over are destroyed with the queue.
#ifndef TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_
#define TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_

#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/queue_state.h"

namespace tocsin::inline v0_2 {

// Capacities of a queue. With no room at all, a Push() waits for the Pop() that
// takes its item.
inline constexpr size_t kRendezvous = 0;
inline constexpr size_t kUnbounded = static_cast<size_t>(-1);

template <typename T>
class BlockingQueue {
 public:
  class Iterator;

  // Holds up to `capacity` items, from kRendezvous to kUnbounded. The capacity
  // limits the memory that a slow consumer costs.
  explicit BlockingQueue(size_t capacity) : state_(capacity) {}
  BlockingQueue(const BlockingQueue&) = delete;
  BlockingQueue& operator=(const BlockingQueue&) = delete;

  // Blocks while the queue is full. kOutOfRange once it is closed, also for
  // threads that are waiting then.
  absl::Status Push(T&& item) { return state_.Push(item); }
  absl::Status Push(const T& item) { return Push(T(item)); }

  // Does not block and ignores the scope. kUnavailable while the queue is full,
  // kOutOfRange once it is closed.
  absl::Status TryPush(T&& item) { return state_.TryPush(item); }
  absl::Status TryPush(const T& item) { return TryPush(T(item)); }

  // Blocks while the queue is empty. kOutOfRange once it is closed and drained.
  absl::StatusOr<T> Pop() { return state_.Pop(); }

  // Does not block and ignores the scope. kUnavailable while the queue is
  // empty, kOutOfRange once it is closed and drained.
  absl::StatusOr<T> TryPop() { return state_.TryPop(); }

  // Refuses all further pushes; what is in the queue can still be popped. A
  // second call does nothing.
  void Close() { state_.Close(); }
  bool closed() const { return state_.closed(); }

  // The number of items in the queue, not counting those whose Push() waits.
  size_t size() const { return state_.size(); }

  // Blocking iteration, also by several threads at once: each item goes to one
  // of them. It ends when the queue is closed and drained, or when the thread's
  // scope has ended (see CheckCancelled()).
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  internal::QueueState<T> state_;
};

// Holds the item that it points to.
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

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_BLOCKING_QUEUE_H_
