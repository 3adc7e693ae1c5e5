// The links of a cancel scope in the tree of scopes that a thread sleeps in or
// took a token of, and the lock of that tree.
//
// Any thread that holds the lock may use the links; only `wake_ups` is also
// read without it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_LINKS_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_LINKS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope_cause.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin::inline v0_2::internal {

class ScopeState;
class Wakeable;

// Guards the links between all scopes and sleepers. Taken by a thread that is
// about to sleep anyway and by one that cancels, never by CheckCancelled().
extern SlimMutex scope_tree_mutex;

// How many forks lead to this process: one more than in its parent. Written in
// a forked child before it has a second thread.
extern int scope_generation;

// The request of an exported token, still to be made. Allocated with the token,
// so that cancelling needs no memory.
struct StopRequest {
  // Requests the token. Its callbacks may call CauseOf() to learn why.
  void Make() const;
  // Why this thread, which is in Make(), is requesting `token`. Null if it is
  // not.
  static const ScopeCause* CauseOf(const std::stop_token& token);

  std::stop_source source;
  ScopeCause cause;  // of the scope, once it is cancelled
  std::unique_ptr<StopRequest> next;
};

// The links of a scope in the tree. A scope joins the tree, with those around
// it, when a thread first sleeps in it or takes a token of it. All other scopes
// have no links, and cost no lock and no memory.
struct ScopeLinks {
  // The scope_generation of the process that made the links.
  int generation ABSL_GUARDED_BY(scope_tree_mutex) = scope_generation;
  const ScopeState* first_child ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* next_sibling ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* previous_sibling ABSL_GUARDED_BY(scope_tree_mutex) =
      nullptr;
  Wakeable* sleepers ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  std::atomic<uint32_t> wake_ups{0};  // goes up to wake sleepers WithOthers
  std::stop_source exported ABSL_GUARDED_BY(scope_tree_mutex){std::nostopstate};
  std::unique_ptr<StopRequest> request ABSL_GUARDED_BY(scope_tree_mutex);
  // In the list of scopes that have exported a token.
  const ScopeState* next_exporter ABSL_GUARDED_BY(scope_tree_mutex) = nullptr;
  const ScopeState* previous_exporter ABSL_GUARDED_BY(scope_tree_mutex) =
      nullptr;
  Instant timer ABSL_GUARDED_BY(scope_tree_mutex) = kNever;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_LINKS_H_
