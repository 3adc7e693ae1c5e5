#include "tocsin/concurrency/cancel_scope.h"

#include "tocsin/concurrency/internal/clock.h"

namespace tocsin::inline v0_2 {

internal::Deadline CancelScope::DeadlineOf(const Options& options) {
  const internal::Deadline deadline(options.deadline);
  if (options.timeout == absl::InfiniteDuration()) return deadline;
  const internal::Deadline timeout(options.timeout);
  return timeout.instant < deadline.instant ? timeout : deadline;
}

absl::Duration CancelScope::remaining() const {
  return internal::TimeUntil(state_.ends());
}

void CancelScope::set_timeout(absl::Duration timeout) {
  state_.set_deadline(internal::Deadline(timeout));
}

void CancelScope::set_deadline(absl::Time deadline) {
  state_.set_deadline(internal::Deadline(deadline));
}

TimeLimit MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body) {
  CancelScope scope({.timeout = timeout});
  body();
  return internal::Scope::Of(scope).IsCancelledFirst() ? TimeLimit::kPassed
                                                       : TimeLimit::kKept;
}

}  // namespace tocsin::inline v0_2
