#include "tocsin/signals/signal_receiver.h"

#include <utility>

#include "tocsin/signals/internal/subscription.h"

namespace tocsin::inline v0_2 {

SignalReceiver::SignalReceiver(
    std::unique_ptr<internal::Subscription> subscription)
    : subscription_(std::move(subscription)) {}

SignalReceiver::SignalReceiver(SignalReceiver&&) noexcept = default;
SignalReceiver& SignalReceiver::operator=(SignalReceiver&&) noexcept = default;
SignalReceiver::~SignalReceiver() = default;

absl::StatusOr<SignalEvent> SignalReceiver::Receive() {
  return subscription_->Receive(absl::InfiniteDuration());
}

absl::StatusOr<SignalEvent> SignalReceiver::ReceiveFor(absl::Duration timeout) {
  return subscription_->Receive(timeout);
}

absl::StatusOr<SignalEvent> SignalReceiver::TryReceive() {
  return subscription_->TryReceive();
}

void SignalReceiver::Close() { subscription_->Close(); }

bool SignalReceiver::closed() const { return subscription_->closed(); }

SignalReceiver::iterator SignalReceiver::begin() { return iterator(*this); }

absl::StatusOr<int> SignalReceiver::fd() const { return subscription_->fd(); }

SignalSet SignalReceiver::signals() const { return subscription_->Signals(); }

uint64_t SignalReceiver::dropped() const { return subscription_->dropped(); }

SignalReceiver::iterator& SignalReceiver::iterator::operator++() {
  absl::StatusOr<SignalEvent> event = receiver_->Receive();
  if (event.ok()) {
    event_ = *std::move(event);
  } else {
    event_.reset();
  }
  return *this;
}

}  // namespace tocsin::inline v0_2
