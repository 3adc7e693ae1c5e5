#include "tocsin/signals/job_control.h"

#include <csignal>
#include <utility>

#include "absl/memory/memory.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/signals/internal/stop_self.h"

namespace tocsin::inline v0_2 {

absl::StatusOr<std::unique_ptr<JobControl>> JobControl::Start(
    SignalService& service, JobControlOptions options) {
  ReceiverOptions receiver_options;
  receiver_options.honor_ignored = true;
  absl::StatusOr<SignalReceiver> receiver =
      service.Open({SIGTSTP, SIGCONT}, receiver_options);
  if (!receiver.ok()) return receiver.status();
  auto job_control = absl::WrapUnique(
      new JobControl(*std::move(receiver), std::move(options)));
  pthread_t thread;
  if (const int error =
          internal::StartThread<&JobControl::Listen, "tocsin-jobs">(
              thread, job_control.get());
      error != 0) {
    return internal::NoThread("JobControl", error);
  }
  job_control->thread_ = thread;
  return job_control;
}

JobControl::JobControl(SignalReceiver receiver, JobControlOptions options)
    : options_(std::move(options)), receiver_(std::move(receiver)) {}

JobControl::~JobControl() {
  if (!thread_.has_value()) return;
  receiver_.Close();
  pthread_join(*thread_, nullptr);
}

void JobControl::Listen() {
  for (auto event = receiver_.Receive(); event.ok();
       event = receiver_.Receive()) {
    bool stops = event->signum == SIGTSTP;
    while (stops) {
      if (options_.on_suspend) options_.on_suspend();
      // Of what came meanwhile, only whether the last was a SIGCONT counts.
      internal::StopSelfUnless([&] { return Last().value_or(0) == SIGCONT; });
      stops = Last().value_or(0) == SIGTSTP;
      if (options_.on_resume) options_.on_resume();
    }
  }
}

std::optional<int> JobControl::Last() {
  std::optional<int> last;
  bool repeated = false;
  for (auto event = receiver_.TryReceive(); event.ok();
       event = receiver_.TryReceive()) {
    // Of several, it is not known when the last came: better to run than to
    // stop where nobody continues the process.
    repeated |= event->signum == SIGCONT && event->count > 1;
    last = repeated ? SIGCONT : event->signum;
  }
  return last;
}

}  // namespace tocsin::inline v0_2
