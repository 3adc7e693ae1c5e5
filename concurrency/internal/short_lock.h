// A lock for critical sections of a few dozen instructions.
//
// Any thread that does not hold it may take it, but no signal handler. A thread
// that finds it taken stays away for longer than a section takes, and soon
// yields the processor: so threads that enter all the time take turns of many
// sections each, instead of passing the cache line back and forth with every
// one. In the end it sleeps, because the holder may have been preempted by a
// thread of higher priority that waits here.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SHORT_LOCK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SHORT_LOCK_H_

#include <sched.h>

#include <atomic>
#include <ctime>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/spin.h"

namespace tocsin::inline v0_2::internal {

class ABSL_LOCKABLE ShortLock {
 public:
  ShortLock() = default;
  ShortLock(const ShortLock&) = delete;
  ShortLock& operator=(const ShortLock&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    if (taken_.exchange(true, std::memory_order_acquire)) LockContended();
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    taken_.store(false, std::memory_order_release);
  }
  // For clang's analysis, where it knows the lock by another name.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { Lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { Unlock(); }

 private:
  void LockContended() {
    for (int i = 0; taken_.load(std::memory_order_relaxed) ||
                    taken_.exchange(true, std::memory_order_acquire);
         ++i) {
      if (i < kPauses) {
        for (int j = 0; j < 10; ++j) Pause();
      } else if (i < kPauses + kYields) {
        sched_yield();
      } else {
        const timespec pause = {.tv_sec = 0, .tv_nsec = 100'000};
        nanosleep(&pause, nullptr);
      }
    }
  }

  static constexpr int kPauses = 20;
  static constexpr int kYields = 100;

  std::atomic<bool> taken_{false};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SHORT_LOCK_H_
