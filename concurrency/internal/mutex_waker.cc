#include "tocsin/concurrency/internal/mutex_waker.h"

#include <pthread.h>

#include <utility>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

MutexWaker& MutexWaker::Get() {
  static MutexWaker& waker = *new MutexWaker;
  return waker;
}

absl::StatusOr<MutexWaker::Visits*> MutexWaker::Enter(Alarm& alarm) {
  if (threads_ == 0) {
    if (const int error = StartThread(); error != 0) {
      return NoThread("the thread that ends Await() on cancellation", error);
    }
  }
  alarm.time = kNever;
  alarm.node = alarms_.extract(alarms_.insert(&alarm).first);
  Visits& visits = visited_[&alarm.mutex];
  ++visits.waiters;
  return &visits;
}

bool MutexWaker::Leave(Alarm& alarm) {
  const auto it = visited_.find(&alarm.mutex);
  if (it->second.waiters == 1 && it->second.under_way) return false;
  if (--it->second.waiters == 0) visited_.erase(it);
  Set(alarm, kNever);
  return true;
}

void MutexWaker::Request(absl::Mutex& mutex) {
  const auto it = visited_.find(&mutex);
  if (it == visited_.end() || it->second.requested || it->second.under_way) {
    return;
  }
  requests_.push_back(&mutex);
  it->second.requested = true;
  CallThread();
}

void MutexWaker::CallThread() {
  if (free_ == 0) StartThread();  // on failure, the next free thread looks
  bell_.fetch_add(1, std::memory_order_release);
  FutexWakeOne(&bell_);
}

void MutexWaker::Set(Alarm& alarm, Instant time) {
  if (alarm.time == time) return;
  if (alarm.time != kNever) alarm.node = alarms_.extract(&alarm);
  alarm.time = time;
  if (time == kNever) return;
  alarms_.insert(std::move(alarm.node));
  if (*alarms_.begin() == &alarm) CallThread();
}

Instant MutexWaker::RingAlarms() {
  while (!alarms_.empty()) {
    Alarm& next = **alarms_.begin();
    if (next.time > Now()) return next.time;
    Request(next.mutex);
    Set(next, kNever);
  }
  return kNever;
}

int MutexWaker::StartThread() {
  pthread_t thread;
  const int error =
      internal::StartThread<&MutexWaker::Run, "tocsin-await">(thread, this);
  if (error != 0) return error;
  pthread_detach(thread);
  ++threads_;
  ++free_;
  return 0;
}

absl::Mutex* MutexWaker::TakeRequest() {
  while (!requests_.empty()) {
    absl::Mutex* mutex = requests_.front();
    requests_.pop_front();
    const auto it = visited_.find(mutex);
    if (it == visited_.end() || !it->second.requested) continue;
    it->second.requested = false;
    it->second.under_way = true;
    return mutex;
  }
  return nullptr;
}

void MutexWaker::Run() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  while (true) {
    const uint32_t bell = bell_.load(std::memory_order_acquire);
    absl::Mutex* mutex;
    Instant next_alarm;
    {
      MutexLock lock(scope_tree_mutex);
      next_alarm = RingAlarms();
      mutex = TakeRequest();
    }
    if (mutex == nullptr) TOCSIN_STEP("MutexWaker: found no request");
    if (mutex == nullptr) {
      FutexWait(bell_, bell, next_alarm);
      continue;
    }
    TOCSIN_STEP("MutexWaker: about to visit");
    const bool must_block = !mutex->TryLock();
    if (must_block) {
      {
        MutexLock lock(scope_tree_mutex);
        if (--free_ == 0 && !(requests_.empty() && alarms_.empty())) {
          StartThread();
        }
      }
      TOCSIN_STEP("MutexWaker: about to block");
      mutex->Lock();
    }
    {
      MutexLock lock(scope_tree_mutex);
      visited_[mutex].under_way = false;
    }
    mutex->Unlock();  // from here on it may be destroyed
    if (must_block) {
      MutexLock lock(scope_tree_mutex);
      if (free_ > 0) {
        --threads_;
        return;
      }
      ++free_;
    }
  }
}

void MutexWaker::ForgetAllInForkedChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  MutexWaker& waker = Get();
  waker.visited_.clear();
  waker.requests_.clear();
  waker.alarms_.clear();
  waker.threads_ = waker.free_ = 0;
}

const int MutexWaker::registered =
    pthread_atfork(nullptr, nullptr, ForgetAllInForkedChild);

}  // namespace tocsin::inline v0_2::internal
