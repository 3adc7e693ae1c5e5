// One receiver's subscription: its queue of events, the threads that wait for
// them, its descriptor and its close.
//
// Public members may be called from any thread. What is guarded by the
// dispatcher's mutex says so.
#ifndef TOCSIN_SIGNALS_INTERNAL_SUBSCRIPTION_H_
#define TOCSIN_SIGNALS_INTERNAL_SUBSCRIPTION_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/event_queue.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/internal/waiter.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// One receiver: its signals, its queue and the threads that wait for it.
class Subscription final : public Subscriber {
 public:
  // `observed`: the dispatcher's observer sees its signals.
  Subscription(std::shared_ptr<Dispatcher> dispatcher, const SignalSet& signals,
               const ReceiverOptions& options, bool observed = false);
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription();

  absl::Status Enter() { return dispatcher_->Enter(*this); }
  void Close();

  absl::StatusOr<SignalEvent> Receive(absl::Duration timeout);
  absl::StatusOr<SignalEvent> TryReceive();
  absl::StatusOr<int> fd();
  uint64_t dropped() const;
  bool closed() const;
  // signals(), which may change meanwhile.
  SignalSet Signals() const;

 private:
  using Queued = EventQueue::Queued;

  // The dispatcher's mutex guards all below but the constants. The analysis
  // does not see that dispatcher_->mutex_ is the one that the dispatcher holds.
  void Enqueue(const RawSiginfo& info, uint32_t arrival, absl::Time now,
               FutexWakes& wakes) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  std::optional<Queued> Dequeue() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // If nothing is queued, first drains what is pending for a leader that is
  // expected back.
  std::optional<Queued> DequeueOrDrain(bool waits, FutexWakes& wakes)
      ABSL_NO_THREAD_SAFETY_ANALYSIS;
  absl::Status WhyOver(Instant until) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void MarkClosed(FutexWakes& wakes) override;
  void WakeAll(FutexWakes& wakes) override;
  void ForgetWaiters() override { first_waiter_ = last_waiter_ = nullptr; }
  bool GaveOutDescriptor() const override { return fd_ >= 0; }
  void List(Waiter& waiter);
  void Unlist(Waiter& waiter);
  void Pick(FutexWakes& wakes);
  void SetReadable(bool readable);

  const std::shared_ptr<Dispatcher> dispatcher_;
  EventQueue queue_;
  Waiter* first_waiter_ = nullptr;  // in order of arrival
  Waiter* last_waiter_ = nullptr;
  int fd_ = -1;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SUBSCRIPTION_H_
