// Puts a program's terminal in order around Ctrl+Z and fg.
//
//   absl::StatusOr<std::unique_ptr<JobControl>> job_control =
//       JobControl::Start(service, {.on_suspend = [&] { screen.Leave(); },
//                                   .on_resume = [&] { screen.Draw(); }});
//
// When SIGTSTP comes, as from Ctrl+Z in a shell, on_suspend runs, then the
// process stops, and when it is continued, on_resume runs. As POSIX has it, a
// SIGCONT takes back the stops before it: one that comes while on_suspend runs
// has on_resume follow at once, and a second Ctrl+Z there needs no second fg.
// Ctrl+Z works without this class: it is for programs that have to do something
// first, such as leaving the terminal's raw mode.
//
// The two run on a thread of the class's own, one after the other and with no
// lock held; the program's other threads run on until the process stops. Both
// run even in an orphaned process group, where the kernel does not stop the
// process (see StopSelf()). No program is told of a stop by SIGSTOP.
//
// If SIGTSTP is ignored in Start(), as in a shell without job control, it stays
// ignored, and no function runs.
#ifndef TOCSIN_SIGNALS_JOB_CONTROL_H_
#define TOCSIN_SIGNALS_JOB_CONTROL_H_

#include <pthread.h>

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin::inline v0_2 {

// Either function may be empty.
struct JobControlOptions {
  std::function<void()> on_suspend;
  std::function<void()> on_resume;
};

class JobControl {
 public:
  using Options = JobControlOptions;

  // From here on SIGTSTP runs the functions. Fails as SignalService::Open()
  // does, or with kResourceExhausted if its thread cannot be created; Ctrl+Z
  // then has its previous effect, and no function runs.
  static absl::StatusOr<std::unique_ptr<JobControl>> Start(
      SignalService& service, JobControlOptions options);

  JobControl(const JobControl&) = delete;
  JobControl& operator=(const JobControl&) = delete;
  // Waits for a function that is running.
  ~JobControl();

 private:
  JobControl(SignalReceiver receiver, JobControlOptions options);
  void Listen();
  // Takes all that is there. Returns what came last.
  std::optional<int> Last();

  const JobControlOptions options_;
  SignalReceiver receiver_;
  std::optional<pthread_t> thread_;  // uses all of the above
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_JOB_CONTROL_H_
