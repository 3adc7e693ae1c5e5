#include "tocsin/signals/process.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/signals/internal/self_signal.h"
#include "tocsin/signals/internal/stop_self.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {

absl::Status Raise(int signum) {
  // With 0, which is no signal, kill(2) sends nothing and succeeds.
  if (signum != 0 && kill(getpid(), signum) == 0) return absl::OkStatus();
  if (signum == 0 || errno == EINVAL) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot raise signal ", signum,
                     ": signals are numbered from 1 to ", SIGRTMAX));
  }
  return absl::InternalError(absl::StrCat("kill for Raise() of ",
                                          SignalName(signum), ": ",
                                          internal::ErrorText(errno)));
}

void DieBySignal(int signum) { internal::DieBySignal(signum); }

void StopSelf() {
  internal::StopSelfUnless([] { return false; });
}

}  // namespace tocsin::inline v0_2
