#include "tocsin/concurrency/cancel_scope.h"

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin {

using internal::Scope;

bool MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body) {
  CancelScope scope({.deadline = internal::Now() + timeout});
  body();
  const Scope& state = Scope::Of(scope);
  const bool from_outside = state.parent() && state.parent()->cancelled();
  return !from_outside && state.Latched();
}

absl::Status FailAfter(absl::Duration timeout,
                       absl::FunctionRef<absl::Status()> body) {
  CancelScope scope({.deadline = internal::Now() + timeout});
  absl::Status status = body();
  const bool interrupted =
      absl::IsCancelled(status) || absl::IsDeadlineExceeded(status);
  const Scope& state = Scope::Of(scope);
  const bool from_outside = state.parent() && state.parent()->cancelled();
  if (interrupted && !from_outside && state.Latched()) {
    return absl::DeadlineExceededError(
        absl::StrCat("not done within ", absl::FormatDuration(timeout)));
  }
  return status;
}

}  // namespace tocsin
