// The source of real signals: starts and stops what hears them, lets receivers
// in and out, and sees to what a fork() leaves of all that.
//
// Public members may be called from any thread but the service's own.
#ifndef TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
#define TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/leader.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/service_thread.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/internal/waiter.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {

// Which signals are received, and by which way each comes: by the service's
// thread, by one that leads in its place, or by a slot that a waiting thread
// has offered.
class SignalRoutes : public Dispatcher {
 protected:
  friend class ServiceThread;
  friend std::vector<RawSiginfo> Unsubscribe(SignalRoutes&, ServiceThread&,
                                             Subscriber&);

  SignalSet ToLeadFor(const Subscriber& subscription) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Promote(const Subscriber& subscription, Waiter& waiter) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StepDown(Waiter& waiter, FutexWakes& wakes) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drain(bool waits, FutexWakes& wakes) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The standard signals of `subscription` that nobody else receives or looks
  // at. Others would have to wait until its thread gets to run.
  SignalSet Alone(const Subscriber& subscription) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Delivers what is in the slot for `signum`, and takes that back.
  void TakeBackAndDeliver(int signum, FutexWakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What the service's thread is to do: which signals to wait for, and which of
  // its pending ones to take out, into `left_over_`.
  SignalSet wanted_ ABSL_GUARDED_BY(mutex_);
  SignalSet leaving_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // What was still on its way of those in `leaving_`.
  std::vector<RawSiginfo> left_over_ ABSL_GUARDED_BY(mutex_);

  DirectHandoff handoff_ ABSL_GUARDED_BY(mutex_);
  Leadership leadership_ ABSL_GUARDED_BY(mutex_);
};

class KernelSignals final : public SignalRoutes {
 public:
  KernelSignals();

  // At most one in a process, from Start() to Stop().
  static absl::StatusOr<std::shared_ptr<KernelSignals>> Start()
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  void Stop() override ABSL_LOCKS_EXCLUDED(disposition_mutex);

  absl::Status Enter(Subscriber& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  std::vector<RawSiginfo> Leave(Subscriber& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);

  void Die(int signum, const std::string& report) override;

  absl::Status Verify() const override ABSL_LOCKS_EXCLUDED(disposition_mutex);

 private:
  struct Fork;

  bool Forked() const override;
  void SendAgain(const std::vector<RawSiginfo>& signals) override;

  const int generation_;  // the process that this was made in
  ServiceThread thread_;
};

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
