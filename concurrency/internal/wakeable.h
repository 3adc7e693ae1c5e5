// The side of a sleeping thread that other threads see: what wakes it.
//
// Any thread may wake it, while the lock that guards the list of waiters keeps
// the sleeper alive.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

class Sleeper;

// What a sleeper sleeps in if its own futex will not do: poll(2), the queue of
// an absl::Mutex, sigtimedwait(2). Outlives its sleeper.
class BlockingCall {
 public:
  // Blocks the thread until `until` at the latest, or until Interrupt(), even
  // if that came first: sleeper.woken() is true then.
  virtual void Block(const Sleeper& sleeper, Instant until) = 0;

  // Called by other threads, which hold a lock that keeps the sleeper alive,
  // such as scope_tree_mutex: takes no lock and does not wait. It may come too
  // late; then the next Block() ends early.
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

  // Like Wake(), but leaves the system call to the caller, who makes it with
  // FutexWakeOne() once the lock that keeps the sleeper alive is released.
  // Null if none is needed.
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

  // For a signal handler, which cannot call these members and does the same: it
  // exchanges the word for kWoken and, if that was kAsleep, makes the system
  // call. Only for a sleeper that uses SleepOnWord() or has no BlockingCall.
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
  // Whether it is woken by the word that all such sleepers of a scope share.
  const bool with_others_;

 private:
  Wakeable* next_ ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  Wakeable* previous_ ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WAKEABLE_H_
