#include "tocsin/signals/stop_on_signal.h"

#include <sstream>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/scope_tree.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2 {

absl::StatusOr<std::unique_ptr<StopOnSignal>> StopOnSignal::Start(
    SignalService& service, const SignalSet& signals) {
  ReceiverOptions options;
  options.honor_ignored = true;
  absl::StatusOr<SignalReceiver> receiver = service.Open(signals, options);
  if (!receiver.ok()) return receiver.status();
  auto stop = absl::WrapUnique(new StopOnSignal(*std::move(receiver)));
  if (const internal::ScopeState* scope = internal::current_scope) {
    const std::stop_token token = internal::ScopeTree::TokenOf(*scope);
    stop->outer_.emplace(token, StopWithScope{stop.get(), token});
  }
  pthread_t thread;
  if (const int error =
          internal::StartThread<&StopOnSignal::Listen, "tocsin-stop">(
              thread, stop.get());
      error != 0) {
    return internal::NoThread("StopOnSignal", error);
  }
  stop->thread_ = thread;
  return stop;
}

StopOnSignal::StopOnSignal(SignalReceiver receiver)
    : receiver_(std::move(receiver)) {}

StopOnSignal::~StopOnSignal() {
  outer_.reset();
  if (!thread_.has_value()) return;
  receiver_.Close();
  pthread_join(*thread_, nullptr);
}

std::optional<SignalEvent> StopOnSignal::cause() const {
  if (stopped_by_.load(std::memory_order_acquire) != StoppedBy::kSignal) {
    return std::nullopt;
  }
  return event_;
}

void StopOnSignal::Listen() {
  absl::StatusOr<SignalEvent> event = receiver_.Receive();
  if (!event.ok()) return;
  receiver_.Close();
  event_ = *std::move(event);
  TOCSIN_STEP("StopOnSignal: has heard a signal");
  if (!BeStoppedBy(StoppedBy::kSignal)) return;
  std::ostringstream words;
  words << event_;
  scope_.Cancel(absl::CancelledError(words.str()));
}

bool StopOnSignal::BeStoppedBy(StoppedBy what) {
  StoppedBy nothing = StoppedBy::kNothing;
  return stopped_by_.compare_exchange_strong(nothing, what);
}

void StopOnSignal::StopWithScope::operator()() const {
  if (!self->BeStoppedBy(StoppedBy::kScope)) return;
  self->scope_.CancelAs(token);
}

}  // namespace tocsin::inline v0_2
