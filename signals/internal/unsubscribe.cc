#include "tocsin/signals/internal/unsubscribe.h"

#include <utility>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/service_thread.h"
#include "tocsin/signals/internal/signal_routes.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

std::vector<RawSiginfo> Unsubscribe(SignalRoutes& routes, ServiceThread& thread,
                                    Subscriber& subscription) {
  SignalSet last;  // those that nobody else receives
  {
    MutexLock lock(routes.mutex_);
    if (!routes.registry_.contains(subscription)) return {};
    for (int signum : subscription.signals()) {
      if (routes.registry_.IsOnly(signum, subscription)) last.insert(signum);
    }
  }
  SignalSet lost;
  for (int signum : last) {
    if (!RestoreDisposition(signum)) lost.insert(signum);
  }
  TOCSIN_STEP("Unsubscribe: dispositions are restored");
  // Place 1: handlers that have not run yet will send theirs to the process
  // again.
  for (int signum : last) StopForwarding(signum);
  if (!last.empty()) {
    // Place 2: these have forwarded theirs now.
    for (int signum : last) AwaitHandlers(signum);
    // Place 3: the thread takes them out of its pending signals.
    {
      MutexLock lock(routes.mutex_);
      for (int signum : last) {
        routes.wanted_.erase(signum);
        RawSiginfo info;
        if (routes.handoff_.TakeBack(signum, info) > 0) {
          routes.left_over_.push_back(info);
        }
      }
      routes.leadership_.TakeBack(last);
      routes.leaving_ = last;
    }
    thread.Synchronize();
  }
  FutexWakes wakes;
  MutexLock lock(routes.mutex_);
  routes.stats_.conflicts += lost.size();
  for (int signum : lost) routes.lost_.insert(signum);
  routes.registry_.Remove(subscription);
  subscription.MarkClosed(wakes);
  return std::exchange(routes.left_over_, {});
}

}  // namespace tocsin::inline v0_2::internal
