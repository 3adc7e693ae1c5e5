// The tree of the cancel scopes that a thread sleeps in or took a token of: a
// change of a scope goes down in it. A forked child finds there the scopes of
// the thread that forked, and no others.
//
// Any thread may use it; what needs scope_tree_mutex held says so.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_

#include <memory>
#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/scope_cause.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/wakeable.h"

namespace tocsin::inline v0_2::internal {

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

class ScopeTree {
 public:
  // REQUIRES: `scope` has joined the tree. No thread sleeps in it, and no scope
  // inside it is left. Does nothing in a forked child of the process that it
  // joined in, unless the thread that forked was in the scope.
  static void Detach(const ScopeState& scope)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // From now on every change of `scope` wakes `sleeper`, until Leave(), but not
  // in a forked child.
  static void Enter(const ScopeState& scope, Wakeable& sleeper)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  static void Leave(const ScopeState& scope, Wakeable& sleeper)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // Collects what a change of `scope` means to threads that wait in it or in a
  // scope inside it; in a forked child, not to threads of the parent.
  static void CollectWakeUps(const ScopeState& scope, ScopeWakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // A token that is requested when `scope` is cancelled. While the system
  // refuses a thread for deadlines, the next call that needs it tries again.
  static std::stop_token TokenOf(const ScopeState& scope)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);
  // Why `token` was requested, or is being requested by this thread: the cause
  // of the scope that it belongs to, as long as that exists.
  static ScopeCause CauseOf(const std::stop_token& token)
      ABSL_LOCKS_EXCLUDED(scope_tree_mutex);

 private:
  struct Fork;

  // Lets the scope join the tree, with those around it.
  static void Attach(const ScopeState& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  static void EnterExporters(const ScopeState& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  static void LeaveExporters(const ScopeState& scope)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // The list of all scopes in the process that have exported a token.
  static const ScopeState* first_exporter_ ABSL_GUARDED_BY(scope_tree_mutex);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_TREE_H_
