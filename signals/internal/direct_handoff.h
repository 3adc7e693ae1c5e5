// A seat is the short way for a standard signal: while the one thread that is
// to have it waits in Receive(), the handler leaves the signal there in memory
// and wakes that thread, which is one wake-up less, and none where the handler
// runs on that very thread.
//
// May be called from any thread; one at a time, under the service's lock, takes
// and clears seats.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
#define TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_

#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::internal {

// From now on the handler of `signum` leaves it in its seat and wakes
// `sleeper`. Seats are taken and cleared under one lock, the service's.
void TakeSeat(int signum, Sleeper& sleeper);
// Ends that: the sleeper is not touched any more. Returns how many signals were
// left in the seat, of which `info` is the first. Waits for a handler that is
// about to leave one.
int ClearSeat(int signum, RawSiginfo& info);
// Whether somebody sits there and no signal was left yet. For tests.
bool IsWaitedFor(int signum);

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
