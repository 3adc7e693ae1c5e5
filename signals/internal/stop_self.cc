#include "tocsin/signals/internal/stop_self.h"

#include <pthread.h>

#include <csignal>
#include <ctime>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/disposition.h"

namespace tocsin::inline v0_2::internal {

void StopSelfUnless(absl::FunctionRef<bool()> told_to_go_on) {
  MutexLock lock(disposition_mutex);
  ScopedDefaultDisposition default_disposition(SIGTSTP);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGTSTP);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &only, &before);
  raise(SIGTSTP);
  TOCSIN_STEP("StopSelf: about to stop");
  if (told_to_go_on()) {
    const timespec now = {};
    sigtimedwait(&only, nullptr, &now);
  }
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace tocsin::inline v0_2::internal
