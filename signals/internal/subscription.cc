#include "tocsin/signals/internal/subscription.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/siginfo.h"
#include "tocsin/signals/signal_service_stats.h"

namespace tocsin::inline v0_2::internal {

Subscription::Subscription(std::shared_ptr<Dispatcher> dispatcher,
                           const SignalSet& signals,
                           const ReceiverOptions& options, bool observed)
    : Subscriber(signals, options, observed),
      dispatcher_(std::move(dispatcher)),
      queue_(signals, options.capacity, dispatcher_->arrivals_) {
  MutexLock lock(dispatcher_->mutex_);
  dispatcher_->arrivals_.AddPlaces(queue_.places());
}

Subscription::~Subscription() {
  std::vector<RawSiginfo> on_their_way = dispatcher_->Leave(*this);
  std::vector<RawSiginfo> unread;
  {
    MutexLock lock(dispatcher_->mutex_);
    while (!queue_.empty()) {
      RawSiginfo info;
      const bool only_here = queue_.Remove(info);
      if (only_here && !dispatcher_->Forked()) unread.push_back(info);
    }
    dispatcher_->arrivals_.RemovePlaces(queue_.places());
  }
  if (fd_ >= 0) close(fd_);
  unread.insert(unread.end(), on_their_way.begin(), on_their_way.end());
  dispatcher_->Return(unread, options_.on_close);
}

void Subscription::Close() {
  dispatcher_->Return(dispatcher_->Leave(*this), options_.on_close);
}

absl::StatusOr<SignalEvent> Subscription::Receive(absl::Duration timeout) {
  absl::Status status = ScopeState::CheckCurrent();
  if (!status.ok()) return status;
  std::optional<Queued> queued;
  SignalSet to_lead_for;
  {
    FutexWakes wakes;
    MutexLock lock(dispatcher_->mutex_);
    queued =
        DequeueOrDrain(/*waits=*/timeout == absl::InfiniteDuration(), wakes);
    to_lead_for = dispatcher_->ToLeadFor(*this);
  }
  if (queued.has_value())
    return ToEvent(queued->info, queued->count, queued->received_at);
  const Instant until = Add(dispatcher_->Now(), timeout);
  Waiter waiter(dispatcher_->fake_ ? kNever : until, to_lead_for,
                dispatcher_->waiting_room_);
  TOCSIN_STEP("Receive: found nothing");
  while (true) {
    {
      FutexWakes wakes;
      MutexLock lock(dispatcher_->mutex_);
      dispatcher_->StepDown(waiter, wakes);
      // A thread whose wait is over still takes an event if it was picked for
      // it: no other thread was.
      if (status.ok() || !waiter.listed) queued = Dequeue();
      if (!queued.has_value() && status.ok()) status = WhyOver(until);
      if (queued.has_value() || !status.ok()) {
        Unlist(waiter);
        break;
      }
      List(waiter);
      if (first_waiter_ == &waiter) dispatcher_->Promote(*this, waiter);
    }
    TOCSIN_STEP("Receive: about to sleep");
    status = waiter.Sleep();
    TOCSIN_STEP("Receive: wait is over");
    if (const auto taken = waiter.leader.Taken(); taken.has_value()) {
      waiter.took = taken->signum();
      // Nobody is subscribed to it if the receiver was closed meanwhile.
      if (!dispatcher_->Dispatch(*taken, /*redirected=*/false)) {
        dispatcher_->Return({*taken}, options_.on_close);
      }
    }
  }
  if (queued.has_value())
    return ToEvent(queued->info, queued->count, queued->received_at);
  return status;
}

absl::StatusOr<SignalEvent> Subscription::TryReceive() {
  std::optional<Queued> queued;
  absl::Status over;
  {
    FutexWakes wakes;
    MutexLock lock(dispatcher_->mutex_);
    queued = DequeueOrDrain(/*waits=*/false, wakes);
    if (!queued.has_value()) over = WhyOver(kNever);
  }
  if (!queued.has_value()) {
    // Without a message, so that polling allocates nothing.
    return over.ok() ? absl::UnavailableError("") : over;
  }
  return ToEvent(queued->info, queued->count, queued->received_at);
}

absl::StatusOr<int> Subscription::fd() {
  MutexLock lock(dispatcher_->mutex_);
  if (fd_ < 0) {
    fd_ =
        eventfd(!queue_.empty() || closed_ ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd_ < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("eventfd for SignalReceiver::fd(): ", ErrorText(errno)));
    }
  }
  return fd_;
}

uint64_t Subscription::dropped() const {
  MutexLock lock(dispatcher_->mutex_);
  return queue_.dropped();
}

bool Subscription::closed() const {
  MutexLock lock(dispatcher_->mutex_);
  return closed_ || dispatcher_->Forked();
}

SignalSet Subscription::Signals() const {
  MutexLock lock(dispatcher_->mutex_);
  return signals();
}

void Subscription::Enqueue(const RawSiginfo& info, uint32_t arrival,
                           absl::Time now, FutexWakes& wakes) {
  SignalServiceStats& stats = dispatcher_->stats_;
  switch (queue_.Push(info, arrival, now)) {
    case EventQueue::Pushed::kMerged:
      ++stats.merged;
      return;
    case EventQueue::Pushed::kDropped:
      ++stats.dropped;
      return;
    case EventQueue::Pushed::kQueued:
      break;
  }
  ++stats.delivered;
  if (queue_.size() == 1) SetReadable(true);
  Pick(wakes);
}

std::optional<Subscription::Queued> Subscription::Dequeue() {
  if (queue_.empty() || dispatcher_->Forked()) return std::nullopt;
  const Queued queued = queue_.Pop();
  if (queue_.empty() && !closed_) SetReadable(false);
  return queued;
}

std::optional<Subscription::Queued> Subscription::DequeueOrDrain(
    bool waits, FutexWakes& wakes) {
  std::optional<Queued> queued = Dequeue();
  if (queued.has_value()) return queued;
  dispatcher_->Drain(waits, wakes);
  return Dequeue();
}

absl::Status Subscription::WhyOver(Instant until) const {
  if (dispatcher_->Forked()) {
    return absl::FailedPreconditionError(
        "forked: this receiver belongs to the parent process; start a "
        "SignalService in the child and open one there");
  }
  if (closed_) return absl::OutOfRangeError("the receiver is closed");
  if (dispatcher_->fake_ && dispatcher_->fake_now_ >= until) {
    return absl::DeadlineExceededError("the timeout of the call passed");
  }
  return absl::OkStatus();
}

void Subscription::MarkClosed(FutexWakes& wakes) {
  closed_ = true;
  SetReadable(true);
  while (first_waiter_ != nullptr) Pick(wakes);
}

void Subscription::WakeAll(FutexWakes& wakes) {
  for (auto* waiter = first_waiter_; waiter != nullptr; waiter = waiter->next) {
    waiter->sleeper.WakeLater(wakes);
  }
}

void Subscription::List(Waiter& waiter) {
  if (waiter.listed) return;
  waiter.listed = true;
  waiter.next = nullptr;
  (last_waiter_ != nullptr ? last_waiter_->next : first_waiter_) = &waiter;
  last_waiter_ = &waiter;
}

void Subscription::Unlist(Waiter& waiter) {
  if (!waiter.listed) return;
  waiter.listed = false;
  // A handler has called fork(), and this child has returned into the wait: the
  // list is empty here (ForgetWaiters()).
  if (dispatcher_->Forked()) return;
  Waiter* before = nullptr;
  for (Waiter* w = first_waiter_; w != &waiter; w = w->next) before = w;
  (before != nullptr ? before->next : first_waiter_) = waiter.next;
  if (last_waiter_ == &waiter) last_waiter_ = before;
}

void Subscription::Pick(FutexWakes& wakes) {
  Waiter* waiter = first_waiter_;
  if (waiter == nullptr) return;
  first_waiter_ = waiter->next;
  if (first_waiter_ == nullptr) last_waiter_ = nullptr;
  waiter->listed = false;
  waiter->sleeper.WakeLater(wakes);
}

void Subscription::SetReadable(bool readable) {
  if (fd_ < 0) return;
  if (readable) {
    eventfd_write(fd_, 1);
  } else {
    eventfd_t ignored;
    eventfd_read(fd_, &ignored);
  }
}

}  // namespace tocsin::inline v0_2::internal
