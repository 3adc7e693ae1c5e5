// Stops work through a std::stop_token when a signal comes.
//
//   absl::StatusOr<std::unique_ptr<StopOnSignal>> stop =
//       StopOnSignal::Start(service, {SIGINT, SIGTERM});
//   if (!stop.ok()) return stop.status();
//   std::jthread computer([token = (*stop)->stop_token()] { Compute(token); });
//   {
//     CancelScope scope((*stop)->stop_token());
//     Serve();  // its waits end with kCancelled, "SIGTERM from pid ..."
//   }
//   if ((*stop)->cause()) std::cerr << "stopped by " << *(*stop)->cause();
//
// The first signal requests the stop and closes the receiver: a second one has
// its previous effect, which by default ends a program that hangs in its
// clean-up. Signals that are ignored in Start() (nohup(1), background jobs) are
// left ignored.
//
// Cancelling the scope that Start() was called in requests the stop too,
// without a cause.
//
// All members may be called from any thread. Callbacks of the token run on a
// thread of the class's own, or on the one that cancels the scope, with no lock
// held.
#ifndef TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_
#define TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_

#include <pthread.h>

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>

#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {

class StopOnSignal {
 public:
  // From here on the first of `signals` requests the stop. Fails as
  // SignalService::Open() does, or with kResourceExhausted if its thread cannot
  // be created; then nothing has changed.
  static absl::StatusOr<std::unique_ptr<StopOnSignal>> Start(
      SignalService& service,
      const SignalSet& signals = SignalSet::Termination());

  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  // Waits for callbacks that are running.
  ~StopOnSignal();

  // The first signal requests its stop. The token may outlive this object;
  // nothing requests a stop from then on.
  std::stop_token stop_token() const { return scope_.stop_token(); }

  // The signal that requested the stop; std::nullopt as long as none has.
  std::optional<SignalEvent> cause() const;

 private:
  enum class StoppedBy { kNothing, kSignal, kScope };
  struct StopWithScope {
    StopOnSignal* self;
    std::stop_token token;
    void operator()() const;
  };

  explicit StopOnSignal(SignalReceiver receiver);
  void Listen();
  // Returns false if it was stopped already.
  bool BeStoppedBy(StoppedBy what);

  internal::Scope scope_{nullptr};  // no thread runs in it
  std::atomic<StoppedBy> stopped_by_{StoppedBy::kNothing};
  SignalEvent event_;  // written once, before stopped_by_ is kSignal
  SignalReceiver receiver_;
  // These use all of the above.
  std::optional<std::stop_callback<StopWithScope>> outer_;
  std::optional<pthread_t> thread_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_STOP_ON_SIGNAL_H_
