// A thread in Receive(), and how it is woken.
//
// It lives on the stack of its thread; other threads touch it under the
// dispatcher's mutex.
#ifndef TOCSIN_SIGNALS_INTERNAL_WAITER_H_
#define TOCSIN_SIGNALS_INTERNAL_WAITER_H_

#include "absl/status/status.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/wakeable.h"
#include "tocsin/signals/internal/leader.h"
#include "tocsin/signals/internal/waiting_room.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// A thread in Receive(). It is in its subscription's list until it is picked,
// for an event or because the receiver closes, or gives up.
struct Waiter {
  Waiter(Instant until, const SignalSet& to_lead_for, WaitingRoom& room)
      : leader(to_lead_for), place(room), sleeper("Receive()", until, Call()) {}

  // If it has offered a slot, a handler wakes it.
  absl::Status Sleep() {
    return offered.empty() ? sleeper.Sleep() : sleeper.SleepOnWord();
  }

  Leader leader;
  WaitingRoom::Place place;
  Sleeper sleeper;
  SignalSet offered;  // for which it has offered a slot
  int took = 0;       // the signal that it took last, as the leader
  bool listed = false;
  Waiter* next = nullptr;

 private:
  BlockingCall* Call() {
    if (leader.able()) return &leader;
    return &place;
  }
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_WAITER_H_
