// The thread that requests the stop tokens of scopes whose deadline passes.
//
// Any thread that holds scope_tree_mutex may set an alarm. Callbacks of tokens
// run on the timer's thread.
//
// The library's own waits sleep until their deadline and need no thread. A stop
// token taken from a scope does: one for the whole process, started for the
// first such scope that has a deadline.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_DEADLINE_TIMER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_DEADLINE_TIMER_H_

#include <atomic>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

class DeadlineTimer {
 public:
  // Never destroyed: scopes may end after main().
  static DeadlineTimer& Get();

  // Moves the alarm of `scope` to `time`; kNever removes it.
  void Set(const ScopeState* scope, Instant time)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // In a forked child, where the thread is gone and so are all scopes but those
  // of the thread that forked.
  void ForgetAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

 private:
  void Ring();
  void Run() ABSL_LOCKS_EXCLUDED(scope_tree_mutex);

  std::set<std::pair<Instant, const ScopeState*>> alarms_
      ABSL_GUARDED_BY(scope_tree_mutex);
  bool running_ ABSL_GUARDED_BY(scope_tree_mutex) = false;
  // Whether the thread that needed it first has bound it (birth_state.h). It
  // serves that one, and ends once there is no alarm: the next needs another.
  std::atomic<bool> bound_{false};
  std::atomic<uint32_t> changes_{0};  // what the thread sleeps on
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_DEADLINE_TIMER_H_
