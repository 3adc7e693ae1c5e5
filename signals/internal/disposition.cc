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

// What other code had there at the last close, or null, which is the default.
// Who put it there may put our handler back.
constinit void* replacement[kSignals] ABSL_GUARDED_BY(disposition_mutex) = {};

// Whether other code has put it there, by sigaction(3), which sets its own
// restorer or none.
bool IsPutBack(const KernelAction& ours) {
  return ours.restorer != reinterpret_cast<void*>(kHandlerAddresses.restorer) ||
         (ours.flags & kRestorer) == 0;
}

KernelAction ActionFor(int signum, const KernelAction& instead_of) {
  if (signum != SIGCHLD) return OurAction();
  // Keeps which children become zombies, and which of their changes raise it.
  const unsigned long kept = instead_of.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
  return OurAction(IgnoredBy(instead_of) ? kept | SA_NOCLDWAIT : kept);
}

// What is to stand in place of this handler of ours. Who put it back meant to
// restore all that it had found.
const KernelAction& ToRestore(int signum, const KernelAction& ours)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex) {
  return IsPutBack(ours) ? handler_state.before[signum] : replaced[signum];
}

}  // namespace

ABSL_CONST_INIT SlimMutex disposition_mutex;

void Forward(int signum) {
  const bool again = __atomic_exchange_n(&handler_state.forwarded[signum],
                                         uint8_t{1}, __ATOMIC_SEQ_CST) != 0;
  // Some may have found the signal closed, and be about to restore.
  AwaitHandlers(signum);
  const KernelAction seen = GetAction(signum);
  if (!IsOurs(seen)) installed[signum] = ActionFor(signum, seen);
  TOCSIN_STEP("Disposition: about to install the handler");
  const KernelAction found = ExchangeAction(signum, installed[signum]);
  if (IsOurs(found)) {
    // It was put back after a close.
    replaced[signum] = handler_state.before[signum];
    replacement[signum] = nullptr;
    return;
  }
  replaced[signum] = found;
  // As long as a replacement stands, what it replaced was before us.
  const bool still_replaced =
      replacement[signum] != nullptr && replacement[signum] == found.handler;
  if (again || still_replaced) return;
  handler_state.before[signum] = found;
  replacement[signum] = nullptr;
}

bool RestoreDisposition(int signum) {
  const KernelAction seen = GetAction(signum);
  if (!IsOurs(seen)) {
    replacement[signum] = seen.handler;
    return false;
  }
  const KernelAction found = ExchangeAction(signum, ToRestore(signum, seen));
  if (!IsOurs(found)) {
    // Other code came in between.
    SetAction(signum, found);
    replacement[signum] = found.handler;
    return false;
  }
  if (IsPutBack(found)) {
    replacement[signum] = nullptr;
    SetAction(signum, ToRestore(signum, found));
  }
  return true;
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
  return IsPutBack(found) ? HandlerIs::kPutBack : HandlerIs::kInPlace;
}

void Reinstall(int signum) {
  replaced[signum] = handler_state.before[signum];
  const KernelAction found = ExchangeAction(signum, installed[signum]);
  if (!IsOurs(found)) SetAction(signum, found);
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
