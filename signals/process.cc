#include "tocsin/signals/process.h"

#include <unistd.h>

#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/self_signal.h"

namespace tocsin {

int Raise(int signum) { return kill(getpid(), signum); }

void DieBySignal(int signum) { internal::DieBySignal(signum); }

void StopSelf() {
  internal::MutexLock lock(internal::disposition_mutex);
  internal::ScopedDefaultDisposition default_disposition(SIGTSTP);
  TOCSIN_STEP("StopSelf: about to stop");
  internal::RaiseAndDeliver(SIGTSTP);
}

}  // namespace tocsin
