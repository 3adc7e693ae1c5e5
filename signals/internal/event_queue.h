// The events that wait for one receiver, and the ledger of signals that the
// queues of several share.
//
// It takes no lock: the caller makes sure that only one thread at a time uses a
// queue, or a ledger.
#ifndef TOCSIN_SIGNALS_INTERNAL_EVENT_QUEUE_H_
#define TOCSIN_SIGNALS_INTERNAL_EVENT_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// The signals that came, shared by the queues. Whether one must be sent again
// when a receiver is destroyed depends on what happened to it in the others.
class Arrivals {
 public:
  // Makes room for what `places` more places in queues can hold, so that
  // nothing else here allocates. Changes nothing if it throws.
  void AddPlaces(uint32_t places);
  void RemovePlaces(uint32_t places) { places_ -= places; }

  // Adds a signal, held by the caller, which is about to put it into queues.
  uint32_t Add();
  // Each queue that it is in holds it.
  void Hold(uint32_t arrival) { ++arrivals_[arrival].holders; }
  void Release(uint32_t arrival);

  // Notes that a thread received it from a queue.
  void MarkReceived(uint32_t arrival) { arrivals_[arrival].received = true; }
  // Whether only the calling holder has it, and no thread received it.
  bool IsOnlyHere(uint32_t arrival) const {
    const Arrival& a = arrivals_[arrival];
    return !a.received && a.holders == 1;
  }

 private:
  struct Arrival {
    uint32_t holders;  // queues that it is in
    bool received;     // a thread took it out of one of them
  };

  // As many as all queues can hold together and one more, allocated when
  // subscriptions are made, so that dispatching allocates nothing.
  std::vector<Arrival> arrivals_{Arrival{}};
  std::vector<uint32_t> free_{0};
  size_t places_ = 0;
};

// The events that came for one receiver and were not received yet, in order of
// arrival. Has room for `capacity` real-time signals and for one event of each
// standard signal, into which further ones merge until it is taken.
class EventQueue {
 public:
  struct Queued {
    RawSiginfo info;  // of the first that was merged into it
    int count;
    absl::Time received_at;
    uint32_t arrival;  // the last that was merged into it
  };
  enum class Pushed { kQueued, kMerged, kDropped };

  // The caller makes room for places() in `arrivals`.
  EventQueue(const SignalSet& signals, int capacity, Arrivals& arrivals);
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  uint32_t places() const { return places_; }
  bool empty() const { return head_ == tail_; }
  uint64_t size() const { return tail_ - head_; }
  // Real-time signals that it had no room for.
  uint64_t dropped() const { return dropped_; }

  // Holds `arrival` from then on, unless there was no room.
  Pushed Push(const RawSiginfo& info, uint32_t arrival, absl::Time now);

  // Takes the oldest out and marks it received. REQUIRES: !empty().
  Queued Pop();
  // Takes the oldest out unreceived. Returns whether no other queue has it and
  // no thread received it.
  bool Remove(RawSiginfo& info);

 private:
  Queued TakeOldest();
  Queued& At(uint64_t position) { return ring_[position % places_]; }

  Arrivals& arrivals_;
  const int capacity_;
  const uint32_t places_;
  const std::unique_ptr<Queued[]> ring_;
  uint64_t head_ = 0;  // positions only grow
  uint64_t tail_ = 0;
  int real_time_queued_ = 0;
  SignalSet standard_queued_;
  uint64_t standard_at_[32];  // the position of each in standard_queued_
  uint64_t dropped_ = 0;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_EVENT_QUEUE_H_
