// Calls the closure of a task, which may have any of several forms.
//
// For the thread that runs the task, in its scope.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_CLOSURE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_CLOSURE_H_

#include <stop_token>
#include <type_traits>

#include "absl/status/status.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"

namespace tocsin::inline v0_2::internal {

struct TaskClosure {
  // f() or f(std::stop_token), whatever it returns.
  template <typename F>
  static decltype(auto) Invoke(F& f);
  // The same, for an f that returns nothing or an absl::Status.
  template <typename F>
  static absl::Status Call(F& f);
};

template <typename F>
decltype(auto) TaskClosure::Invoke(F& f) {
  if constexpr (std::is_invocable_v<F&>) {
    return f();
  } else {
    static_assert(std::is_invocable_v<F&, std::stop_token>,
                  "a task takes nothing or a std::stop_token");
    return f(ScopeTree::TokenOf(*current_scope));
  }
}

template <typename F>
absl::Status TaskClosure::Call(F& f) {
  using Result = decltype(Invoke(f));
  if constexpr (std::is_void_v<Result>) {
    Invoke(f);
    return absl::OkStatus();
  } else {
    static_assert(std::is_convertible_v<Result, absl::Status>,
                  "a task returns nothing or an absl::Status; for another "
                  "result use SpawnWithResult()");
    return Invoke(f);
  }
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_CLOSURE_H_
