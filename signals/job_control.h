// Puts a program's terminal in order around Ctrl+Z and fg.
//
//   JobControl job_control(service, {.on_suspend = [&] { screen.Leave(); },
//                                    .on_resume = [&] { screen.Draw(); }});
//
// When SIGTSTP comes, as a shell's Ctrl+Z sends it, on_suspend runs, then the
// process stops, and when it is continued, on_resume runs. Without this class
// nothing is needed for Ctrl+Z to work: it is for programs that have to do
// something first, such as leaving the terminal's raw mode.
//
// The two run on a thread of its own, one after the other and with no lock
// held; the program's other threads run on until the process stops. Both run
// also where the kernel does not stop it, in an orphaned process group (see
// StopSelf()). A stop by SIGSTOP cannot be heard by anybody.
//
// SIGTSTP stays ignored where it is when this is made, as in a shell without
// job control.
#ifndef TOCSIN_SIGNALS_JOB_CONTROL_H_
#define TOCSIN_SIGNALS_JOB_CONTROL_H_

#include <pthread.h>

#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {

// Either may be empty.
struct JobControlHooks {
  std::function<void()> on_suspend;
  std::function<void()> on_resume;
};

class JobControl {
 public:
  JobControl(SignalService& service, JobControlHooks hooks);
  JobControl(const JobControl&) = delete;
  JobControl& operator=(const JobControl&) = delete;
  // Waits for a hook that is running.
  ~JobControl();

  // OK, or why it cannot hear SIGTSTP: what SignalService::Open() said, or
  // kResourceExhausted for the thread. Ctrl+Z then has its previous effect, and
  // no hook runs.
  absl::Status status() const { return status_; }

 private:
  void Listen();

  const JobControlHooks hooks_;
  absl::Status status_;
  std::optional<SignalReceiver> receiver_;  // nothing if status_ is not OK
  std::optional<pthread_t> thread_;         // uses all of the above
};

}  // namespace tocsin

#endif  // TOCSIN_SIGNALS_JOB_CONTROL_H_
