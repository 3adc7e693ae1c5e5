#include "tocsin/signals/internal/disposition.h"

#include <csignal>
#include <cstring>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin::inline v0_2::internal {

namespace {

constinit KernelAction previous[kSignals] ABSL_GUARDED_BY(
    disposition_mutex) = {};

bool IgnoredBy(const KernelAction& action) {
  return action.handler == reinterpret_cast<void*>(SIG_IGN);
}

}  // namespace

ABSL_CONST_INIT SlimMutex disposition_mutex;

void Forward(int signum) {
  previous[signum] = GetAction(signum);
  KernelAction action{};
  action.handler = reinterpret_cast<void*>(kHandlerAddresses.handler);
  action.flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | kRestorer;
  action.mask = ~uint64_t{0};
  if (signum == SIGCHLD) {
    // Keeps which children become zombies, and which of their changes raise it.
    action.flags |= previous[signum].flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
    if (IgnoredBy(previous[signum])) action.flags |= SA_NOCLDWAIT;
  }
  action.restorer = reinterpret_cast<void*>(kHandlerAddresses.restorer);
  __atomic_store_n(&handler_state.ignored_before[signum],
                   uint8_t{IgnoredBy(previous[signum])}, __ATOMIC_SEQ_CST);
  __atomic_store_n(&handler_state.forwarded[signum], uint8_t{1},
                   __ATOMIC_SEQ_CST);
  TOCSIN_STEP("Disposition: about to install the handler");
  SetAction(signum, action);
}

bool RestoreDisposition(int signum) {
  if (!HandlerInPlace(signum)) return false;
  SetAction(signum, previous[signum]);
  return true;
}

bool IsIgnored(int signum) {
  if (HandlerInPlace(signum)) {
    return __atomic_load_n(&handler_state.ignored_before[signum],
                           __ATOMIC_SEQ_CST);
  }
  return IgnoredBy(GetAction(signum));
}

bool HandlerInPlace(int signum) {
  return GetAction(signum).handler ==
         reinterpret_cast<void*>(kHandlerAddresses.handler);
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
