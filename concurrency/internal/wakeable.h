// The side of a sleeping thread that others see: what wakes it.
//
// Any thread may wake it, while the lock that guards the list of those who wait
// keeps the sleeper alive.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

class Sleeper;

// What a sleeper sleeps in where its own futex will not do: poll(2), the queue
// of an absl::Mutex, sigtimedwait(2). Outlives its sleeper.
class BlockingCall {
 public:
  // Blocks the thread until `until` at the latest, or Interrupt(), also one
  // that was there first: sleeper.woken() is true then.
  virtual void Block(const Sleeper& sleeper, absl::Time until) = 0;

  // Called by other threads, which hold a lock that keeps the sleeper alive,
  // such as scope_tree_mutex: takes no lock and does not wait. May come too
  // late, then the next Block() ends early.
  virtual void Interrupt() = 0;
  // The same. May leave it to `wakes`, if a wake-up will do.
  virtual void InterruptLater(FutexWakes&) { Interrupt(); }

 protected:
  ~BlockingCall() = default;
};

class Wakeable {
 public:
  Wakeable(const Wakeable&) = delete;
  Wakeable& operator=(const Wakeable&) = delete;

  // Ends the sleep, or the next one. The caller keeps the sleeper alive.
  void Wake() {
    if (const std::atomic<uint32_t>* word = WakeLater()) FutexWakeOne(word);
  }

  // As Wake(), but leaves the system call to the caller, who makes it with
  // FutexWakeOne() once the lock that keeps the sleeper alive is released.
  // Null where none is needed.
  [[nodiscard]] const std::atomic<uint32_t>* WakeLater() {
    const uint32_t was = word_.exchange(kWoken, std::memory_order_acq_rel);
    if (was == kInCall) call_->Interrupt();
    return was == kAsleep ? &word_ : nullptr;
  }
  void WakeLater(FutexWakes& wakes) {
    const uint32_t was = word_.exchange(kWoken, std::memory_order_acq_rel);
    if (was == kInCall) call_->InterruptLater(wakes);
    if (was == kAsleep) wakes.Add(&word_);
  }

  // For a signal handler, which can call nothing of this and does the same: it
  // exchanges the word for kWoken and, if that was kAsleep, makes the system
  // call. Only one that then sleeps by SleepOnWord(), or has no BlockingCall.
  enum : uint32_t { kAwake, kAsleep, kInCall, kWoken };
  uint32_t* word() { return reinterpret_cast<uint32_t*>(&word_); }

  // Whether a wake-up came since the last Sleep().
  bool woken() const { return word_.load(std::memory_order_acquire) == kWoken; }

 protected:
  friend class ScopeTree;

  Wakeable(BlockingCall* call, bool with_others)
      : call_(call), with_others_(with_others) {}
  ~Wakeable() = default;

  std::atomic<uint32_t> word_{kAwake};
  BlockingCall* const call_;
  // Woken by the word that all share who sleep so in its scope.
  const bool with_others_;

 private:
  Wakeable* next_ ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  Wakeable* previous_ ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_
