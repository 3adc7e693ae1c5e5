// A thread that is about to sleep in the library, and what ends its sleep: a
// wake-up, its cancel scope, the scope's deadline or a timeout of the call.
//
// The thread that sleeps makes it. The thread that provides what it waits for
// calls Wake(), while the lock that guards the list keeps the sleeper alive.
//
// Every wait of the library is this loop; the sleeper lives on the stack of the
// thread that waits:
//
//   internal::Sleeper sleeper("Pop()", timeout);
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

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"
#include "tocsin/concurrency/internal/wait_note.h"
#include "tocsin/concurrency/internal/wakeable.h"

namespace tocsin::inline v0_2::internal {

class Sleeper final : public Wakeable {
 public:
  // Sleeps in the thread's current scope, until `timeout` at the latest. `name`
  // is what reports call the wait.
  explicit Sleeper(const char* name, Instant timeout = kNever,
                   BlockingCall* call = nullptr);
  // Sleeps until woken, or until `timeout`, whatever happens to the scope: for
  // a wait that must not end early.
  struct Unscoped {};
  Sleeper(const Wait& wait, Unscoped, Instant timeout = kNever);
  // Sleeps in the thread's current scope until that changes, and until
  // `timeout` at the latest. One system call wakes all that sleep this way in a
  // scope. Wake() must not be called.
  struct WithOthers {};
  Sleeper(const char* name, Instant timeout, WithOthers);
  ~Sleeper() {
    if (joined_in_ == scope_generation) ScopeTree::Leave(*scope_, *this);
  }

  // Sleeps until woken. OK: woken, perhaps spuriously; look again. An error:
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
  // Call it where the thread is about to sleep.
  const Wait& WaitSince();

  Wait wait_;
  const ScopeState* const scope_;
  const Instant timeout_;
  int joined_in_ = -1;  // which process; only its own thread reads it
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SLEEPER_H_
