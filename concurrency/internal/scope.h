// The state behind a CancelScope: a ScopeState that can change and wakes the
// threads that wait in it.
//
// Any thread may change it, which takes scope_tree_mutex. The thread that made
// it enters and leaves it, or a ScopeEntry does.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_H_

#include <cstdint>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/made_group.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"

namespace tocsin::inline v0_2::internal {

class Scope final : public ScopeState {
 public:
  // Makes a child of the thread's current scope, and enters it.
  Scope(const Deadline& deadline, Shield shield, Grace grace)
      : Scope(current_scope, true, deadline, shield, grace) {
    made_before_ = last_made_group;
    current_scope = this;
  }
  // Also cancelled when `stop` is requested. If that is the token of another
  // scope, then for the same reason.
  explicit Scope(const std::stop_token& stop)
      : Scope(Deadline(), Shield::kNothing, kUnlimited) {
    Adopt(stop);
  }
  // Makes a child of `parent`, which may be null. No thread is in it yet:
  // threads enter it by ScopeEntry, and any thread may destroy it.
  explicit Scope(ScopeState* parent)
      : Scope(parent, false, Deadline(), Shield::kNothing, kUnlimited) {}
  ~Scope() {
    if (entered_ || attached_.load(std::memory_order_acquire)) Leave();
  }

  // The Scope of a CancelScope.
  template <typename T>
  static Scope& Of(T& scope) {
    return scope.state_;
  }

  // The members of CancelScope, documented there.
  void Cancel(absl::Status reason = absl::CancelledError());
  void Cancel(absl::Status reason, absl::Duration grace);
  void CancelUntil(absl::Status reason, Instant clean_up_ends);
  // For the same reason as the scope that `token` belongs to, and with the end
  // that its clean-up has by then.
  void CancelAs(const std::stop_token& token);
  void set_deadline(const Deadline& deadline);
  void set_shield(Shield shield);
  std::stop_token stop_token() const { return ScopeTree::TokenOf(*this); }
  // The error of FailAfter().
  static absl::Status NotDoneWithin(absl::Duration timeout);

 private:
  struct RequestCancel {
    Scope* scope;
    std::stop_token token;
    void operator()() const;
  };

  Scope(ScopeState* parent, bool entered, const Deadline& deadline,
        Shield shield, Grace grace)
      : ScopeState(parent, deadline, shield, grace), entered_(entered) {}

  // The first reason counts, and the earliest end of the clean-up.
  void Cancel(absl::Status reason, Instant now, Instant cleaned_up_at,
              ScopeWakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // Whether leaving it takes the lock of the tree. A thread that sees a change
  // of a scope that is not in the tree may leave it at once, so whoever changes
  // it does not touch it again.
  bool InTree() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex) {
    return attached_.load(std::memory_order_relaxed);
  }
  void TellOfChange(bool in_tree, ScopeWakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  void Adopt(const std::stop_token& stop);
  void Leave();

  const bool entered_;
  const MadeGroup* made_before_ = nullptr;  // it was entered
  // Last, because its callback uses all of the above.
  std::optional<std::stop_callback<RequestCancel>> adopted_;
};

// Makes `scope` the thread's current scope for as long as it lives.
class ScopeEntry {
 public:
  explicit ScopeEntry(ScopeState& scope)
      : scope_(&scope), outer_(std::exchange(current_scope, &scope)) {}
  ScopeEntry(const ScopeEntry&) = delete;
  ScopeEntry& operator=(const ScopeEntry&) = delete;
  ~ScopeEntry() {
    if (current_scope != scope_) DieOfOrder();
    current_scope = outer_;
  }

 private:
  // Ends the program, because a scope is not left in the order of nesting.
  [[noreturn]] void DieOfOrder() const;

  ScopeState* const scope_;
  ScopeState* const outer_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_H_
