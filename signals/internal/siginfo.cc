#include "tocsin/signals/internal/siginfo.h"

#include <csignal>

namespace tocsin::inline v0_2::internal {
namespace {

bool IsTerminalSignal(int signum) {
  switch (signum) {
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGHUP:
    case SIGCONT:
    case SIGWINCH:
      return true;
  }
  return false;
}

SignalEvent::Origin OriginOf(const siginfo_t& info) {
  using Origin = SignalEvent::Origin;
  switch (info.si_code) {
    case SI_USER:
    case SI_TKILL:
      return Origin::kUser;
    case SI_QUEUE:
      return Origin::kQueue;
    case SI_TIMER:
      return Origin::kTimer;
    case SI_MESGQ:
      return Origin::kMessageQueue;
    case SI_KERNEL:
      return IsTerminalSignal(info.si_signo) ? Origin::kTerminal
                                             : Origin::kKernel;
    case SI_SIGIO:
      return Origin::kIo;
  }
  if (info.si_code < 0) return Origin::kOther;
  // Positive codes mean different things for different signals. Those of SIGIO
  // come with any signal that was chosen with F_SETSIG. Apart from SIGCHLD, no
  // other signal that can be received has codes of its own.
  return info.si_signo == SIGCHLD ? Origin::kChild : Origin::kIo;
}

ChildStatus::Change ChangeOf(int code) {
  switch (code) {
    case CLD_KILLED:
      return ChildStatus::Change::kKilled;
    case CLD_DUMPED:
      return ChildStatus::Change::kDumped;
    case CLD_TRAPPED:
      return ChildStatus::Change::kTrapped;
    case CLD_STOPPED:
      return ChildStatus::Change::kStopped;
    case CLD_CONTINUED:
      return ChildStatus::Change::kContinued;
  }
  return ChildStatus::Change::kExited;
}

}  // namespace

SignalEvent ToEvent(const RawSiginfo& raw, int count, absl::Time received_at) {
  using Origin = SignalEvent::Origin;
  const siginfo_t info = raw.Full();
  SignalEvent event;
  event.signum = info.si_signo;
  event.count = count;
  event.origin = OriginOf(info);
  event.received_at = received_at;
  switch (event.origin) {
    case Origin::kUser:
    case Origin::kQueue:
    case Origin::kMessageQueue:
      if (info.si_pid != 0) event.sender = {info.si_pid, info.si_uid};
      if (event.origin != Origin::kUser) event.value = info.si_value;
      break;
    case Origin::kTimer:
      event.value = info.si_value;
      event.timer_overrun = info.si_overrun;
      break;
    case Origin::kChild:
      event.sender = {info.si_pid, info.si_uid};
      event.child = {info.si_pid, ChangeOf(info.si_code), info.si_status};
      break;
    case Origin::kIo:
      event.fd = info.si_fd;
      break;
    case Origin::kKernel:
    case Origin::kTerminal:
    case Origin::kOther:
      break;
  }
  return event;
}

}  // namespace tocsin::inline v0_2::internal
