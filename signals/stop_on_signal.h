// Stops work when a signal comes: a std::stop_source that signals request.
//
//   TaskGroup group;
//   StopOnSignal stop(service, {SIGINT, SIGTERM});
//   stop.Tie(group.scope());
//   group.Spawn([token = stop.stop_token()] { Compute(token); });
//   group.Spawn([] { Serve(); });   // its waits end with the group's scope
//   absl::Status status = group.Wait();
//   if (stop.cause()) std::cerr << "stopped by " << *stop.cause() << "\n";
//
// The first signal stops, and closes the receiver: a second one has its
// previous effect, by default the end of a program that hangs in its clean-up.
// Signals that are ignored when it is made (nohup(1), background jobs) are left
// ignored.
//
// It is also stopped, without a cause, when the scope that it was made in is
// cancelled.
//
// All members may be called from any thread. What the stop runs (callbacks of
// the stop token, cancelling what is tied to it) runs on a thread of its own,
// with no lock held.
#ifndef TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_
#define TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_

#include <pthread.h>

#include <optional>
#include <stop_token>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {

class StopOnSignal {
 public:
  explicit StopOnSignal(SignalService& service,
                        const SignalSet& signals = SignalSet::Termination());
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  // Waits for callbacks that are running.
  ~StopOnSignal();

  // OK, or why it cannot hear the signals: what SignalService::Open() said, or
  // kResourceExhausted for the thread. It is then never stopped by them.
  absl::Status status() const { return status_; }

  // Requested by the first signal. It stays valid afterwards.
  std::stop_token stop_token() const { return source_.get_token(); }

  // The signal that stopped it; nothing as long as none has.
  std::optional<SignalEvent> cause() const;

  // Cancels `scope` when it is stopped, with the cause as reason; at once if it
  // was. The scope must outlive it.
  void Tie(CancelScope& scope);

 private:
  void Listen();
  void Stop(const std::optional<SignalEvent>& cause);
  absl::Status Reason() const;

  struct StopFromOutside {
    StopOnSignal* self;
    void operator()() const;
  };

  absl::Status status_;
  std::stop_source source_;
  mutable internal::SlimMutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<SignalEvent> cause_ ABSL_GUARDED_BY(mutex_);
  std::vector<CancelScope*> tied_ ABSL_GUARDED_BY(mutex_);
  std::optional<SignalReceiver> receiver_;  // nothing if status_ is not OK
  // These use all of the above.
  std::optional<std::stop_callback<StopFromOutside>> outside_;
  std::optional<pthread_t> thread_;
};

}  // namespace tocsin

#endif  // TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_
