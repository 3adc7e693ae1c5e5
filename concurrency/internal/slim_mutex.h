// A mutex for the library's own critical sections of a few instructions.
//
// Any thread that does not hold it may lock it, but no signal handler. Not
// absl::Mutex, which measures the machine at the first contention in a
// process: a fork() meanwhile leaves the child with a measurement that never
// ends, and its first contended lock hangs.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SLIM_MUTEX_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SLIM_MUTEX_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/futex.h"

namespace tocsin::inline v0_2::internal {

class ABSL_LOCKABLE SlimMutex {
 public:
  constexpr SlimMutex() = default;
  SlimMutex(const SlimMutex&) = delete;
  SlimMutex& operator=(const SlimMutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    uint32_t free = kFree;
    if (!word_.compare_exchange_strong(free, kHeld, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      LockContended();
    }
  }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    uint32_t free = kFree;
    return word_.compare_exchange_strong(free, kHeld, std::memory_order_acquire,
                                         std::memory_order_relaxed);
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    if (word_.exchange(kFree, std::memory_order_release) == kAwaited) {
      FutexWakeOne(&word_);
    }
  }
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { Lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { Unlock(); }

 private:
  enum : uint32_t { kFree, kHeld, kAwaited };

  // It is held for less time than a thread takes to fall asleep, so look again
  // a few times first.
  void LockContended() {
    for (int i = 0; i < kSpins; ++i) {
      uint32_t free = kFree;
      if (word_.load(std::memory_order_relaxed) == kFree &&
          word_.compare_exchange_weak(free, kHeld, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return;
      }
    }
    while (word_.exchange(kAwaited, std::memory_order_acquire) != kFree) {
      FutexWait(word_, kAwaited);
    }
  }
  static constexpr int kSpins = 200;

  std::atomic<uint32_t> word_{kFree};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SLIM_MUTEX_H_
