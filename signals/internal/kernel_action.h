// A disposition as the kernel keeps it, read and replaced by the system call.
//
// May be called from any thread, and in a signal handler.
#ifndef TOCSIN_SIGNALS_INTERNAL_KERNEL_ACTION_H_
#define TOCSIN_SIGNALS_INTERNAL_KERNEL_ACTION_H_

#include <sys/syscall.h>

#include <csignal>
#include <cstdint>

#include "tocsin/signals/internal/raw_syscall.h"

namespace tocsin::inline v0_2::internal {

// struct sigaction as rt_sigaction(2) takes it.
struct KernelAction {
  void* handler;
  unsigned long flags;
  void* restorer;
  uint64_t mask;
};

// Not sigaction(3), for two reasons. Under ThreadSanitizer that one installs a
// handler that runs "later", which for a thread asleep in a futex is never. And
// the C library takes its own two signals out of sa_mask; with them blocked
// too, pthread_cancel() cannot unwind through our handler.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static KernelAction GetAction(
    int signum) {
  KernelAction action;
  Syscall(SYS_rt_sigaction, signum, 0, Address(&action), sizeof(uint64_t));
  return action;
}
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static void SetAction(
    int signum, const KernelAction& action) {
  Syscall(SYS_rt_sigaction, signum, Address(&action), 0, sizeof(uint64_t));
}
// Both as one step.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static KernelAction ExchangeAction(
    int signum, const KernelAction& action) {
  KernelAction replaced;
  Syscall(SYS_rt_sigaction, signum, Address(&action), Address(&replaced),
          sizeof(uint64_t));
  return replaced;
}

[[maybe_unused]] TOCSIN_UNINSTRUMENTED static bool IgnoredBy(
    const KernelAction& action) {
  return action.handler == reinterpret_cast<void*>(SIG_IGN);
}
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static bool IsHandler(
    const KernelAction& action) {
  return action.handler != reinterpret_cast<void*>(SIG_DFL) &&
         action.handler != reinterpret_cast<void*>(SIG_IGN);
}

constexpr unsigned long kRestorer = 0x04000000;  // SA_RESTORER, in no header

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_KERNEL_ACTION_H_
