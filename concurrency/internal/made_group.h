// A task group as the thread sees that made it, which may leave neither a scope
// nor a task before the groups that it made there are destroyed.
//
// Belongs to that thread: no other may use it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_MADE_GROUP_H_
#define TOCSIN_CONCURRENCY_INTERNAL_MADE_GROUP_H_

#include <string>
#include <utility>

#include "tocsin/concurrency/internal/scope_state.h"

namespace tocsin::inline v0_2::internal {

class MadeGroup;

// The last one that the thread made, of those that exist. Where a thread leaves
// what it entered with the same one, it leaves no group behind.
extern constinit thread_local MadeGroup* last_made_group;

class MadeGroup {
 public:
  MadeGroup(const MadeGroup&) = delete;
  MadeGroup& operator=(const MadeGroup&) = delete;

  // Ends the program if the thread has a group inside `scope`, which it leaves.
  static void CheckNoneIn(const ScopeState& scope);
  // Ends the program, because the thread leaves `scope` and is in another: in
  // that of a group inside `scope`, or else for `mistake`.
  [[noreturn]] static void DieOfLeaving(const ScopeState& scope,
                                        const char* mistake);
  // Ends the program, because the thread leaves what it was made in.
  [[noreturn]] void DieOfOrder() const;

 protected:
  // The group's scope and name.
  MadeGroup(const ScopeState& scope, const std::string& name)
      : scope_(scope), name_(name) {}
  ~MadeGroup() = default;

  void EnterList() { before_ = std::exchange(last_made_group, this); }
  // Ends the program on another thread than that of EnterList(), or if a group
  // that it made inside this one exists.
  void LeaveList() {
    if (last_made_group != this) return LeaveListBelow();
    last_made_group = before_;
  }

 private:
  void LeaveListBelow();
  bool IsIn(const ScopeState& scope) const;

  const ScopeState& scope_;
  const std::string& name_;
  MadeGroup* before_ = nullptr;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_MADE_GROUP_H_
