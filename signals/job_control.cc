#include "tocsin/signals/job_control.h"

#include <csignal>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/signals/process.h"

namespace tocsin {

JobControl::JobControl(SignalService& service, JobControlHooks hooks)
    : hooks_(std::move(hooks)) {
  ReceiverOptions options;
  options.honor_ignored = true;
  absl::StatusOr<SignalReceiver> receiver = service.Open({SIGTSTP}, options);
  status_ = receiver.status();
  if (!receiver.ok()) return;
  receiver_ = *std::move(receiver);
  auto listen = [](void* self) -> void* {
    pthread_setname_np(pthread_self(), "tocsin-jobs");
    static_cast<JobControl*>(self)->Listen();
    return nullptr;
  };
  pthread_t thread;
  if (const int error = pthread_create(&thread, nullptr, listen, this);
      error != 0) {
    status_ = absl::ResourceExhaustedError(absl::StrCat(
        "pthread_create for JobControl: ", internal::ErrorText(error)));
    receiver_.reset();
    return;
  }
  thread_ = thread;
}

JobControl::~JobControl() {
  if (!thread_.has_value()) return;
  receiver_->Close();
  pthread_join(*thread_, nullptr);
}

void JobControl::Listen() {
  while (receiver_->Receive().ok()) {
    if (hooks_.on_suspend) hooks_.on_suspend();
    StopSelf();
    if (hooks_.on_resume) hooks_.on_resume();
  }
}

}  // namespace tocsin
