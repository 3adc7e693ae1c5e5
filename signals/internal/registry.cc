#include "tocsin/signals/internal/registry.h"

#include <utility>

namespace tocsin::inline v0_2::internal {

void Registry::Add(Subscriber& subscriber) {
  subscriber.registered_ = true;
  Link(kAll, subscriber);
  for (int signum : subscriber.signals()) Link(signum, subscriber);
}

bool Registry::Remove(Subscriber& subscriber) {
  if (!std::exchange(subscriber.registered_, false)) return false;
  Unlink(kAll, subscriber);
  for (int signum : subscriber.signals()) Unlink(signum, subscriber);
  return true;
}

void Registry::Clear() {
  for (Subscriber& subscriber : all()) subscriber.registered_ = false;
  for (List& list : lists_) list = {};
}

void Registry::Link(int list, Subscriber& subscriber) {
  auto& [first, last] = lists_[list];
  subscriber.links_[list] = {.previous = last, .next = nullptr};
  (last != nullptr ? last->links_[list].next : first) = &subscriber;
  last = &subscriber;
}

void Registry::Unlink(int list, Subscriber& subscriber) {
  auto& [first, last] = lists_[list];
  const auto [previous, next] = subscriber.links_[list];
  (previous != nullptr ? previous->links_[list].next : first) = next;
  (next != nullptr ? next->links_[list].previous : last) = previous;
}

}  // namespace tocsin::inline v0_2::internal
