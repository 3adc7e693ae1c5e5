// A signal that the calling thread sends to itself, and the end of the process
// by one.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_
#define TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_

namespace tocsin::inline v0_2::internal {

// Has `signum` delivered to the calling thread here, even if the thread blocks
// it. It is blocked before it is raised, so that it is not delivered earlier.
void RaiseAndDeliver(int signum);

// What tocsin::DieBySignal() does (process.h). Takes no lock: it is the way out
// when everything else hangs.
[[noreturn]] void DieBySignal(int signum);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SELF_SIGNAL_H_
