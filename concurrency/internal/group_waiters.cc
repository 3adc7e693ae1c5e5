#include "tocsin/concurrency/internal/group_waiters.h"

#include <utility>

namespace tocsin::inline v0_2::internal {

void GroupWaiters::Enter(Waiter& waiter) {
  waiter.next = std::exchange(waiters_, &waiter);
  sleeping_.fetch_add(1);
}

void GroupWaiters::Leave(Waiter& waiter) {
  Waiter** link = &waiters_;
  while (*link != &waiter) link = &(*link)->next;
  *link = waiter.next;
  if (!waiter.roused) sleeping_.fetch_sub(1);
}

const std::atomic<uint32_t>* GroupWaiters::Rouse() {
  for (Waiter* w = waiters_; w != nullptr; w = w->next) {
    if (std::exchange(w->roused, true)) continue;
    sleeping_.fetch_sub(1);
    return w->sleeper.WakeLater();
  }
  return nullptr;
}

void GroupWaiters::WakeAll(WakeUps& wake_ups) {
  for (Waiter* w = waiters_; w != nullptr; w = w->next) {
    wake_ups.Add(w->sleeper.WakeLater());
  }
}

}  // namespace tocsin::inline v0_2::internal
