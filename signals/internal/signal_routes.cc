#include "tocsin/signals/internal/signal_routes.h"

#include <cstdint>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/signals/internal/pending_signals.h"

namespace tocsin::inline v0_2::internal {

SignalSet SignalRoutes::Alone(const Subscriber& subscription) const {
  SignalSet alone;
  if (subscription.observed()) return alone;
  for (int signum : subscription.signals()) {
    if (!IsStandard(signum) || registry_.IsShared(signum)) continue;
    // A subscription that is leaving is still registered.
    if (wanted_.contains(signum)) alone.insert(signum);
  }
  return alone;
}

SignalSet SignalRoutes::ToLeadFor(const Subscriber& subscription) {
  if (!leadership_.possible()) return {};
  // Its descriptor must become readable even while no thread waits.
  if (subscription.GaveOutDescriptor()) return {};
  return Alone(subscription);
}

void SignalRoutes::Promote(const Subscriber& subscription, Waiter& waiter) {
  const SignalSet alone = Alone(subscription);
  if (waiter.leader.able()) {
    leadership_.Promote(alone, waiter.leader, waiter.sleeper);
    return;
  }
  for (int signum : alone) {
    if (handoff_.Offer(signum, waiter.sleeper)) waiter.offered.insert(signum);
  }
}

void SignalRoutes::StepDown(Waiter& waiter, FutexWakes& wakes) {
  leadership_.StepDown(waiter.sleeper, waiter.took);
  for (int signum : std::exchange(waiter.offered, {})) {
    if (handoff_.IsOfferedBy(signum, waiter.sleeper)) {
      TakeBackAndDeliver(signum, wakes);
    }
  }
}

void SignalRoutes::Drain(bool waits, FutexWakes& wakes) {
  uint64_t left = leadership_.ToDrain(waits);
  RawSiginfo info;
  while (TakeNext(left, info)) {
    leadership_.EndTurn();
    Deliver(info, /*redirected=*/false, internal::WallNow(), wakes);
  }
}

void SignalRoutes::TakeBackAndDeliver(int signum, FutexWakes& wakes) {
  RawSiginfo info;
  const int count = handoff_.TakeBack(signum, info);
  if (count == 0) return;
  const absl::Time now = internal::WallNow();
  for (int i = 0; i < count; ++i) {
    Deliver(info, /*redirected=*/true, now, wakes);
  }
}

}  // namespace tocsin::inline v0_2::internal
