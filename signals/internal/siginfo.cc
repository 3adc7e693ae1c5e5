#include "tocsin/signals/internal/siginfo.h"

#include <csignal>

namespace tocsin::internal {
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

SignalEvent::Cause CauseOf(const siginfo_t& info) {
  using Cause = SignalEvent::Cause;
  switch (info.si_code) {
    case SI_USER:
    case SI_TKILL:
      return Cause::kUser;
    case SI_QUEUE:
      return Cause::kQueue;
    case SI_TIMER:
      return Cause::kTimer;
    case SI_MESGQ:
      return Cause::kMessageQueue;
    case SI_KERNEL:
      return IsTerminalSignal(info.si_signo) ? Cause::kTerminal
                                             : Cause::kKernel;
    case SI_SIGIO:
      return Cause::kIo;
  }
  if (info.si_code < 0) return Cause::kOther;
  // Positive codes mean different things for different signals. Those of SIGIO
  // come with any signal that was chosen with F_SETSIG; and no other signal
  // that can be received has codes of its own.
  return info.si_signo == SIGCHLD ? Cause::kChild : Cause::kIo;
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
  using Cause = SignalEvent::Cause;
  const siginfo_t info = raw.Full();
  SignalEvent event;
  event.signum = info.si_signo;
  event.count = count;
  event.cause = CauseOf(info);
  event.received_at = received_at;
  switch (event.cause) {
    case Cause::kUser:
    case Cause::kQueue:
    case Cause::kMessageQueue:
      if (info.si_pid != 0) event.sender = {info.si_pid, info.si_uid};
      if (event.cause != Cause::kUser) event.value = info.si_value;
      break;
    case Cause::kTimer:
      event.value = info.si_value;
      event.timer_overrun = info.si_overrun;
      break;
    case Cause::kChild:
      event.sender = {info.si_pid, info.si_uid};
      event.child = {info.si_pid, ChangeOf(info.si_code), info.si_status};
      break;
    case Cause::kIo:
      event.fd = info.si_fd;
      break;
    case Cause::kKernel:
    case Cause::kTerminal:
    case Cause::kOther:
      break;
  }
  return event;
}

}  // namespace tocsin::internal
