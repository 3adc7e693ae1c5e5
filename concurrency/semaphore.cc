#include "tocsin/concurrency/semaphore.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/waiter_list.h"

namespace tocsin::inline v0_2 {

using internal::MutexLock;

struct Semaphore::Waiter {
  explicit Waiter(int64_t wanted) : count(wanted) {}

  const int64_t count;
  bool admitted = false;
  internal::Sleeper sleeper{"Acquire()"};
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

struct Semaphore::WakeUps : internal::PendingWakes {};

Semaphore::Semaphore(int64_t limit) : limit_(std::max<int64_t>(limit, 0)) {}

void Semaphore::Admit(WakeUps& wakes) {
  for (Waiter* waiter = queue_.waiters.first(); waiter != nullptr;) {
    Waiter& candidate = *waiter;
    waiter = waiter->next;
    if (candidate.count > limit_) continue;
    if (candidate.count > limit_ - in_use_) break;
    in_use_ += candidate.count;
    candidate.admitted = true;
    queue_.waiters.Remove(candidate);
    wakes.Add(candidate.sleeper);
  }
}

bool Semaphore::TakeNow(int64_t count) {
  if (count > limit_ - in_use_) return false;
  // Between two calls of Admit() only threads that want more than is free may
  // wait. They come first, unless they want more than the limit.
  for (const Waiter* w = queue_.waiters.first(); w != nullptr; w = w->next) {
    if (w->count <= limit_) return false;
  }
  in_use_ += count;
  return true;
}

absl::StatusOr<Semaphore::Permit> Semaphore::Acquire(int64_t count) {
  if (count < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        count, " permits of a semaphore: the number must be 1 or more"));
  }
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  Waiter self(count);
  {
    MutexLock lock(queue_.mutex);
    if (TakeNow(count)) return Permit(this, count);
    queue_.waiters.Append(self);
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("Semaphore: wait is over");
    WakeUps wakes;
    MutexLock lock(queue_.mutex);
    if (self.admitted) return Permit(this, count);
    if (!status.ok()) {
      queue_.waiters.Remove(self);
      Admit(wakes);  // the waiters that it held up
      return status;
    }
  }
}

std::optional<Semaphore::Permit> Semaphore::TryAcquire(int64_t count) {
  MutexLock lock(queue_.mutex);
  if (count < 1 || !TakeNow(count)) return std::nullopt;
  return Permit(this, count);
}

void Semaphore::Release(int64_t count) {
  WakeUps wakes;
  MutexLock lock(queue_.mutex);
  in_use_ -= count;
  Admit(wakes);
}

void Semaphore::set_limit(int64_t limit) {
  WakeUps wakes;
  MutexLock lock(queue_.mutex);
  limit_ = std::max<int64_t>(limit, 0);
  Admit(wakes);
}

int64_t Semaphore::limit() const {
  MutexLock lock(queue_.mutex);
  return limit_;
}

int64_t Semaphore::in_use() const {
  MutexLock lock(queue_.mutex);
  return in_use_;
}

}  // namespace tocsin::inline v0_2
