#include "tocsin/signals/internal/event_queue.h"

#include <algorithm>
#include <utility>

namespace tocsin::inline v0_2::internal {
namespace {

uint32_t PlacesFor(const SignalSet& signals, int capacity) {
  for (int signum : signals) {
    if (!IsStandard(signum))
      return static_cast<uint32_t>(capacity) + kStandardSignals;
  }
  return kStandardSignals;
}

// By doubling: reserve() alone would move all that is there each time.
template <typename T>
void Grow(std::vector<T>& vector, size_t needed) {
  if (needed <= vector.capacity()) return;
  vector.reserve(std::max(needed, 2 * vector.capacity()));
}

}  // namespace

void Arrivals::AddPlaces(uint32_t places) {
  const size_t needed = places_ + places + 1;
  Grow(arrivals_, needed);
  Grow(free_, needed);
  // From here on nothing throws.
  places_ += places;
  for (uint32_t next = static_cast<uint32_t>(arrivals_.size()); next < needed;
       ++next) {
    arrivals_.push_back({});
    free_.push_back(next);
  }
}

uint32_t Arrivals::Add() {
  const uint32_t arrival = free_.back();
  free_.pop_back();
  arrivals_[arrival] = {.holders = 1, .received = false};
  return arrival;
}

void Arrivals::Release(uint32_t arrival) {
  if (--arrivals_[arrival].holders == 0) free_.push_back(arrival);
}

EventQueue::EventQueue(const SignalSet& signals, int capacity,
                       Arrivals& arrivals)
    : arrivals_(arrivals),
      capacity_(capacity),
      places_(PlacesFor(signals, capacity)),
      // Not zeroed: only the part that is used is touched.
      ring_(new Queued[places_]) {}

EventQueue::Pushed EventQueue::Push(const RawSiginfo& info, uint32_t arrival,
                                    absl::Time now) {
  const int signum = info.signum();
  if (standard_queued_.contains(signum)) {
    Queued& queued = At(standard_at_[signum]);
    ++queued.count;
    arrivals_.Release(std::exchange(queued.arrival, arrival));
    arrivals_.Hold(arrival);
    return Pushed::kMerged;
  }
  if (IsStandard(signum)) {
    standard_queued_.insert(signum);
    standard_at_[signum] = tail_;
  } else if (real_time_queued_ == capacity_) {
    ++dropped_;
    return Pushed::kDropped;
  } else {
    ++real_time_queued_;
  }
  arrivals_.Hold(arrival);
  At(tail_++) = {info, 1, now, arrival};
  return Pushed::kQueued;
}

EventQueue::Queued EventQueue::Pop() {
  const Queued queued = TakeOldest();
  arrivals_.MarkReceived(queued.arrival);
  arrivals_.Release(queued.arrival);
  return queued;
}

bool EventQueue::Remove(RawSiginfo& info) {
  const Queued queued = TakeOldest();
  info = queued.info;
  const bool only_here = arrivals_.IsOnlyHere(queued.arrival);
  arrivals_.Release(queued.arrival);
  return only_here;
}

EventQueue::Queued EventQueue::TakeOldest() {
  const Queued queued = At(head_++);
  const int signum = queued.info.signum();
  if (IsStandard(signum)) {
    standard_queued_.erase(signum);
  } else {
    --real_time_queued_;
  }
  return queued;
}

}  // namespace tocsin::inline v0_2::internal
