// The tree of those cancel scopes that somebody sleeps in or took a token of:
// a change of a scope goes down in it. A forked child finds there the scopes of
// the thread that forked, and nobody else.
//
// Any thread may use it that holds scope_tree_mutex.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin::internal {

class ScopeState;
class Wakeable;

// Guards the links between all scopes and sleepers. Taken by a thread that is
// about to sleep anyway and by one that cancels, never by CheckCancelled().
extern SlimMutex scope_tree_mutex;

// A token that was exported and is to be requested in the end. Made with it,
// so that cancelling allocates nothing.
struct StopRequest {
  std::stop_source source;
  std::unique_ptr<StopRequest> next;
};

// What a change of one scope means to the threads inside it: collected under
// scope_tree_mutex and carried out by the destructor. Declare it before the
// lock.
struct ScopeWakeUps {
  ScopeWakeUps() = default;
  ScopeWakeUps(const ScopeWakeUps&) = delete;
  ScopeWakeUps& operator=(const ScopeWakeUps&) = delete;
  ~ScopeWakeUps();

  FutexWakes asleep;
  std::unique_ptr<StopRequest> first_request;
  std::unique_ptr<StopRequest>* next_request = &first_request;
};

// The links of a scope in the tree. A scope joins that, with those around it,
// when somebody sleeps in it or takes a token of it for the first time. All
// others have no links, and cost no lock and no memory.
struct ScopeLinks {
  // The process that it joined in, among those forked from each other.
  int generation ABSL_GUARDED_BY(scope_tree_mutex) = 0;
  const ScopeState* first_child ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* next_sibling ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* previous_sibling ABSL_GUARDED_BY(scope_tree_mutex) =
      nullptr;
  Wakeable* sleepers ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  std::atomic<uint32_t> wake_ups{0};  // goes up for those WithOthers
  std::stop_source exported ABSL_GUARDED_BY(scope_tree_mutex){std::nostopstate};
  std::unique_ptr<StopRequest> request ABSL_GUARDED_BY(scope_tree_mutex);
  int64_t timer ABSL_GUARDED_BY(scope_tree_mutex) = kNever;
};

class ScopeTree {
 public:
  // Has the scope join it, with those around it.
  static void Attach(const ScopeState& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // REQUIRES: it has joined. Nobody sleeps in it, and no scope inside is left.
  // Does nothing in a forked child of the process that it joined in, unless the
  // thread that forked was in the scope.
  static void Detach(const ScopeState& scope)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // Has `sleeper` woken by every change of `scope`, until it leaves.
  static void Enter(const ScopeState& scope, Wakeable& sleeper)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  static void Leave(const ScopeState& scope, Wakeable& sleeper)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // What a change of `scope` means to those who wait in it and inside of it.
  static void CollectWakeUps(const ScopeState& scope, ScopeWakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // A token that is requested when `scope` is cancelled. While no thread can be
  // had for a deadline, the next call that asks for one tries again.
  static std::stop_token TokenOf(const ScopeState& scope)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);

 private:
  struct Fork;
};

}  // namespace tocsin::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_
