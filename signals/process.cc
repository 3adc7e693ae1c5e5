#include "tocsin/signals/process.h"

#include <pthread.h>
#include <unistd.h>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/disposition.h"

namespace tocsin {
namespace {

// Has `signum` delivered to the calling thread here, even if the thread blocks
// it. It is blocked before it is raised, so that it is not delivered earlier.
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

}  // namespace

int Raise(int signum) { return kill(getpid(), signum); }

// Takes no lock: it is the way out when everything else hangs.
void DieBySignal(int signum) {
  signal(signum, SIG_DFL);
  RaiseAndDeliver(signum);
  _exit(128 + signum);
}

void StopSelf() {
  internal::MutexLock lock(internal::disposition_mutex);
  internal::ScopedDefaultDisposition default_disposition(SIGTSTP);
  TOCSIN_STEP("StopSelf: about to stop");
  RaiseAndDeliver(SIGTSTP);
}

}  // namespace tocsin
