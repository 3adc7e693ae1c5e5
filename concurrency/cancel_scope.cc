#include "tocsin/concurrency/cancel_scope.h"

#include <algorithm>

#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin::inline v0_2 {

absl::Time CancelScope::Deadline(const Options& options) {
  if (options.timeout == absl::InfiniteDuration()) return options.deadline;
  return std::min(options.deadline, internal::Now() + options.timeout);
}

absl::Duration CancelScope::remaining() const {
  const absl::Time ends = deadline();
  if (ends == absl::InfiniteFuture()) return absl::InfiniteDuration();
  return std::max(ends - internal::Now(), absl::ZeroDuration());
}

void CancelScope::set_timeout(absl::Duration timeout) {
  set_deadline(internal::Now() + timeout);
}

TimeLimit MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body) {
  CancelScope scope({.timeout = timeout});
  body();
  return internal::Scope::Of(scope).IsCancelledFirst() ? TimeLimit::kPassed
                                                       : TimeLimit::kKept;
}

}  // namespace tocsin::inline v0_2
