#include "tocsin/concurrency/internal/scope_tree.h"

#include <pthread.h>

#include <new>
#include <utility>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/deadline_timer.h"
#include "tocsin/concurrency/internal/mutex_lock.h"

namespace tocsin::inline v0_2::internal {

constinit const ScopeState* ScopeTree::first_exporter_ = nullptr;

void ScopeTree::Detach(const ScopeState& scope) {
  MutexLock lock(scope_tree_mutex);
  ScopeLinks& links = scope.links_;
  if (links.generation != scope_generation) return;
  if (links.first_child != nullptr || links.sleepers != nullptr) {
    ScopeState::DieOf("while something inside it still waits");
  }
  DeadlineTimer::Get().Set(&scope, kNever);
  const ScopeState* const next = links.next_sibling;
  const ScopeState* const previous = links.previous_sibling;
  if (next != nullptr) next->links_.previous_sibling = previous;
  if (previous != nullptr) {
    previous->links_.next_sibling = next;
  } else if (scope.parent_ != nullptr) {
    scope.parent_->links_.first_child = next;
  }
  if (links.exported.stop_possible()) LeaveExporters(scope);
  links.~ScopeLinks();
}

void ScopeTree::Enter(const ScopeState& scope, Wakeable& sleeper) {
  MutexLock lock(scope_tree_mutex);
  Attach(scope);
  Wakeable*& first = scope.links_.sleepers;
  sleeper.next_ = first;
  sleeper.previous_ = nullptr;
  if (first != nullptr) first->previous_ = &sleeper;
  first = &sleeper;
}

void ScopeTree::Leave(const ScopeState& scope, Wakeable& sleeper) {
  MutexLock lock(scope_tree_mutex);
  Wakeable* const next = sleeper.next_;
  Wakeable* const previous = sleeper.previous_;
  if (next != nullptr) next->previous_ = previous;
  (previous != nullptr ? previous->next_ : scope.links_.sleepers) = next;
}

void ScopeTree::CollectWakeUps(const ScopeState& scope,
                               ScopeWakeUps& wake_ups) {
  if (!scope.attached_ || scope.links_.generation != scope_generation) return;
  const ScopeState* s = &scope;
  while (true) {
    ScopeLinks& links = s->links_;
    bool with_others = false;
    for (Wakeable* sleeper = links.sleepers; sleeper != nullptr;
         sleeper = sleeper->next_) {
      if (sleeper->with_others_) {
        with_others = true;
      } else {
        sleeper->WakeLater(wake_ups.asleep);
      }
    }
    if (with_others) {
      links.wake_ups.fetch_add(1);
      wake_ups.asleep.Add(&links.wake_ups, kAnyBit);
    }
    if (links.request != nullptr) {
      ScopeCause cause = s->Cause();
      const bool cancelled = cause.exists();
      DeadlineTimer::Get().Set(s, cancelled ? kNever : s->ends());
      if (cancelled) {
        links.request->cause = std::move(cause);
        *wake_ups.next_request = std::move(links.request);
        wake_ups.next_request = &(*wake_ups.next_request)->next;
      }
    }
    // On to the next scope of the subtree, in order and without a stack, past
    // those that are shielded from the change.
    const ScopeState* next = links.first_child;
    while (true) {
      while (next != nullptr && next->shield() == Shield::kAll) {
        next = next->links_.next_sibling;
      }
      if (next != nullptr || s == &scope) break;
      next = s->links_.next_sibling;
      s = s->parent_;
    }
    if (next == nullptr) return;
    s = next;
  }
}

std::stop_token ScopeTree::TokenOf(const ScopeState& scope) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  Attach(scope);
  ScopeLinks& links = scope.links_;
  if (!links.exported.stop_possible()) {
    links.request = std::make_unique<StopRequest>();
    links.exported = links.request->source;
    EnterExporters(scope);
  }
  CollectWakeUps(scope, wake_ups);
  return links.exported.get_token();
}

ScopeCause ScopeTree::CauseOf(const std::stop_token& token) {
  if (const ScopeCause* cause = StopRequest::CauseOf(token)) return *cause;
  MutexLock lock(scope_tree_mutex);
  for (const ScopeState* s = first_exporter_; s != nullptr;
       s = s->links_.next_exporter) {
    if (s->links_.exported.get_token() == token) return s->Cause();
  }
  return ScopeCause();
}

void ScopeTree::EnterExporters(const ScopeState& scope) {
  const ScopeState* const next = std::exchange(first_exporter_, &scope);
  scope.links_.next_exporter = next;
  scope.links_.previous_exporter = nullptr;
  if (next != nullptr) next->links_.previous_exporter = &scope;
}

void ScopeTree::LeaveExporters(const ScopeState& scope) {
  const ScopeState* const next = scope.links_.next_exporter;
  const ScopeState* const previous = scope.links_.previous_exporter;
  if (next != nullptr) next->links_.previous_exporter = previous;
  (previous != nullptr ? previous->links_.next_exporter : first_exporter_) =
      next;
}

ScopeWakeUps::~ScopeWakeUps() {
  asleep.Send();
  for (auto r = std::move(first_request); r != nullptr;) {
    r->Make();
    r = std::move(r->next);
  }
}

// A forked child has one thread. What other threads left in the scopes that
// this thread is in, their sleepers and inner scopes, does not exist there.
struct ScopeTree::Fork {
  static void Prepare() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    scope_tree_mutex.Lock();
  }
  static void InParent() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    scope_tree_mutex.Unlock();
  }
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    DeadlineTimer::Get().ForgetAll();
    ++scope_generation;
    first_exporter_ = nullptr;
    const ScopeState* inner = nullptr;
    for (ScopeState* s = current_scope; s != nullptr; s = s->parent_) {
      if (!s->attached_) continue;
      ScopeLinks& links = s->links_;
      links.generation = scope_generation;
      links.sleepers = nullptr;
      links.first_child = inner;
      links.next_sibling = links.previous_sibling = nullptr;
      links.timer = kNever;
      if (links.exported.stop_possible()) EnterExporters(*s);
      inner = s;
    }
    scope_tree_mutex.Unlock();
  }

  // Before main(), because pthread_atfork() must not be called under the lock
  // that a fork() on another thread is waiting for.
  [[maybe_unused]] static const int registered;
};

const int ScopeTree::Fork::registered =
    pthread_atfork(Prepare, InParent, InChild);

void ScopeTree::Attach(const ScopeState& scope) {
  const ScopeState* child = nullptr;  // has joined just now
  for (const ScopeState* s = &scope; s != nullptr; s = s->parent_) {
    const bool was_attached = s->attached_;
    if (!was_attached) {
      ::new (&s->links_) ScopeLinks;
      s->attached_ = true;
    }
    if (child != nullptr) {
      const ScopeState* const next = s->links_.first_child;
      child->links_.next_sibling = next;
      if (next != nullptr) next->links_.previous_sibling = child;
      s->links_.first_child = child;
    }
    if (was_attached) return;
    child = s;
  }
}

}  // namespace tocsin::inline v0_2::internal
