// Sends a signal to the calling thread, and ends the process by one.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_
#define TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_

namespace tocsin::inline v0_2::internal {

// Delivers `signum` to the calling thread before it returns, even if the thread
// blocks it. It is blocked before it is raised, so that it is not delivered
// earlier.
void RaiseAndDeliver(int signum);

// What tocsin::DieBySignal() does (process.h). Takes no lock: it is the way out
// when everything else hangs.
[[noreturn]] void DieBySignal(int signum);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_
