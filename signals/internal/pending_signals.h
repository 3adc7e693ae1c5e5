// Takes signals that are pending, for a thread that waits in the kernel.
//
// May be called from any thread that blocks those signals.
#ifndef TOCSIN_SIGNALS_INTERNAL_PENDING_SIGNALS_H_
#define TOCSIN_SIGNALS_INTERNAL_PENDING_SIGNALS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// A mask as in the kernel.
inline uint64_t Bit(int signum) { return uint64_t{1} << (signum - 1); }
inline uint64_t Mask(const SignalSet& signals) {
  uint64_t mask = 0;
  for (int signum : signals) mask |= Bit(signum);
  return mask;
}

// Waits until one of `signals` (a mask) is pending on the calling thread or the
// process, and takes it. Returns its number or a negated errno: -EAGAIN once
// `timeout` is over, -EINTR after a stop.
int TakePending(uint64_t signals, RawSiginfo& info,
                absl::Duration timeout = absl::InfiniteDuration());

// Takes a pending signal of `left`, and removes its number from `left`, so that
// a storm of one does not starve the others. False if there is none.
bool TakeNext(uint64_t& left, RawSiginfo& info);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_PENDING_SIGNALS_H_
