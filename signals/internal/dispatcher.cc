#include "tocsin/signals/internal/dispatcher.h"

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/siginfo.h"

namespace tocsin::inline v0_2::internal {

Dispatcher::Dispatcher(std::optional<absl::Time> fake_time)
    : fake_(fake_time.has_value()),
      fake_wall_ahead_(absl::ToUnixNanos(fake_time.value_or(absl::Time()))) {}

bool Dispatcher::Dispatch(const RawSiginfo& info, bool redirected) {
  const int signum = info.signum();
  bool subscribed = false;
  bool observed = false;
  const absl::Time now = WallNow();
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    subscribed = Deliver(info, redirected, now, wakes);
    for (const Subscriber& subscription : registry_.For(signum)) {
      observed |= subscription.observed();
    }
  }
  if (observed) ShowToObserver(info, now);
  return subscribed;
}

bool Dispatcher::Deliver(const RawSiginfo& info, bool redirected,
                         absl::Time now, FutexWakes& wakes) {
  ++stats_.received;
  if (redirected) ++stats_.redirected;
  const Registry::Subscribers subscribers = registry_.For(info.signum());
  const uint32_t arrival = arrivals_.Add();
  for (Subscriber& subscription : subscribers) {
    subscription.Enqueue(info, arrival, now, wakes);
  }
  arrivals_.Release(arrival);
  return !subscribers.empty();
}

absl::Status Dispatcher::Observe(SynchronousObserver& observer) {
  MutexLock lock(observer_mutex_);
  if (observer_ != nullptr) {
    return absl::AlreadyExistsError(
        "this SignalService has a Shutdown, and there can be only one");
  }
  observer_ = &observer;
  return absl::OkStatus();
}

void Dispatcher::StopObserving() {
  MutexLock lock(observer_mutex_);
  observer_ = nullptr;
}

Instant Dispatcher::Alarm() const {
  MutexLock lock(observer_mutex_);
  return observer_ != nullptr ? observer_->alarm() : kNever;
}

void Dispatcher::RingAlarm() {
  const Instant now = Now();
  MutexLock lock(observer_mutex_);
  while (observer_ != nullptr && observer_->alarm() <= now)
    observer_->OnAlarm();
}

void Dispatcher::ShowToObserver(const RawSiginfo& info, absl::Time now) {
  const SignalEvent event = ToEvent(info, /*count=*/1, now);
  TOCSIN_STEP("Dispatcher: about to show the observer a signal");
  MutexLock lock(observer_mutex_);
  if (observer_ != nullptr) observer_->OnSignal(event);
}

Instant Dispatcher::Now() const {
  if (!fake_) return internal::Now();
  MutexLock lock(mutex_);
  return fake_now_;
}

absl::Time Dispatcher::WallNow() const {
  return fake_ ? ToWallTime(Now(), fake_wall_ahead_) : internal::WallNow();
}

void Dispatcher::Advance(absl::Duration duration) {
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    fake_now_ = Add(fake_now_, duration);
    for (Subscriber& subscription : registry_.all()) {
      subscription.WakeAll(wakes);
    }
  }
  RingAlarm();
}

SignalServiceStats Dispatcher::stats() const {
  MutexLock lock(mutex_);
  SignalServiceStats stats = stats_;
  stats.siginfo_lost = LostSiginfoCount() - siginfo_lost_before_;
  return stats;
}

absl::Status Dispatcher::Enter(Subscriber& subscription) {
  MutexLock lock(mutex_);
  Register(subscription);
  return absl::OkStatus();
}

std::vector<RawSiginfo> Dispatcher::Leave(Subscriber& subscription) {
  FutexWakes wakes;
  MutexLock lock(mutex_);
  if (registry_.Remove(subscription)) subscription.MarkClosed(wakes);
  return {};
}

void Dispatcher::CloseAll() {
  FutexWakes wakes;
  MutexLock lock(mutex_);
  for (Subscriber& subscription : registry_.all()) {
    subscription.MarkClosed(wakes);
  }
  registry_.Clear();
}

void Dispatcher::Return(const std::vector<RawSiginfo>& signals,
                        ReceiverOptions::OnClose on_close) {
  const bool redeliver = on_close == ReceiverOptions::OnClose::kRedeliver;
  {
    MutexLock lock(mutex_);
    (redeliver ? stats_.redelivered : stats_.discarded) += signals.size();
  }
  if (redeliver) SendAgain(signals);
}

void Dispatcher::Register(Subscriber& subscription) {
  registry_.Add(subscription);
  subscription.MarkOpen();
}

}  // namespace tocsin::inline v0_2::internal
