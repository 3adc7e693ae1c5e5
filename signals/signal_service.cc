#include "tocsin/signals/signal_service.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/kernel_signals.h"
#include "tocsin/signals/internal/subscription.h"

namespace tocsin::inline v0_2 {

absl::StatusOr<std::unique_ptr<SignalService>> SignalService::Start(
    SignalServiceOptions options) {
  auto kernel = internal::KernelSignals::Start(std::move(options.on_replaced));
  if (!kernel.ok()) return kernel.status();
  absl::Cleanup not_handed_out = [&] { (*kernel)->Stop(); };
  auto service = absl::WrapUnique(new SignalService(*kernel));
  std::move(not_handed_out).Cancel();
  return service;
}

SignalService::SignalService(std::shared_ptr<internal::Dispatcher> dispatcher)
    : dispatcher_(std::move(dispatcher)) {}

SignalService::~SignalService() { dispatcher_->Stop(); }

absl::StatusOr<SignalReceiver> SignalService::Open(const SignalSet& signals,
                                                   ReceiverOptions options) {
  return Open(signals, options, /*observed=*/false);
}

absl::StatusOr<SignalReceiver> SignalService::Open(
    const SignalSet& signals, const ReceiverOptions& options, bool observed) {
  if (absl::Status status = CheckReceivable(signals); !status.ok()) {
    return status;
  }
  if (options.capacity < 1 || options.capacity > kMaxReceiverCapacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("ReceiverOptions::capacity is ", options.capacity,
                     "; give 1 to ", kMaxReceiverCapacity));
  }
  auto subscription = std::make_unique<internal::Subscription>(
      dispatcher_, signals, options, observed);
  if (absl::Status status = subscription->Enter(); !status.ok()) return status;
  return SignalReceiver(std::move(subscription));
}

SignalServiceStats SignalService::stats() const { return dispatcher_->stats(); }

absl::Status SignalService::Verify() const { return dispatcher_->Verify(); }

}  // namespace tocsin::inline v0_2
