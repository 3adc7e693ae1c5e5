// Tasks in the order in which they came.
//
// For one thread at a time: the owner of a ring guards it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_RING_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_RING_H_

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "tocsin/concurrency/internal/task.h"

namespace tocsin::inline v0_2::internal {

// Keeps a few tasks inline.
class TaskRing {
 public:
  TaskRing() = default;
  TaskRing(const TaskRing&) = delete;
  TaskRing& operator=(const TaskRing&) = delete;

  bool empty() const { return begin_ == end_; }
  size_t size() const { return end_ - begin_; }
  // Counted from the oldest.
  Task* operator[](size_t i) const { return slots_[(begin_ + i) & mask_]; }

  bool full() const { return size() > mask_; }

  // Makes room for one more task, as Push() must not fail. Before it allocates
  // memory it takes that of `spare`, which is empty.
  void MakeRoom(TaskRing& spare) {
    if (full()) MakeMoreRoom(spare);
  }
  void Push(Task* task) { slots_[end_++ & mask_] = task; }
  Task* TakeOldest() { return slots_[begin_++ & mask_]; }
  // The newest of those that were pushed here. Once there is none left, those
  // that were moved here, the oldest first.
  Task* TakeNext() {
    if (end_ == moved_end_) return TakeOldest();
    Task* task = slots_[--end_ & mask_];
    // While that task runs, the next ones travel to this core.
    __builtin_prefetch(slots_[(end_ - kAhead) & mask_]);
    return task;
  }

  // Takes the `count` oldest of `from`, and memory as MakeRoom() does.
  // REQUIRES: this one is empty.
  void MoveOldest(TaskRing& from, size_t count, TaskRing& spare) {
    if (count > mask_ + 1 && spare.mask_ > mask_) Swap(spare);
    if (count > mask_ + 1) Grow(count);
    for (size_t i = 0; i < count; ++i) Push(from[i]);
    moved_end_ = end_;
    from.begin_ += count;
  }

  void Swap(TaskRing& other) {
    std::swap(inline_, other.inline_);
    std::swap(large_, other.large_);
    std::swap(mask_, other.mask_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
    std::swap(moved_end_, other.moved_end_);
    slots_ = large_ != nullptr ? large_.get() : inline_;
    other.slots_ = other.large_ != nullptr ? other.large_.get() : other.inline_;
  }

  // Of the memories of two empty rings, leaves the larger to `spare`, unless it
  // is so large that it is rarely needed again. Gives the other back.
  void LeaveMemoryTo(TaskRing& spare) {
    if (large_ == nullptr) return;
    if (mask_ > spare.mask_ && mask_ < kKept) Swap(spare);
    slots_ = inline_;
    mask_ = kInline - 1;
    large_ = nullptr;
  }

  // Gives memory back if it has much more than it needs, and more than rings
  // usually have.
  void Shrink() {
    if (mask_ >= kKept && size() < mask_ / 8) ShrinkTo(kKept);
  }

 private:
  static constexpr size_t kInline = 4;
  static constexpr size_t kKept = 4096;
  static constexpr size_t kAhead = 6;

  [[gnu::noinline]] void MakeMoreRoom(TaskRing& spare) {
    if (spare.mask_ > mask_) {
      const size_t moved = moved_end_ > begin_ ? moved_end_ - begin_ : 0;
      while (!empty()) spare.Push(TakeOldest());
      spare.moved_end_ = spare.begin_ + moved;
      Swap(spare);
    } else {
      Grow(size() + 1);
    }
  }

  [[gnu::noinline]] void Grow(size_t size) {
    size_t capacity = mask_ + 1;
    while (capacity < size) capacity *= 2;
    MoveTo(std::make_unique_for_overwrite<Task*[]>(capacity), capacity);
  }

  // Not where it needs more, or if there is no memory for the smaller one.
  [[gnu::noinline]] void ShrinkTo(size_t capacity) {
    while (capacity < 2 * size()) capacity *= 2;
    std::unique_ptr<Task*[]> smaller(new (std::nothrow) Task*[capacity]);
    if (smaller != nullptr) MoveTo(std::move(smaller), capacity);
  }

  void MoveTo(std::unique_ptr<Task*[]> slots, size_t capacity) {
    for (size_t i = begin_; i != end_; ++i) {
      slots[i & (capacity - 1)] = slots_[i & mask_];
    }
    large_ = std::move(slots);
    slots_ = large_.get();
    mask_ = capacity - 1;
  }

  Task** slots_ = inline_;
  size_t mask_ = kInline - 1;
  size_t begin_ = 0;  // only go up, except in TakeNext()
  size_t end_ = 0;
  size_t moved_end_ = 0;  // those before it were moved here
  std::unique_ptr<Task*[]> large_;
  Task* inline_[kInline] = {};  // what is prefetched must be a pointer
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_RING_H_
