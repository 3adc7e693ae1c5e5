// Hands each signal to the queue of every receiver that is subscribed to it.
//
// Where the signals come from is not its concern: the kernel (kernel_signals.h)
// or a test (testing/fake_signals.h). Public members may be called from any
// thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_
#define TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/internal/forwarder.h"
#include "tocsin/signals/internal/stand_in.h"
#include "tocsin/signals/internal/waiting_room.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_service_stats.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {

class Subscription;

// What a signal that was taken from the kernel tells a receiver.
SignalEvent ToEvent(const RawSiginfo& raw, int count, absl::Time received_at);

// What looks at the signals of one subscription on the thread that takes them
// from the kernel, without any other thread's help. It must not wait for one.
class SignalWatch {
 public:
  virtual void OnSignal(const SignalEvent& event) = 0;
  // When OnAlarm() is due. Only calls of these two may change it.
  virtual absl::Time alarm() const = 0;
  virtual void OnAlarm() = 0;

 protected:
  ~SignalWatch() = default;
};

// A thread in Receive(). It is in its subscription's list until somebody picks
// it, because there is an event for it, or it gives up.
struct Waiter {
  Waiter(absl::Time until, const SignalSet& to_stand_in_for, WaitingRoom& room)
      : stand_in(to_stand_in_for), place(room), sleeper(until, Call()) {}

  // Where it sits, the handler wakes it.
  absl::Status Sleep() {
    return seats.empty() ? sleeper.Sleep() : sleeper.SleepOnWord();
  }

  StandIn stand_in;
  WaitingRoom::Place place;
  Sleeper sleeper;
  SignalSet seats;  // that it sits in
  int took = 0;     // the signal that it took last, standing in
  bool listed = false;
  Waiter* next = nullptr;

 private:
  BlockingCall* Call() {
    if (stand_in.able()) return &stand_in;
    return &place;
  }
};

// The signals that came, as the queues share them. Whether one must be sent
// again when a receiver goes depends on what became of it in the others.
class Arrivals {
 public:
  // Makes room for what so many more places of queues can hold, so that nothing
  // else here allocates. Changes nothing if it throws.
  void AddPlaces(uint32_t places);
  void RemovePlaces(uint32_t places) { places_ -= places; }

  // One more, held by the caller.
  uint32_t Add();
  // By one holder more: a queue that it is in, or who is about to fill them.
  void Hold(uint32_t arrival) { ++arrivals_[arrival].holders; }
  void Release(uint32_t arrival);

  // Somebody took it out of a queue.
  void MarkReceived(uint32_t arrival) { arrivals_[arrival].received = true; }
  // Whether nobody but the one holder that asks has it or had it.
  bool IsOnlyHere(uint32_t arrival) const {
    const Arrival& a = arrivals_[arrival];
    return !a.received && a.holders == 1;
  }

 private:
  struct Arrival {
    uint32_t holders;  // queues that it is in
    bool received;     // somebody took it out of one of them
  };

  // As many as all queues can hold together and one more, made by the
  // subscriptions, so that dispatching allocates nothing.
  std::vector<Arrival> arrivals_{Arrival{}};
  std::vector<uint32_t> free_{0};
  size_t places_ = 0;
};

// What came for one receiver and was not received yet, in order of arrival:
// room for `capacity` real-time signals and for one event of each standard
// signal, into which those merge that come before it is taken.
class EventQueue {
 public:
  struct Queued {
    RawSiginfo info;  // of the first that was merged into it
    int count;
    absl::Time received_at;
    uint32_t arrival;  // the last that was merged into it
  };
  enum class Pushed { kQueued, kMerged, kDropped };

  // The caller has `arrivals` make room for places().
  EventQueue(const SignalSet& signals, int capacity, Arrivals& arrivals);
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  uint32_t places() const { return places_; }
  bool empty() const { return head_ == tail_; }
  uint64_t size() const { return tail_ - head_; }
  // Real-time signals that it had no room for.
  uint64_t dropped() const { return dropped_; }

  // Holds `arrival` from then on, unless there was no room.
  Pushed Push(const RawSiginfo& info, uint32_t arrival, absl::Time now);

  // The oldest, which has thereby been received. Not of an empty queue.
  Queued Pop();
  // Takes the oldest out unreceived. Whether nobody else has it or had it.
  bool Remove(RawSiginfo& info);

 private:
  Queued TakeOldest();
  Queued& At(uint64_t position) { return ring_[position % places_]; }

  Arrivals& arrivals_;
  const int capacity_;
  const uint32_t places_;
  const std::unique_ptr<Queued[]> ring_;
  uint64_t head_ = 0;  // positions only grow
  uint64_t tail_ = 0;
  int real_time_queued_ = 0;
  SignalSet standard_queued_;
  uint64_t standard_at_[32];  // the position of each in standard_queued_
  uint64_t dropped_ = 0;
};

class Dispatcher {
 public:
  // With a time, its clock stands at that until Advance().
  explicit Dispatcher(std::optional<absl::Time> fake_time = std::nullopt);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  virtual ~Dispatcher() = default;

  // False if nobody is subscribed to it. `redirected`: it came through a
  // handler.
  bool Dispatch(const RawSiginfo& info, bool redirected)
      ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Time Now() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Advance(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mutex_);
  SignalServiceStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  // At most one watch at a time: kAlreadyExists for a second one. It sees the
  // signals of the subscription that is opened with it. None of its functions
  // runs when Unwatch() has returned.
  absl::Status Watch(SignalWatch& watch) ABSL_LOCKS_EXCLUDED(watch_mutex_);
  void Unwatch() ABSL_LOCKS_EXCLUDED(watch_mutex_);

  // Ends the process by `signum`, after writing `report` to stderr.
  virtual void Die(int signum, const std::string& report) = 0;

  // Brings a subscription into the registry. May take signals out of it, as its
  // options say.
  virtual absl::Status Enter(Subscription& subscription);

  // Takes it out. Its queue stays. Returns the signals that were on their way
  // to it and must be sent again. Does nothing the second time.
  virtual std::vector<RawSiginfo> Leave(Subscription& subscription);

  // Closes all that are open, for good.
  void CloseAll() ABSL_LOCKS_EXCLUDED(mutex_);

  // Sends signals that nobody received to the process again, or discards them.
  void Return(const std::vector<RawSiginfo>& signals,
              ReceiverOptions::OnClose on_close) ABSL_LOCKS_EXCLUDED(mutex_);

 protected:
  // When the watch wants to be called without a signal; and calls it, if it is
  // time.
  absl::Time Alarm() const ABSL_LOCKS_EXCLUDED(watch_mutex_);
  void RingAlarm() ABSL_LOCKS_EXCLUDED(watch_mutex_);

  // Whether this process is a forked child of the one whose signals these are.
  // What is queued is then the parent's to receive.
  virtual bool Forked() const { return false; }

  // A signal that came from a test has nowhere to go back to.
  virtual void SendAgain(const std::vector<RawSiginfo>&) {}

  // The signals of `subscription` for which a thread may stand in.
  virtual SignalSet ToStandInFor(const Subscription&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return {};
  }

  // Has signals of `subscription` come to `waiter`, which is about to wait and
  // first in its line, by a shorter way than the service's thread, if there is
  // one. Rise() undoes it, when the wait is over.
  virtual void Sit(const Subscription&, Waiter&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}
  virtual void Rise(Waiter&, FutexWakes&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}
  // Delivers what is pending for one that rose and is expected back. `waits`:
  // the caller is that one, and leaves to its wait what it need not catch lest
  // it starve.
  virtual void Catch(bool, FutexWakes&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // Into the queues. False if nobody is subscribed to it.
  bool Deliver(const RawSiginfo& info, bool redirected, absl::Time now,
               FutexWakes& wakes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Register(Subscription& subscription)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False if it is not registered (any more).
  bool Unregister(Subscription& subscription)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsRegistered(const Subscription& subscription) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the registered ones, but for `except`, are subscribed to.
  SignalSet Subscribed(const Subscription* except = nullptr) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable SlimMutex mutex_;
  std::vector<Subscription*> registered_ ABSL_GUARDED_BY(mutex_);
  // Signals that several of them are subscribed to.
  SignalSet shared_ ABSL_GUARDED_BY(mutex_);
  SignalServiceStats stats_ ABSL_GUARDED_BY(mutex_);

 private:
  friend class Subscription;

  void ShowToWatch(const RawSiginfo& info, absl::Time now)
      ABSL_LOCKS_EXCLUDED(watch_mutex_);

  void FindShared() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  WaitingRoom waiting_room_;
  mutable SlimMutex watch_mutex_;  // held while the watch is called
  SignalWatch* watch_ ABSL_GUARDED_BY(watch_mutex_) = nullptr;

  const uint64_t siginfo_lost_before_ = LostSiginfoCount();
  const bool fake_;  // whether the clock is fake_now_
  absl::Time fake_now_ ABSL_GUARDED_BY(mutex_);
  Arrivals arrivals_ ABSL_GUARDED_BY(mutex_);
};

// One receiver: its signals, its queue and the threads that wait for it.
class Subscription {
 public:
  // `watched`: the dispatcher's watch sees its signals.
  Subscription(std::shared_ptr<Dispatcher> dispatcher, const SignalSet& signals,
               const ReceiverOptions& options, bool watched = false);
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription();

  absl::Status Enter() { return dispatcher_->Enter(*this); }
  void Close();

  absl::StatusOr<SignalEvent> Receive(absl::Duration timeout);
  std::optional<SignalEvent> TryReceive();
  int fd();
  const SignalSet& signals() const { return signals_; }
  uint64_t dropped() const;
  absl::Status iteration_status() const;
  void set_iteration_status(const absl::Status& status);

 private:
  friend class Dispatcher;
  friend class KernelSignals;

  using Queued = EventQueue::Queued;

  // The dispatcher's mutex guards all below but the constants. The analysis
  // does not see that dispatcher_->mutex_ is the one that the dispatcher holds.
  void Enqueue(const RawSiginfo& info, uint32_t arrival, absl::Time now,
               FutexWakes& wakes) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  std::optional<Queued> Dequeue() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Also of what is pending for one that stood in and is expected back.
  std::optional<Queued> DequeueOrCatch(bool waits, FutexWakes& wakes)
      ABSL_NO_THREAD_SAFETY_ANALYSIS;
  absl::Status WhyOver(absl::Time until) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void MarkClosed(FutexWakes& wakes);
  // In a forked child: the threads that waited are not in this process.
  void ForgetWaiters() { first_waiter_ = last_waiter_ = nullptr; }
  void List(Waiter& waiter);
  void Unlist(Waiter& waiter);
  void Pick(FutexWakes& wakes);
  void SetReadable(bool readable);

  const std::shared_ptr<Dispatcher> dispatcher_;
  SignalSet signals_;  // changed by Enter() only
  const ReceiverOptions options_;
  const bool watched_;

  EventQueue queue_;
  Waiter* first_waiter_ = nullptr;  // in the order of their coming
  Waiter* last_waiter_ = nullptr;
  bool closed_ = false;
  int fd_ = -1;
  absl::Status iteration_status_;
};

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_
