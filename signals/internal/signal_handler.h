// The code that runs in signal handlers.
//
// It runs on any thread at any moment, so it uses only raw system calls and
// atomics, calls nothing outside of its file, and leaves errno alone. Threads
// may call GiveBack() and RingDoorbell() as well.
//
// By default only the service's thread blocks signals. So the kernel hands a
// signal to some other thread, where our handler runs. It queues the signal
// again, siginfo and all, for the service's thread (rt_tgsigqueueinfo(2)), or
// leaves it in a slot. The kernel's queue is the only queue, and counters and
// slots are the only memory that the handler writes and a thread reads.
//
// The kernel lets nobody send another thread a siginfo that claims to come from
// kill(2) or from the kernel. A forwarded one is therefore marked: si_code is a
// random number of this process, and the true si_code is in si_errno, which
// signals on Linux do not use.
#ifndef TOCSIN_SIGNALS_INTERNAL_SIGNAL_HANDLER_H_
#define TOCSIN_SIGNALS_INTERNAL_SIGNAL_HANDLER_H_

#include <csignal>

#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::inline v0_2::internal {

// Wakes the service's thread to look at its state. Linux never generates this
// signal; a stray one, or several merged into one, do no harm.
inline constexpr int kDoorbell = SIGSTKFLT;

// The mark of the doorbell's disposition while a copy of the library decides on
// it (doorbell_claim.h). The kernel looks at these flags for SIGCHLD alone.
// Every version of the library has to know it.
inline constexpr unsigned long kUndecided = SA_NOCLDSTOP | SA_NOCLDWAIT;

// What a disposition needs for the kernel to call the handler.
struct HandlerAddresses {
  void (*handler)(int, siginfo_t*, void*);
  void (*restorer)();
};
extern const HandlerAddresses kHandlerAddresses;

// The disposition with our handler, and with these flags besides its own.
KernelAction OurAction(unsigned long flags = 0);
// Whether our handler is there, with whatever flags.
bool IsOurs(const KernelAction& action);

// Sends a signal that we took to the process again, unchanged: the disposition
// in force decides what happens to it.
void GiveBack(const RawSiginfo& info);

// Wakes the service's thread.
void RingDoorbell();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SIGNAL_HANDLER_H_
