#include "tocsin/signals/internal/dispatcher.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin::internal {
namespace {

uint32_t PlacesFor(const SignalSet& signals, int capacity) {
  for (int signum : signals) {
    if (!IsStandard(signum))
      return static_cast<uint32_t>(capacity) + kStandardSignals;
  }
  return kStandardSignals;
}

bool IsTerminalSignal(int signum) {
  switch (signum) {
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGHUP:
    case SIGCONT:
    case SIGWINCH:
      return true;
  }
  return false;
}

SignalEvent::Cause CauseOf(const siginfo_t& info) {
  using Cause = SignalEvent::Cause;
  switch (info.si_code) {
    case SI_USER:
    case SI_TKILL:
      return Cause::kUser;
    case SI_QUEUE:
      return Cause::kQueue;
    case SI_TIMER:
      return Cause::kTimer;
    case SI_MESGQ:
      return Cause::kMessageQueue;
    case SI_KERNEL:
      return IsTerminalSignal(info.si_signo) ? Cause::kTerminal
                                             : Cause::kKernel;
    case SI_SIGIO:
      return Cause::kIo;
  }
  if (info.si_code < 0) return Cause::kOther;
  // Positive codes mean different things for different signals. Those of SIGIO
  // come with any signal that was chosen with F_SETSIG; and no other signal
  // that can be received has codes of its own.
  return info.si_signo == SIGCHLD ? Cause::kChild : Cause::kIo;
}

ChildStatus::Change ChangeOf(int code) {
  switch (code) {
    case CLD_KILLED:
      return ChildStatus::Change::kKilled;
    case CLD_DUMPED:
      return ChildStatus::Change::kDumped;
    case CLD_TRAPPED:
      return ChildStatus::Change::kTrapped;
    case CLD_STOPPED:
      return ChildStatus::Change::kStopped;
    case CLD_CONTINUED:
      return ChildStatus::Change::kContinued;
  }
  return ChildStatus::Change::kExited;
}

}  // namespace

SignalEvent ToEvent(const RawSiginfo& raw, int count, absl::Time received_at) {
  using Cause = SignalEvent::Cause;
  const siginfo_t info = raw.Full();
  SignalEvent event;
  event.signum = info.si_signo;
  event.count = count;
  event.cause = CauseOf(info);
  event.received_at = received_at;
  switch (event.cause) {
    case Cause::kUser:
    case Cause::kQueue:
    case Cause::kMessageQueue:
      if (info.si_pid != 0) event.sender = {info.si_pid, info.si_uid};
      if (event.cause != Cause::kUser) event.value = info.si_value;
      break;
    case Cause::kTimer:
      event.value = info.si_value;
      event.timer_overrun = info.si_overrun;
      break;
    case Cause::kChild:
      event.sender = {info.si_pid, info.si_uid};
      event.child = {info.si_pid, ChangeOf(info.si_code), info.si_status};
      break;
    case Cause::kIo:
      event.fd = info.si_fd;
      break;
    case Cause::kKernel:
    case Cause::kTerminal:
    case Cause::kOther:
      break;
  }
  return event;
}

void Arrivals::AddPlaces(uint32_t places) {
  const size_t needed = places_ + places + 1;
  arrivals_.reserve(needed);
  free_.reserve(needed);
  // From here on nothing throws.
  places_ += places;
  for (uint32_t next = static_cast<uint32_t>(arrivals_.size()); next < needed;
       ++next) {
    arrivals_.push_back({});
    free_.push_back(next);
  }
}

uint32_t Arrivals::Add() {
  const uint32_t arrival = free_.back();
  free_.pop_back();
  arrivals_[arrival] = {.holders = 1, .received = false};
  return arrival;
}

void Arrivals::Release(uint32_t arrival) {
  if (--arrivals_[arrival].holders == 0) free_.push_back(arrival);
}

EventQueue::EventQueue(const SignalSet& signals, int capacity,
                       Arrivals& arrivals)
    : arrivals_(arrivals),
      capacity_(capacity),
      places_(PlacesFor(signals, capacity)),
      // Not zeroed: it is touched as far as it is used.
      ring_(new Queued[places_]) {}

EventQueue::Pushed EventQueue::Push(const RawSiginfo& info, uint32_t arrival,
                                    absl::Time now) {
  const int signum = info.signum();
  if (standard_queued_.contains(signum)) {
    Queued& queued = At(standard_at_[signum]);
    ++queued.count;
    arrivals_.Release(std::exchange(queued.arrival, arrival));
    arrivals_.Hold(arrival);
    return Pushed::kMerged;
  }
  if (IsStandard(signum)) {
    standard_queued_.insert(signum);
    standard_at_[signum] = tail_;
  } else if (real_time_queued_ == capacity_) {
    ++dropped_;
    return Pushed::kDropped;
  } else {
    ++real_time_queued_;
  }
  arrivals_.Hold(arrival);
  At(tail_++) = {info, 1, now, arrival};
  return Pushed::kQueued;
}

EventQueue::Queued EventQueue::Pop() {
  const Queued queued = TakeOldest();
  arrivals_.MarkReceived(queued.arrival);
  arrivals_.Release(queued.arrival);
  return queued;
}

bool EventQueue::Remove(RawSiginfo& info) {
  const Queued queued = TakeOldest();
  info = queued.info;
  const bool only_here = arrivals_.IsOnlyHere(queued.arrival);
  arrivals_.Release(queued.arrival);
  return only_here;
}

EventQueue::Queued EventQueue::TakeOldest() {
  const Queued queued = At(head_++);
  const int signum = queued.info.signum();
  if (IsStandard(signum)) {
    standard_queued_.erase(signum);
  } else {
    --real_time_queued_;
  }
  return queued;
}

Dispatcher::Dispatcher(std::optional<absl::Time> fake_time)
    : fake_(fake_time.has_value()),
      fake_now_(fake_time.value_or(absl::InfinitePast())) {}

bool Dispatcher::Dispatch(const RawSiginfo& info, bool redirected) {
  const int signum = info.signum();
  bool subscribed = false;
  bool watched = false;
  absl::Time now;
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    now = fake_ ? fake_now_ : internal::Now();
    subscribed = Deliver(info, redirected, now, wakes);
    for (const Subscription* subscription : registered_) {
      watched |=
          subscription->watched_ && subscription->signals_.contains(signum);
    }
  }
  if (watched) ShowToWatch(info, now);
  return subscribed;
}

bool Dispatcher::Deliver(const RawSiginfo& info, bool redirected,
                         absl::Time now, FutexWakes& wakes) {
  ++stats_.received;
  if (redirected) ++stats_.redirected;
  bool subscribed = false;
  const uint32_t arrival = arrivals_.Add();
  for (Subscription* subscription : registered_) {
    if (!subscription->signals_.contains(info.signum())) continue;
    subscription->Enqueue(info, arrival, now, wakes);
    subscribed = true;
  }
  arrivals_.Release(arrival);
  return subscribed;
}

absl::Status Dispatcher::Watch(SignalWatch& watch) {
  MutexLock lock(watch_mutex_);
  if (watch_ != nullptr) {
    return absl::AlreadyExistsError(
        "this SignalService has a Shutdown, and there can be only one");
  }
  watch_ = &watch;
  return absl::OkStatus();
}

void Dispatcher::Unwatch() {
  MutexLock lock(watch_mutex_);
  watch_ = nullptr;
}

absl::Time Dispatcher::Alarm() const {
  MutexLock lock(watch_mutex_);
  return watch_ != nullptr ? watch_->alarm() : absl::InfiniteFuture();
}

void Dispatcher::RingAlarm() {
  const absl::Time now = Now();
  MutexLock lock(watch_mutex_);
  while (watch_ != nullptr && watch_->alarm() <= now) watch_->OnAlarm();
}

void Dispatcher::ShowToWatch(const RawSiginfo& info, absl::Time now) {
  const SignalEvent event = ToEvent(info, /*count=*/1, now);
  TOCSIN_STEP("Dispatcher: about to show the watch a signal");
  MutexLock lock(watch_mutex_);
  if (watch_ != nullptr) watch_->OnSignal(event);
}

absl::Time Dispatcher::Now() const {
  if (!fake_) return internal::Now();
  MutexLock lock(mutex_);
  return fake_now_;
}

void Dispatcher::Advance(absl::Duration duration) {
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    fake_now_ += duration;
    for (Subscription* subscription : registered_) {
      for (auto* waiter = subscription->first_waiter_; waiter != nullptr;
           waiter = waiter->next) {
        waiter->sleeper.WakeLater(wakes);
      }
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

absl::Status Dispatcher::Enter(Subscription& subscription) {
  MutexLock lock(mutex_);
  Register(subscription);
  return absl::OkStatus();
}

std::vector<RawSiginfo> Dispatcher::Leave(Subscription& subscription) {
  FutexWakes wakes;
  MutexLock lock(mutex_);
  if (Unregister(subscription)) subscription.MarkClosed(wakes);
  return {};
}

void Dispatcher::CloseAll() {
  FutexWakes wakes;
  MutexLock lock(mutex_);
  for (Subscription* subscription : registered_) {
    subscription->MarkClosed(wakes);
  }
  registered_.clear();
  FindShared();
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

void Dispatcher::Register(Subscription& subscription) {
  registered_.push_back(&subscription);
  subscription.closed_ = false;
  FindShared();
}

bool Dispatcher::Unregister(Subscription& subscription) {
  const bool was_registered = std::erase(registered_, &subscription) > 0;
  FindShared();
  return was_registered;
}

bool Dispatcher::IsRegistered(const Subscription& subscription) const {
  return std::find(registered_.begin(), registered_.end(), &subscription) !=
         registered_.end();
}

SignalSet Dispatcher::Subscribed(const Subscription* except) const {
  SignalSet signals;
  for (const Subscription* subscription : registered_) {
    if (subscription == except) continue;
    for (int signum : subscription->signals_) signals.insert(signum);
  }
  return signals;
}

void Dispatcher::FindShared() {
  SignalSet seen;
  shared_ = {};
  for (const Subscription* subscription : registered_) {
    for (int signum : subscription->signals_) {
      (seen.contains(signum) ? shared_ : seen).insert(signum);
    }
  }
}

Subscription::Subscription(std::shared_ptr<Dispatcher> dispatcher,
                           const SignalSet& signals,
                           const ReceiverOptions& options, bool watched)
    : dispatcher_(std::move(dispatcher)),
      signals_(signals),
      options_(options),
      watched_(watched),
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
  absl::Status status = CheckCancelled();
  if (!status.ok()) return status;
  std::optional<Queued> queued;
  SignalSet to_stand_in_for;
  {
    FutexWakes wakes;
    MutexLock lock(dispatcher_->mutex_);
    queued =
        DequeueOrCatch(/*waits=*/timeout == absl::InfiniteDuration(), wakes);
    to_stand_in_for = dispatcher_->ToStandInFor(*this);
  }
  if (queued.has_value())
    return ToEvent(queued->info, queued->count, queued->received_at);
  const absl::Time until = timeout == absl::InfiniteDuration()
                               ? absl::InfiniteFuture()
                               : dispatcher_->Now() + timeout;
  Waiter waiter(dispatcher_->fake_ ? absl::InfiniteFuture() : until,
                to_stand_in_for, dispatcher_->waiting_room_);
  TOCSIN_STEP("Receive: found nothing");
  while (true) {
    {
      FutexWakes wakes;
      MutexLock lock(dispatcher_->mutex_);
      dispatcher_->Rise(waiter, wakes);
      // A thread whose wait is over takes an event all the same if it was
      // picked for it: nobody else was.
      if (status.ok() || !waiter.listed) queued = Dequeue();
      if (!queued.has_value() && status.ok()) status = WhyOver(until);
      if (queued.has_value() || !status.ok()) {
        Unlist(waiter);
        break;
      }
      List(waiter);
      if (first_waiter_ == &waiter) dispatcher_->Sit(*this, waiter);
    }
    TOCSIN_STEP("Receive: about to sleep");
    status = waiter.Sleep();
    TOCSIN_STEP("Receive: wait is over");
    if (const auto taken = waiter.stand_in.Taken(); taken.has_value()) {
      waiter.took = taken->signum();
      // Nobody is subscribed to it when the receiver was closed meanwhile.
      if (!dispatcher_->Dispatch(*taken, /*redirected=*/false)) {
        dispatcher_->Return({*taken}, options_.on_close);
      }
    }
  }
  if (queued.has_value())
    return ToEvent(queued->info, queued->count, queued->received_at);
  return status;
}

std::optional<SignalEvent> Subscription::TryReceive() {
  std::optional<Queued> queued;
  {
    FutexWakes wakes;
    MutexLock lock(dispatcher_->mutex_);
    queued = DequeueOrCatch(/*waits=*/false, wakes);
  }
  if (!queued.has_value()) return std::nullopt;
  return ToEvent(queued->info, queued->count, queued->received_at);
}

int Subscription::fd() {
  MutexLock lock(dispatcher_->mutex_);
  if (fd_ < 0) {
    fd_ =
        eventfd(!queue_.empty() || closed_ ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
  }
  return fd_;
}

uint64_t Subscription::dropped() const {
  MutexLock lock(dispatcher_->mutex_);
  return queue_.dropped();
}

absl::Status Subscription::iteration_status() const {
  MutexLock lock(dispatcher_->mutex_);
  return iteration_status_;
}

void Subscription::set_iteration_status(const absl::Status& status) {
  MutexLock lock(dispatcher_->mutex_);
  iteration_status_ = status;
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

std::optional<Subscription::Queued> Subscription::DequeueOrCatch(
    bool waits, FutexWakes& wakes) {
  std::optional<Queued> queued = Dequeue();
  if (queued.has_value()) return queued;
  dispatcher_->Catch(waits, wakes);
  return Dequeue();
}

absl::Status Subscription::WhyOver(absl::Time until) const {
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
  // The child of a handler's fork() has come back into the wait: the list is
  // empty here (ForgetWaiters()).
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

}  // namespace tocsin::internal
