// What the kernel's siginfo of a signal says: why it came, from whom, and about
// which child.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_SIGINFO_H_
#define TOCSIN_SIGNALS_INTERNAL_SIGINFO_H_

#include "absl/time/time.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_event.h"

namespace tocsin::inline v0_2::internal {

// The event that a receiver gets for a signal taken from the kernel.
SignalEvent ToEvent(const RawSiginfo& raw, int count, absl::Time received_at);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SIGINFO_H_
