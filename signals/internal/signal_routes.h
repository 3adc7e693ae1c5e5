// Which signals are received, and on which path each comes: through the
// service's thread, through a thread that leads instead, or through a slot that
// a waiting thread has offered.
//
// Any thread that holds the dispatcher's mutex may use it.
#ifndef TOCSIN_SIGNALS_INTERNAL_SIGNAL_ROUTES_H_
#define TOCSIN_SIGNALS_INTERNAL_SIGNAL_ROUTES_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/leader.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/internal/waiter.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class HandlerWatch;
class ServiceThread;

class SignalRoutes : public Dispatcher {
 protected:
  friend class HandlerWatch;
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

  // Called by the service's thread, which has nothing else to do: looks at what
  // other code does to dispositions. Returns when to call it again at the
  // latest.
  virtual Instant LookAtHandlers() = 0;

  // The standard signals of `subscription` that nobody else receives or
  // observes. Others would have to wait until its thread gets to run.
  SignalSet Alone(const Subscriber& subscription) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the slot for `signum` back, and delivers what is in it.
  void TakeBackAndDeliver(int signum, FutexWakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What the service's thread is to do: which signals to wait for, and which of
  // its pending ones to take out, into `left_over_`.
  SignalSet wanted_ ABSL_GUARDED_BY(mutex_);
  SignalSet leaving_ ABSL_GUARDED_BY(mutex_);
  // What that thread does not block. Nothing of it may be forwarded: the
  // handler would run there, and forward it to itself for ever.
  SignalSet unblocked_ ABSL_GUARDED_BY(mutex_);
  // Whose handler was found to be replaced, which has not been told yet.
  SignalSet lost_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Those of `leaving_` that were still on their way.
  std::vector<RawSiginfo> left_over_ ABSL_GUARDED_BY(mutex_);

  DirectHandoff handoff_ ABSL_GUARDED_BY(mutex_);
  Leadership leadership_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SIGNAL_ROUTES_H_
