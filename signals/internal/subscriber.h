// What a dispatcher knows about a receiver's subscription: for which signals it
// is open, and how they reach it.
//
// Any thread that holds the dispatcher's mutex may use it; the constants need
// no mutex.
#ifndef TOCSIN_SIGNALS_INTERNAL_SUBSCRIBER_H_
#define TOCSIN_SIGNALS_INTERNAL_SUBSCRIBER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class Subscriber {
 public:
  Subscriber(const Subscriber&) = delete;
  Subscriber& operator=(const Subscriber&) = delete;

  // What it is subscribed to.
  const SignalSet& signals() const { return signals_; }
  // What it is not subscribed to as long as that is ignored.
  const SignalSet& left_alone() const { return left_alone_; }
  void LeaveAlone(int signum) {
    signals_.erase(signum);
    left_alone_.insert(signum);
  }
  void TakeUp(int signum) {
    left_alone_.erase(signum);
    signals_.insert(signum);
  }
  const ReceiverOptions& options() const { return options_; }
  // Whether the dispatcher's observer sees its signals.
  bool observed() const { return observed_; }

  // Puts a signal into its queue and wakes a thread, or merges or drops it.
  virtual void Enqueue(const RawSiginfo& info, uint32_t arrival, absl::Time now,
                       FutexWakes& wakes) = 0;
  void MarkOpen() { closed_ = false; }
  // Wakes all its threads, for good.
  virtual void MarkClosed(FutexWakes& wakes) = 0;
  // Makes all its threads look again, for example at the time.
  virtual void WakeAll(FutexWakes& wakes) = 0;
  // In a forked child: the threads that waited are not in this process.
  virtual void ForgetWaiters() = 0;
  // Whether the program may wait for its descriptor.
  virtual bool GaveOutDescriptor() const = 0;

 protected:
  Subscriber(const SignalSet& signals, const ReceiverOptions& options,
             bool observed)
      : signals_(signals), options_(options), observed_(observed) {}
  ~Subscriber() = default;

  SignalSet signals_;
  SignalSet left_alone_;
  const ReceiverOptions options_;
  const bool observed_;
  bool closed_ = false;

 private:
  friend class Registry;

  struct Link {
    Subscriber* previous;
    Subscriber* next;
  };

  bool registered_ = false;
  // By signal, those that it is subscribed to, and in the list of all.
  Link links_[kSignals];
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SUBSCRIBER_H_
