#include "tocsin/signals/internal/disposition.h"

#include <sched.h>

#include <csignal>
#include <cstring>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin::inline v0_2::internal {

namespace {

// What a close restores. Other than HandlerState::before where our handler was
// replaced while it was wanted, and installed once more.
constinit KernelAction replaced[kSignals] ABSL_GUARDED_BY(
    disposition_mutex) = {};
constinit KernelAction installed[kSignals] ABSL_GUARDED_BY(
    disposition_mutex) = {};

bool IsOurs(const KernelAction& action) {
  return action.handler == reinterpret_cast<void*>(kHandlerAddresses.handler);
}

KernelAction OurAction(int signum, const KernelAction& instead_of) {
  KernelAction action{};
  action.handler = reinterpret_cast<void*>(kHandlerAddresses.handler);
  action.flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | kRestorer;
  action.mask = ~uint64_t{0};
  if (signum == SIGCHLD) {
    // Keeps which children become zombies, and which of their changes raise it.
    action.flags |= instead_of.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
    if (IgnoredBy(instead_of)) action.flags |= SA_NOCLDWAIT;
  }
  action.restorer = reinterpret_cast<void*>(kHandlerAddresses.restorer);
  return action;
}

}  // namespace

ABSL_CONST_INIT SlimMutex disposition_mutex;

void Forward(int signum) {
  const bool again = __atomic_exchange_n(&handler_state.forwarded[signum],
                                         uint8_t{1}, __ATOMIC_SEQ_CST) != 0;
  // Some may have found the signal closed, and be about to restore.
  AwaitHandlers(signum);
  const KernelAction found = GetAction(signum);
  if (!IsOurs(found)) {
    replaced[signum] = found;
    if (!again) handler_state.before[signum] = found;
    installed[signum] = OurAction(signum, found);
  }
  TOCSIN_STEP("Disposition: about to install the handler");
  SetAction(signum, installed[signum]);
}

bool RestoreDisposition(int signum) {
  switch (FindHandler(signum)) {
    case HandlerIs::kInPlace:
      SetAction(signum, replaced[signum]);
      return true;
    case HandlerIs::kPutBack:
      // With what it put back it meant to restore all that it found.
      SetAction(signum, handler_state.before[signum]);
      return true;
    case HandlerIs::kReplaced:
      return false;
  }
  return false;
}

void StopForwarding(int signum) {
  __atomic_store_n(&handler_state.forwarded[signum], uint8_t{0},
                   __ATOMIC_SEQ_CST);
}

void AwaitHandlers(int signum) {
  while (__atomic_load_n(&handler_state.handlers_running[signum],
                         __ATOMIC_SEQ_CST) != 0) {
    TOCSIN_STEP("Disposition: waits for a handler");
    sched_yield();
  }
}

HandlerIs FindHandler(int signum) {
  const KernelAction found = GetAction(signum);
  if (!IsOurs(found)) return HandlerIs::kReplaced;
  // sigaction(3) sets its own restorer, or none.
  const bool by_us =
      found.restorer == reinterpret_cast<void*>(kHandlerAddresses.restorer) &&
      (found.flags & kRestorer) != 0;
  return by_us ? HandlerIs::kInPlace : HandlerIs::kPutBack;
}

void Reinstall(int signum) {
  replaced[signum] = handler_state.before[signum];
  SetAction(signum, installed[signum]);
}

SignalSet HandledByOthers() {
  SignalSet signals;
  for (int signum = 1; signum < kSignals; ++signum) {
    const KernelAction found = GetAction(signum);
    if (IsHandler(found) && !IsOurs(found)) signals.insert(signum);
  }
  return signals;
}

bool IsIgnored(int signum) {
  const KernelAction found = GetAction(signum);
  return IgnoredBy(IsOurs(found) ? handler_state.before[signum] : found);
}

bool IgnoreBrokenPipes() {
  MutexLock lock(disposition_mutex);
  KernelAction action = GetAction(SIGPIPE);
  if (action.handler != reinterpret_cast<void*>(SIG_DFL)) return false;
  action.handler = reinterpret_cast<void*>(SIG_IGN);
  SetAction(SIGPIPE, action);
  return true;
}

void KillOnBrokenPipes() {
  MutexLock lock(disposition_mutex);
  KernelAction action = GetAction(SIGPIPE);
  if (!IgnoredBy(action)) return;
  action.handler = reinterpret_cast<void*>(SIG_DFL);
  SetAction(SIGPIPE, action);
}

ScopedDefaultDisposition::ScopedDefaultDisposition(int signum)
    : signum_(signum) {
  const KernelAction action = GetAction(signum);
  static_assert(sizeof(previous_) == sizeof(action));
  std::memcpy(previous_, &action, sizeof(action));
  KernelAction default_action{};
  SetAction(signum, default_action);
}

ScopedDefaultDisposition::~ScopedDefaultDisposition() {
  KernelAction action;
  std::memcpy(&action, previous_, sizeof(action));
  SetAction(signum_, action);
}

}  // namespace tocsin::inline v0_2::internal
