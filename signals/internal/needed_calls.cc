#include "tocsin/signals/internal/needed_calls.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>

#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/raw_syscall.h"
#include "tocsin/signals/internal/refused_call.h"

namespace tocsin::inline v0_2::internal {

absl::Status TryNeededCalls() {
  const long process = Syscall(SYS_getpid);
  const long thread = Syscall(SYS_gettid);
  // Signal 0: the kernel checks everything else and sends nothing.
  siginfo_t info = {};
  info.si_code = SI_QUEUE;
  const uint64_t no_signals = 0;
  const timespec no_time = {};
  const uint32_t word = 0;
  KernelAction action;
  // The futex word is not what the sleep expects, so there is none.
  const struct {
    const char* name;
    long result;
    long expected;
  } calls[] = {
      {"rt_sigaction",
       Syscall(SYS_rt_sigaction, SIGTERM, 0, Address(&action),
               sizeof(no_signals)),
       0},
      {"rt_sigqueueinfo",
       Syscall(SYS_rt_sigqueueinfo, thread, 0, Address(&info)), 0},
      {"rt_tgsigqueueinfo",
       Syscall(SYS_rt_tgsigqueueinfo, process, thread, 0, Address(&info)), 0},
      {"tgkill", Syscall(SYS_tgkill, process, thread, 0), 0},
      {"rt_sigtimedwait",
       Syscall(SYS_rt_sigtimedwait, Address(&no_signals), 0, Address(&no_time),
               sizeof(no_signals)),
       -EAGAIN},
      {"futex",
       Syscall(SYS_futex, Address(&word), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1,
               0),
       -EAGAIN},
  };
  for (const auto& call : calls) {
    if (call.result == call.expected) continue;
    return RefusedCall(call.name, "the signal service",
                       static_cast<int>(-call.result));
  }
  return absl::OkStatus();
}

}  // namespace tocsin::inline v0_2::internal
