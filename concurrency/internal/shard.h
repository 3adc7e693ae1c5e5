// The tasks of a few threads, usually of one.
//
// What a thread spawns into a group lies in that group's local queue at the
// thread's shard. The home queue of a group is a part of the group; all others
// belong to their shard, which outlives the groups. Any thread that takes the
// lock may use a shard.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SHARD_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SHARD_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/short_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_ring.h"

namespace tocsin::inline v0_2::internal {
struct alignas(64) Shard {
  ShortLock lock;
  LocalQueue* first_ready ABSL_GUARDED_BY(lock) = nullptr;
  LocalQueue* last_ready ABSL_GUARDED_BY(lock) = nullptr;
  uint32_t ready_count ABSL_GUARDED_BY(lock) = 0;
  // If several are ready, the oldest task is taken from so many of the next.
  uint32_t oldest_due ABSL_GUARDED_BY(lock) = 0;
  // The local queues that are not the home of a group: those that are an
  // account of one, and those kept for the next.
  LocalQueue* accounts ABSL_GUARDED_BY(lock) = nullptr;
  LocalQueue* spare ABSL_GUARDED_BY(lock) = nullptr;
  // Memory for the next local queue that has many tasks.
  TaskRing spare_tasks ABSL_GUARDED_BY(lock);

  // Whether some local queue may be ready. True as soon as one is. It stays
  // true when the last one leaves, which happens all the time, until a thread
  // looks under the lock and finds none. Written under the lock, read without.
  alignas(64) std::atomic<bool> looks_ready{false};

  // Whether one is ready.
  bool IsReady() ABSL_LOCKS_EXCLUDED(lock) {
    if (!looks_ready.load()) return false;
    TOCSIN_STEP("Shard: looked ready");
    MutexLock guard(lock);
    return SeeReady();
  }
  bool SeeReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock) {
    if (first_ready != nullptr) return true;
    looks_ready.store(false, std::memory_order_relaxed);
    return false;
  }

  // Whether a local queue is ready from which no task was taken since the last
  // call.
  bool Stuck() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);

  // The account of a group here. FindAccount() returns it, or null.
  // AddAccount() makes an empty one. Spare() gives one back.
  LocalQueue* FindAccount(const TaskQueue& queue) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);
  LocalQueue& AddAccount(TaskQueue& queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);
  static void Spare(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  // Enters and leaves the shard's list of local queues that are ready.
  static void Enter(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  static void Leave(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // It has had its turn: now the others come first.
  static void TakeTurns(LocalQueue& local) {
    if (!local.ready || local.next_ready == nullptr) return;
    Leave(local);
    Enter(local);
  }

  ~Shard() ABSL_NO_THREAD_SAFETY_ANALYSIS;
};

inline void Shard::Enter(LocalQueue& local) {
  if (local.ready) return;
  Shard& shard = local.shard;
  local.ready = true;
  local.taken_at_last_look = kNeverLooked;
  local.next_ready = nullptr;
  local.previous_ready = shard.last_ready;
  (shard.last_ready != nullptr ? shard.last_ready->next_ready
                               : shard.first_ready) = &local;
  shard.last_ready = &local;
  ++shard.ready_count;
  if (!shard.looks_ready.load(std::memory_order_relaxed)) {
    shard.looks_ready.store(true);
  }
}

inline void Shard::Leave(LocalQueue& local) {
  if (!local.ready) return;
  Shard& shard = local.shard;
  local.ready = false;
  --shard.ready_count;
  (local.previous_ready != nullptr ? local.previous_ready->next_ready
                                   : shard.first_ready) = local.next_ready;
  (local.next_ready != nullptr ? local.next_ready->previous_ready
                               : shard.last_ready) = local.previous_ready;
}

// Locks two shards, in an order that is the same for all threads.
class ABSL_SCOPED_LOCKABLE LockBoth {
 public:
  LockBoth(Shard& a, Shard& b) ABSL_EXCLUSIVE_LOCK_FUNCTION(a.lock, b.lock)
      : first_(std::less<>()(&a, &b) ? a : b), second_(&first_ == &a ? b : a) {
    first_.lock.Lock();
    second_.lock.Lock();
  }
  LockBoth(const LockBoth&) = delete;
  LockBoth& operator=(const LockBoth&) = delete;
  ~LockBoth() ABSL_UNLOCK_FUNCTION() {
    second_.lock.Unlock();
    first_.lock.Unlock();
  }

 private:
  Shard& first_;
  Shard& second_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SHARD_H_
