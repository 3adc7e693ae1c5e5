// A thread that is about to sleep in the library, and what ends its sleep: a
// wake-up, its cancel scope, the scope's deadline or a timeout of the call.
//
// The thread that sleeps makes it. Wake() is called by whoever provides what is
// waited for, while the lock that guards the list keeps the sleeper alive.
//
// Every wait of the library is this loop; the sleeper lives on the stack of the
// thread that waits:
//
//   internal::Sleeper sleeper(timeout);
//   for (;;) {
//     {
//       MutexLock lock(mutex_);
//       if (there is something) take it, leave the list, return it;
//       enter the list of those to wake;
//     }
//     absl::Status status = sleeper.Sleep();
//     if (!status.ok()) leave the list; if nothing was handed over, return
//     status;
//   }
//
// While it sleeps, a worker of a thread pool gives its slot to another task.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SLEEPER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SLEEPER_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/scope_tree.h"

namespace tocsin::internal {

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

// The side of a sleeper that others see.
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

class Sleeper final : public Wakeable {
 public:
  // Sleeps in the thread's current scope, until `timeout` at the latest.
  explicit Sleeper(absl::Time timeout = absl::InfiniteFuture(),
                   BlockingCall* call = nullptr);
  // Sleeps until woken, whatever happens to the scope: for a wait that must not
  // be given up.
  struct Unscoped {};
  explicit Sleeper(Unscoped);
  // Sleeps in the thread's current scope, which nothing but a change of the
  // scope ends: one system call for all that sleep so in it. Not to be woken.
  struct WithOthers {};
  Sleeper(absl::Time timeout, WithOthers);
  ~Sleeper() {
    if (joined_) ScopeTree::Leave(*scope_, *this);
  }

  // Sleeps until woken. OK: woken, perhaps for nothing; look again. An error:
  // the wait is over, by kCancelled or kDeadlineExceeded of the scope, or by
  // kDeadlineExceeded of the timeout. A wake-up since the last Sleep() is not
  // lost: this one returns OK at once, unless the wait is over.
  absl::Status Sleep() { return Sleep(call_ == nullptr ? kAsleep : kInCall); }
  // The same, but not in the BlockingCall, so that a signal handler may wake
  // it.
  absl::Status SleepOnWord() { return Sleep(kAsleep); }

 private:
  absl::Status Sleep(uint32_t how);
  void Join() ABSL_LOCKS_EXCLUDED(scope_tree_mutex);

  const ScopeState* const scope_;
  const absl::Time timeout_;
  bool joined_ = false;  // only its own thread looks
};

}  // namespace tocsin::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SLEEPER_H_
