// Direct hand-off of a standard signal: while the one thread that is to have it
// waits in Receive(), it offers a slot in which the handler leaves the signal
// and then wakes that thread. That is one wake-up less, and none where the
// handler runs on that very thread.
//
// May be called from any thread; one at a time, under the service's lock,
// offers and takes. What the handler does is in signal_handler.cc.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
#define TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_

#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::internal {

// From now on the handler of `signum` leaves it in its slot and wakes
// `sleeper`.
void OfferSlot(int signum, Sleeper& sleeper);
// Ends that: the sleeper is not touched any more. Returns how many signals were
// left in the slot, of which `info` is the first. Waits for a handler that is
// about to leave one.
int TakeSlot(int signum, RawSiginfo& info);
// Whether a slot is offered and no signal was left yet. For tests.
bool IsWaitedFor(int signum);

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
