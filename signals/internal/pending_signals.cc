#include "tocsin/signals/internal/pending_signals.h"

#include <sys/syscall.h>

#include <csignal>
#include <ctime>

#include "tocsin/signals/internal/raw_syscall.h"

namespace tocsin::inline v0_2::internal {

int TakePending(uint64_t signals, RawSiginfo& info, absl::Duration timeout) {
  // Not sigwaitinfo(3), which hides that a signal came from pthread_kill(3).
  siginfo_t full;
  const timespec limit = absl::ToTimespec(timeout);
  const long result =
      Syscall(SYS_rt_sigtimedwait, Address(&signals), Address(&full),
              timeout == absl::InfiniteDuration() ? 0 : Address(&limit),
              sizeof(signals));
  if (result > 0) info = RawSiginfo::From(full);
  return static_cast<int>(result);
}

bool TakeNext(uint64_t& left, RawSiginfo& info) {
  if (left == 0) return false;
  const int signum = TakePending(left, info, absl::ZeroDuration());
  if (signum <= 0) return false;
  left &= ~Bit(signum);
  return true;
}

}  // namespace tocsin::inline v0_2::internal
