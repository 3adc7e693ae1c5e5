#include "tocsin/signals/stop_on_signal.h"

#include <sstream>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin {

using internal::MutexLock;

StopOnSignal::StopOnSignal(SignalService& service, const SignalSet& signals) {
  if (const internal::ScopeState* scope = internal::current_scope) {
    outside_.emplace(internal::ScopeTree::TokenOf(*scope),
                     StopFromOutside{this});
  }
  ReceiverOptions options;
  options.honor_ignored = true;
  absl::StatusOr<SignalReceiver> receiver = service.Open(signals, options);
  status_ = receiver.status();
  if (receiver.ok()) {
    receiver_ = *std::move(receiver);
    auto listen = [](void* self) -> void* {
      pthread_setname_np(pthread_self(), "tocsin-stop");
      static_cast<StopOnSignal*>(self)->Listen();
      return nullptr;
    };
    pthread_t thread;
    if (const int error = pthread_create(&thread, nullptr, listen, this);
        error == 0) {
      thread_ = thread;
    } else {
      status_ = absl::ResourceExhaustedError(absl::StrCat(
          "pthread_create for StopOnSignal: ", internal::ErrorText(error)));
      receiver_.reset();
    }
  }
}

StopOnSignal::~StopOnSignal() {
  outside_.reset();
  if (!thread_.has_value()) return;
  receiver_->Close();
  pthread_join(*thread_, nullptr);
}

std::optional<SignalEvent> StopOnSignal::cause() const {
  MutexLock lock(mutex_);
  return cause_;
}

void StopOnSignal::Tie(CancelScope& scope) {
  {
    MutexLock lock(mutex_);
    if (!stopped_) {
      TOCSIN_STEP("StopOnSignal: about to tie");
      tied_.push_back(&scope);
      return;
    }
  }
  scope.Cancel(Reason());
}

void StopOnSignal::Listen() {
  absl::StatusOr<SignalEvent> event = receiver_->Receive();
  if (!event.ok()) return;
  receiver_->Close();
  Stop(*event);
}

void StopOnSignal::Stop(const std::optional<SignalEvent>& cause) {
  std::vector<CancelScope*> tied;
  {
    MutexLock lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    cause_ = cause;
    tied.swap(tied_);
  }
  for (CancelScope* scope : tied) scope->Cancel(Reason());
  source_.request_stop();
}

absl::Status StopOnSignal::Reason() const {
  const std::optional<SignalEvent> event = cause();
  if (!event.has_value()) return absl::CancelledError("stop was requested");
  std::ostringstream words;
  words << *event;
  return absl::CancelledError(words.str());
}

void StopOnSignal::StopFromOutside::operator()() const {
  self->Stop(std::nullopt);
}

}  // namespace tocsin
