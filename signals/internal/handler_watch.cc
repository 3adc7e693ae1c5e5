#include "tocsin/signals/internal/handler_watch.h"

#include <utility>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/signals/internal/ignored_at_start.h"
#include "tocsin/signals/internal/pending_signals.h"
#include "tocsin/signals/internal/service_mask.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/internal/signal_routes.h"
#include "tocsin/signals/internal/subscriber.h"

namespace tocsin::inline v0_2::internal {
namespace {

// The kernel tells nobody that a disposition has changed.
constexpr absl::Duration kUsual = absl::Seconds(1);
// Who ignores a signal for a time, as system(3) does, may be done at any
// moment.
constexpr absl::Duration kWhileLeftAlone = absl::Milliseconds(100);

}  // namespace

HandlerWatch::HandlerWatch(SignalRoutes& routes,
                           std::function<void(const SignalSet&)> on_replaced)
    : routes_(routes), on_replaced_(std::move(on_replaced)) {}

absl::Duration HandlerWatch::Look() {
  if (!disposition_mutex.TryLock()) return kWhileTheyChange;
  const SignalSet replaced = FindReplaced();
  const SignalSet left_alone = TakeUp();
  disposition_mutex.Unlock();
  if (!replaced.empty() && on_replaced_ != nullptr) on_replaced_(replaced);
  const bool for_a_time = (Mask(left_alone) & ~IgnoredAtStart()) != 0;
  return for_a_time ? kWhileLeftAlone : kUsual;
}

SignalSet HandlerWatch::FindReplaced() {
  SignalSet wanted;
  {
    MutexLock lock(routes_.mutex_);
    wanted = routes_.wanted_;
  }
  SignalSet replaced;
  SignalSet put_back;
  for (int signum : wanted) {
    const HandlerIs state = FindHandler(signum);
    if (state == HandlerIs::kReplaced) replaced.insert(signum);
    if (state != HandlerIs::kPutBack) continue;
    put_back.insert(signum);
    Reinstall(signum);
  }
  SignalSet news;
  MutexLock lock(routes_.mutex_);
  for (const SignalSet& found :
       {std::exchange(routes_.lost_, {}), replaced, put_back}) {
    for (int signum : found) {
      if (!known_.contains(signum)) news.insert(signum);
    }
  }
  known_ = replaced;
  routes_.stats_.replaced += news.size();
  return news;
}

SignalSet HandlerWatch::TakeUp() {
  SignalSet left_alone;
  SignalSet first;
  {
    FutexWakes wakes;
    MutexLock lock(routes_.mutex_);
    SignalSet taken;
    for (Subscriber& subscription : routes_.registry_.all()) {
      for (int signum : SignalSet(subscription.left_alone())) {
        if (IsIgnored(signum)) {
          left_alone.insert(signum);
          continue;
        }
        // What has come so far is not for this one.
        routes_.TakeBackAndDeliver(signum, wakes);
        subscription.TakeUp(signum);
        routes_.registry_.AddFor(signum, subscription);
        taken.insert(signum);
      }
    }
    if (taken.empty()) return left_alone;
    routes_.leadership_.TakeBack(taken);
    routes_.leadership_.WakeLeader(wakes);
    for (int signum : taken) {
      if (!routes_.wanted_.contains(signum)) first.insert(signum);
      routes_.wanted_.insert(signum);
    }
  }
  BlockHere(first);
  for (int signum : first) Forward(signum);
  RingDoorbell();
  return left_alone;
}

}  // namespace tocsin::inline v0_2::internal
