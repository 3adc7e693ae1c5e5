// A first-in, first-out list whose two ends may be used at the same time.
//
// One thread at a time may be at the back, and one at the front. Each end
// remembers what it has read of the other, and reads it again only if that does
// not suffice: so most calls touch no cache line of the other end.
//
// A Push() that runs out of memory changes nothing.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_FIFO_H_
#define TOCSIN_CONCURRENCY_INTERNAL_FIFO_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <utility>

namespace tocsin::inline v0_2::internal {

template <typename T>
class Fifo {
 public:
  Fifo() {
    front_segment_ = back_segment_ = new Segment;
    front_ = back_ = front_segment_->begin();
  }
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;
  ~Fifo() {
    while (HasItem()) Pop();
    delete front_segment_;
  }

  // At the back.

  // Whether there are fewer than `capacity` items. An item that is being popped
  // may still count.
  bool HasRoom(size_t capacity) {
    const size_t pushed = pushed_.load(std::memory_order_relaxed);
    if (pushed - popped_seen_ < capacity) return true;
    popped_seen_ = popped_.load(std::memory_order_relaxed);
    return pushed - popped_seen_ < capacity;
  }
  void Push(T&& item) {
    if (back_ == back_segment_->end()) {
      back_segment_->next = new Segment;
      back_segment_ = back_segment_->next;
      back_ = back_segment_->begin();
    }
    new (back_) T(std::move(item));
    ++back_;
    pushed_.store(pushed_.load(std::memory_order_relaxed) + 1,
                  std::memory_order_release);
  }

  // At the front.

  bool HasItem() {
    const size_t popped = popped_.load(std::memory_order_relaxed);
    if (pushed_seen_ != popped) return true;
    pushed_seen_ = pushed_.load(std::memory_order_acquire);
    return pushed_seen_ != popped;
  }
  // REQUIRES: HasItem() was true, and no Pop() since.
  T Pop() {
    if (front_ == front_segment_->end()) {
      delete std::exchange(front_segment_, front_segment_->next);
      front_ = front_segment_->begin();
    }
    T* const slot = front_++;
    T item(std::move(*slot));
    slot->~T();
    popped_.store(popped_.load(std::memory_order_relaxed) + 1,
                  std::memory_order_release);
    return item;
  }

  // From any thread. While both ends are at work it may be too high.
  size_t size() const {
    // In this order, so that the difference is never negative.
    const size_t popped = popped_.load(std::memory_order_acquire);
    return pushed_.load(std::memory_order_relaxed) - popped;
  }

 private:
  struct Segment {
    // About a kilobyte, so that an allocation costs little per item.
    static constexpr size_t kSize = std::max<size_t>(1, 1000 / sizeof(T));

    T* begin() { return reinterpret_cast<T*>(memory); }
    T* end() { return begin() + kSize; }

    Segment* next = nullptr;
    alignas(T) std::byte memory[kSize * sizeof(T)];
  };

  // The ends are on cache lines of their own.
  alignas(64) T* back_;
  Segment* back_segment_;
  size_t popped_seen_ = 0;
  std::atomic<size_t> pushed_{0};

  alignas(64) T* front_;
  Segment* front_segment_;
  size_t pushed_seen_ = 0;
  std::atomic<size_t> popped_{0};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_FIFO_H_
