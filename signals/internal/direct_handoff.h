// Direct hand-off of a standard signal: the one thread that is to receive it
// offers a slot while it waits in Receive(). The handler leaves the signal
// there and wakes that thread. That saves one wake-up of two, and both if the
// handler runs on that very thread.
//
// May be called from any thread. Only one at a time offers and takes slots,
// under the service's lock. What the handler does is in signal_handler.cc.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
#define TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_

#include <array>

#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::inline v0_2::internal {

// From now on the handler of `signum` leaves it in its slot and wakes
// `sleeper`.
void OfferSlot(int signum, Sleeper& sleeper);
// Ends that: no handler touches the sleeper any more. Returns how many signals
// were left in the slot, of which `info` is the first. Waits for a handler that
// is about to leave one.
int TakeSlot(int signum, RawSiginfo& info);
// Whether a slot is offered and holds no signal yet. For tests.
bool IsWaitedFor(int signum);

// Who has offered the slot for each standard signal.
class DirectHandoff {
 public:
  // Offers the slot for `sleeper`. False if it is already offered.
  bool Offer(int signum, Sleeper& sleeper);
  bool IsOfferedBy(int signum, const Sleeper& sleeper) const {
    return offered_by_[signum] == &sleeper;
  }
  // Takes the slot for `signum` back. Returns how many signals were in it, of
  // which `info` is the first.
  int TakeBack(int signum, RawSiginfo& info);

  // In a forked child, which has none of the threads that offered.
  void ForgetAfterFork() { offered_by_.fill(nullptr); }

 private:
  std::array<const Sleeper*, kStandardSignals + 1> offered_by_ = {};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIRECT_HANDOFF_H_
