#include "tocsin/concurrency/internal/made_group.h"

#include <cstdio>
#include <cstdlib>

namespace tocsin::inline v0_2::internal {

constinit thread_local MadeGroup* last_made_group = nullptr;

void MadeGroup::DieOfOrder() const {
  const char* const quote = name_.empty() ? "" : "\"";
  std::fprintf(
      stderr,
      "tocsin: the scope or task in which the TaskGroup %s%s%s was made "
      "has ended, and the group has not been destroyed. For tasks that "
      "outlive it take a TaskSet, which belongs to no scope.\n",
      quote, name_.empty() ? "(without a name)" : name_.c_str(), quote);
  std::abort();
}

void MadeGroup::DieOfLeaving(const ScopeState& scope, const char* mistake) {
  const MadeGroup* left_behind = nullptr;
  const ScopeState* s = current_scope;
  for (; s != nullptr && s != &scope; s = s->parent()) {
    for (const MadeGroup* g = last_made_group; g != nullptr; g = g->before_) {
      if (&g->scope_ == s) left_behind = g;
    }
  }
  if (s != nullptr && left_behind != nullptr) left_behind->DieOfOrder();
  ScopeState::DieOf(mistake);
}

// The scopes around a group that is in the list exist: none was left before it.
bool MadeGroup::IsIn(const ScopeState& scope) const {
  const ScopeState* s = scope_.parent();
  while (s != nullptr && s != &scope) s = s->parent();
  return s == &scope;
}

void MadeGroup::CheckNoneIn(const ScopeState& scope) {
  for (const MadeGroup* g = last_made_group; g != nullptr; g = g->before_) {
    if (g->IsIn(scope)) g->DieOfOrder();
  }
}

void MadeGroup::LeaveListBelow() {
  MadeGroup** link = &last_made_group;
  for (; *link != nullptr && *link != this; link = &(*link)->before_) {
    if ((*link)->IsIn(scope_)) (*link)->DieOfOrder();
  }
  if (*link == nullptr) {
    ScopeState::DieOf("on another thread than the one that made it");
  }
  *link = before_;
}

}  // namespace tocsin::inline v0_2::internal
