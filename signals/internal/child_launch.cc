#include "tocsin/signals/internal/child_launch.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstddef>
#include <memory>
#include <new>

#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/raw_syscall.h"
#include "tocsin/signals/internal/refused_call.h"

// The C library's other name for clone(2). Under the usual name ThreadSanitizer
// takes it for a fork(), and records that in memory that is still ours.
extern "C" int __clone(int (*)(void*), void* stack, int flags, void* argument,
                       ...);

namespace tocsin::inline v0_2::internal {
namespace {

// What parent and child share. Volatile: the child writes it while the parent
// is in clone(2).
struct Shared {
  const Launch& launch;
  const pid_t parent = getpid();
  const char* volatile failed_call = nullptr;
  volatile int error = 0;
};

TOCSIN_UNINSTRUMENTED bool Failed(Shared& shared, const char* call,
                                  long result) {
  if (result >= 0) return false;
  shared.failed_call = call;
  shared.error = static_cast<int>(-result);
  return true;
}

TOCSIN_UNINSTRUMENTED bool SetStreams(Shared& shared) {
  int streams[3];
  for (int i = 0; i < 3; ++i) streams[i] = shared.launch.streams[i];
  // Moves them out of the way of those that become 0, 1 and 2.
  for (int& stream : streams) {
    if (stream < 0 || stream > 2) continue;
    const long moved = Syscall(SYS_fcntl, stream, F_DUPFD_CLOEXEC, 3);
    if (Failed(shared, "fcntl", moved)) return false;
    stream = static_cast<int>(moved);
  }
  for (int i = 0; i < 3; ++i) {
    if (streams[i] < 0) continue;
    if (Failed(shared, "dup3", Syscall(SYS_dup3, streams[i], i, 0))) {
      return false;
    }
  }
  return true;
}

// Searches as execvp(3) does: skips a file that is missing, and one that may
// not be run, but remembers the latter as the reason.
TOCSIN_UNINSTRUMENTED void Execute(Shared& shared) {
  long error = 0;
  for (const char* const* program = shared.launch.programs; *program != nullptr;
       ++program) {
    const long result =
        Syscall(SYS_execve, Address(*program), Address(shared.launch.argv),
                Address(shared.launch.environment));
    if (result == -ENOENT || result == -ENOTDIR) {
      if (error == 0) error = result;
      continue;
    }
    error = result;
    if (error != -EACCES) break;
  }
  Failed(shared, "execve", error);
}

TOCSIN_UNINSTRUMENTED bool DieWithParent(Shared& shared) {
  if (Failed(shared, "prctl", Syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL))) {
    return false;
  }
  // It may have died before.
  return Syscall(SYS_getppid) == shared.parent;
}

// Every signal is blocked until all our handlers are reset, which would
// otherwise run in our memory.
TOCSIN_UNINSTRUMENTED int InChild(void* argument) {
  Shared& shared = *static_cast<Shared*>(argument);
  const Launch& launch = shared.launch;
  for (int signum = 1; signum <= 64; ++signum) {
    KernelAction action;
    action.handler = reinterpret_cast<void*>(
        launch.ignored_signals >> (signum - 1) & 1 ? SIG_IGN : SIG_DFL);
    action.flags = 0;
    action.restorer = nullptr;
    action.mask = 0;
    SetAction(signum, action);
  }
  const uint64_t none = 0;
  Syscall(SYS_rt_sigprocmask, SIG_SETMASK, Address(&none), 0, sizeof(none));

  if ((!launch.dies_with_parent || DieWithParent(shared)) &&
      (!launch.own_group ||
       !Failed(shared, "setpgid", Syscall(SYS_setpgid, 0, 0))) &&
      (launch.directory == nullptr ||
       !Failed(shared, "chdir",
               Syscall(SYS_chdir, Address(launch.directory)))) &&
      SetStreams(shared)) {
    Execute(shared);
  }
  while (true) Syscall(SYS_exit_group, 127);
}

// Asked with what is no pidfd. A kernel that is too old for this would ignore
// CLONE_PIDFD, or give a pidfd that cannot be polled.
bool WaitsByPidfd() {
  siginfo_t info;
  return waitid(P_PIDFD, INT_MAX, &info, WEXITED | WNOHANG) != 0 &&
         errno == EBADF;
}

}  // namespace

Launched Start(const Launch& launch) {
  // Enough for the few frames of InChild(); pages that are not touched cost
  // nothing.
  constexpr size_t kStackSize = size_t{32} * 1024;
  std::unique_ptr<char[]> stack(new (std::nothrow) char[kStackSize]);
  Shared shared{.launch = launch};
  Launched launched;
  if (stack == nullptr) {
    launched.failed_call = "malloc";
    launched.error = ENOMEM;
    return launched;
  }
  if (launch.pidfd && !WaitsByPidfd()) {
    launched.failed_call = "waitid";
    launched.error = errno;
    launched.pidfd_refused = true;
    return launched;
  }

  const uint64_t all = ~uint64_t{0};
  uint64_t before;
  Syscall(SYS_rt_sigprocmask, SIG_SETMASK, Address(&all), Address(&before),
          sizeof(all));
  // Does not return before the child has left our memory.
  launched.pid = __clone(
      InChild, stack.get() + kStackSize,
      CLONE_VM | CLONE_VFORK | SIGCHLD | (launch.pidfd ? CLONE_PIDFD : 0),
      &shared, &launched.pidfd);
  const int clone_error = errno;
  Syscall(SYS_rt_sigprocmask, SIG_SETMASK, Address(&before), 0, sizeof(before));

  if (launched.pid < 0) {
    launched.failed_call = "clone";
    launched.error = clone_error;
    launched.pidfd_refused = launch.pidfd && IsRefusal(clone_error);
  } else if (shared.error != 0) {
    launched.failed_call = shared.failed_call;
    launched.error = shared.error;
    const idtype_t type = launch.pidfd ? P_PIDFD : P_PID;
    const int id = launch.pidfd ? launched.pidfd : launched.pid;
    while (waitid(type, static_cast<id_t>(id), nullptr, WEXITED) != 0 &&
           errno == EINTR) {
    }
    if (launch.pidfd) close(launched.pidfd);
    launched.pid = -1;
  }
  return launched;
}

}  // namespace tocsin::inline v0_2::internal
