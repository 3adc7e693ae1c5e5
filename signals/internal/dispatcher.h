// Hands each signal to the queue of every receiver that is subscribed to it.
//
// The signals come from the kernel (kernel_signals.h) or a test
// (testing/fake_signals.h); it makes no difference here. Public members may be
// called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_
#define TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/internal/event_queue.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/registry.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/internal/waiting_room.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_service_stats.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class Subscription;
struct Waiter;

// Observes the signals of one subscription on the thread that takes them from
// the kernel, without the help of another thread. It must not wait for one.
class SynchronousObserver {
 public:
  virtual void OnSignal(const SignalEvent& event) = 0;
  // When OnAlarm() is due. Only OnSignal() and OnAlarm() may change it.
  virtual Instant alarm() const = 0;
  virtual void OnAlarm() = 0;

 protected:
  ~SynchronousObserver() = default;
};

class Dispatcher {
 public:
  // If `fake_time` is given, both clocks stand still, and the wall clock there,
  // until Advance().
  explicit Dispatcher(std::optional<absl::Time> fake_time = std::nullopt);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  virtual ~Dispatcher() = default;

  // False if nobody is subscribed to it. `redirected`: it came through a
  // handler.
  bool Dispatch(const RawSiginfo& info, bool redirected)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Instant Now() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Time WallNow() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Advance(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mutex_);
  SignalServiceStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  // At most one observer at a time: kAlreadyExists for a second. It sees the
  // signals of the subscription that is opened as observed. Once
  // StopObserving() has returned, none of its functions runs.
  absl::Status Observe(SynchronousObserver& observer)
      ABSL_LOCKS_EXCLUDED(observer_mutex_);
  void StopObserving() ABSL_LOCKS_EXCLUDED(observer_mutex_);

  // Ends the service: closes the open subscriptions. Does nothing if the
  // signals come from a test, which calls CloseAll().
  virtual void Stop() {}

  // OK if every signal that is received comes here; else the error names those
  // that do not.
  virtual absl::Status Verify() const { return absl::OkStatus(); }

  // Ends the process by `signum`, with `report` as its last words. Takes no
  // lock of others and no memory.
  virtual void Die(int signum, absl::string_view report,
                   const LastWords& last_words) = 0;
  virtual void KillLivingChildren() {}
  // Has a write to a broken pipe fail and not kill this process. False if it
  // does already, or a handler decides.
  virtual bool IgnoreBrokenPipes() { return false; }
  virtual void KillOnBrokenPipes() {}

  // How long Die() is put off, at most, for the report and for the hook.
  virtual Instant ReportUntil() const { return After(LastWords::kPutOff); }

  // Adds a subscription to the registry. May remove signals from the
  // subscription, as its options say.
  virtual absl::Status Enter(Subscriber& subscription);

  // Removes it. Its queue stays. Returns the signals that were on their way to
  // it, which the caller passes to Return(). Does nothing the second time.
  virtual std::vector<RawSiginfo> Leave(Subscriber& subscription);

  // Closes all open subscriptions, for good.
  void CloseAll() ABSL_LOCKS_EXCLUDED(mutex_);

  // Sends signals that nobody received to the process again, or discards them.
  void Return(const std::vector<RawSiginfo>& signals,
              ReceiverOptions::OnClose on_close) ABSL_LOCKS_EXCLUDED(mutex_);

 protected:
  // Alarm() is when the observer's alarm is due; RingAlarm() calls OnAlarm() if
  // that time has come.
  Instant Alarm() const ABSL_LOCKS_EXCLUDED(observer_mutex_);
  void RingAlarm() ABSL_LOCKS_EXCLUDED(observer_mutex_);

  // Whether this process is a forked child of the one whose signals these are.
  // Then only the parent may receive what is queued.
  virtual bool Forked() const { return false; }

  // A signal that came from a test has nowhere to go back to.
  virtual void SendAgain(const std::vector<RawSiginfo>&) {}

  // The signals of `subscription` for which a thread may lead.
  virtual SignalSet ToLeadFor(const Subscriber&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return {};
  }

  // Routes signals of `subscription` to `waiter`, which is about to wait and
  // first in line, by a shorter path than the service's thread, if there is
  // one: the waiter leads, or offers slots. StepDown() undoes this when the
  // wait is over.
  virtual void Promote(const Subscriber&, Waiter&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}
  virtual void StepDown(Waiter&, FutexWakes&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}
  // Delivers what is pending for a leader that stepped down and is expected
  // back. `waits`: the caller goes on to wait, as that leader does; only
  // signals that would starve in that wait are drained.
  virtual void Drain(bool, FutexWakes&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // Puts a signal into the queues. False if nobody is subscribed to it.
  bool Deliver(const RawSiginfo& info, bool redirected, absl::Time now,
               FutexWakes& wakes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Register(Subscriber& subscription) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable SlimMutex mutex_;
  Registry registry_ ABSL_GUARDED_BY(mutex_);
  SignalServiceStats stats_ ABSL_GUARDED_BY(mutex_);

 private:
  friend class Subscription;

  void ShowToObserver(const RawSiginfo& info, absl::Time now)
      ABSL_LOCKS_EXCLUDED(observer_mutex_);

  WaitingRoom waiting_room_;
  mutable SlimMutex observer_mutex_;  // held while the observer is called
  SynchronousObserver* observer_ ABSL_GUARDED_BY(observer_mutex_) = nullptr;

  const uint64_t siginfo_lost_before_ = LostSiginfoCount();
  const bool fake_;  // whether fake_now_ is the clock
  Instant fake_now_ ABSL_GUARDED_BY(mutex_);
  const int64_t fake_wall_ahead_;
  Arrivals arrivals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DISPATCHER_H_
