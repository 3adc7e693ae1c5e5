#include "tocsin/signals/internal/self_signal.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>

namespace tocsin::inline v0_2::internal {

void RaiseAndDeliver(int signum) {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signum);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &only, &before);
  raise(signum);
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void DieBySignal(int signum) {
  // These would stop the process, for somebody to continue it.
  const bool stops = signum == SIGSTOP || signum == SIGTSTP ||
                     signum == SIGTTIN || signum == SIGTTOU;
  if (!stops) {
    signal(signum, SIG_DFL);
    RaiseAndDeliver(signum);
  }
  _exit(128 + signum);
}

}  // namespace tocsin::inline v0_2::internal
