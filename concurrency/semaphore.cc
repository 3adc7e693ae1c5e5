#include "tocsin/concurrency/semaphore.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin {

using internal::MutexLock;

namespace {

absl::Status CheckCount(int64_t count) {
  if (count >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      count, " permits of a semaphore: the number must be 1 or more"));
}

}  // namespace

struct Semaphore::Waiter {
  explicit Waiter(int64_t wanted) : count(wanted) {}

  const int64_t count;
  bool admitted = false;
  internal::Sleeper sleeper;
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

Semaphore::Semaphore(int64_t limit) : limit_(std::max<int64_t>(limit, 0)) {}

void Semaphore::Admit(internal::PendingWakes& wakes) {
  for (Waiter* waiter = waiters_.first(); waiter != nullptr;) {
    Waiter& candidate = *waiter;
    waiter = waiter->next;
    if (candidate.count > limit_) continue;
    if (candidate.count > limit_ - in_use_) break;
    in_use_ += candidate.count;
    candidate.admitted = true;
    waiters_.Remove(candidate);
    wakes.Add(candidate.sleeper);
  }
}

bool Semaphore::TakeNow(int64_t count) {
  if (count > limit_ - in_use_) return false;
  // Between two calls of Admit() only those may wait that want more than there
  // is. They come first, unless they want more than there can be.
  for (const Waiter* w = waiters_.first(); w != nullptr; w = w->next) {
    if (w->count <= limit_) return false;
  }
  in_use_ += count;
  return true;
}

absl::Status Semaphore::Acquire(int64_t count) {
  if (absl::Status status = CheckCount(count); !status.ok()) return status;
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  Waiter self(count);
  {
    MutexLock lock(mutex_);
    if (TakeNow(count)) return absl::OkStatus();
    waiters_.Append(self);
  }
  while (true) {
    absl::Status status = self.sleeper.Sleep();
    if (!status.ok()) TOCSIN_STEP("Semaphore: wait is over");
    internal::PendingWakes wakes;
    MutexLock lock(mutex_);
    if (self.admitted) return absl::OkStatus();
    if (!status.ok()) {
      waiters_.Remove(self);
      Admit(wakes);  // whom it kept back
      return status;
    }
  }
}

bool Semaphore::TryAcquire(int64_t count) {
  MutexLock lock(mutex_);
  return count >= 1 && TakeNow(count);
}

absl::StatusOr<Semaphore::Permit> Semaphore::Borrow(int64_t count) {
  if (absl::Status status = Acquire(count); !status.ok()) return status;
  return Permit(this, count);
}

std::optional<Semaphore::Permit> Semaphore::TryBorrow(int64_t count) {
  if (!TryAcquire(count)) return std::nullopt;
  return Permit(this, count);
}

absl::Status Semaphore::Release(int64_t count) {
  if (absl::Status status = CheckCount(count); !status.ok()) return status;
  internal::PendingWakes wakes;
  MutexLock lock(mutex_);
  if (count > in_use_) {
    return absl::FailedPreconditionError(
        absl::StrCat("Release() of ", count, " permits while ", in_use_,
                     " are in use: release exactly what was acquired"));
  }
  in_use_ -= count;
  Admit(wakes);
  return absl::OkStatus();
}

void Semaphore::set_limit(int64_t limit) {
  internal::PendingWakes wakes;
  MutexLock lock(mutex_);
  limit_ = std::max<int64_t>(limit, 0);
  Admit(wakes);
}

int64_t Semaphore::limit() const {
  MutexLock lock(mutex_);
  return limit_;
}

int64_t Semaphore::in_use() const {
  MutexLock lock(mutex_);
  return in_use_;
}

}  // namespace tocsin
