// The thread of a pool that looks after tasks that no worker takes.
//
// Any thread may rouse it. It runs while a task is ready and no slot is free,
// or the system refuses a thread for it. It finds out which workers are blocked
// and gives their slots to others (docs/design.md, "Who is blocked").
#ifndef TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_
#define TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_

#include <pthread.h>

#include <algorithm>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

class PoolMonitor {
 public:
  explicit PoolMonitor(WorkerSlots& slots) : slots_(slots) {}
  PoolMonitor(const PoolMonitor&) = delete;
  PoolMonitor& operator=(const PoolMonitor&) = delete;

  // Makes the thread, which stays dormant until Rouse(). Returns the errno.
  int Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_.mutex_);

  // Wakes the thread, or makes it if there is none yet. If the system refuses
  // one, the next call tries again.
  void Rouse() ABSL_LOCKS_EXCLUDED(slots_.mutex_);

  // Ends the thread and waits for that. REQUIRES: the workers have ended.
  void End();

 private:
  void Run();
  void BeDormant();
  bool WaitForNextLook();
  bool SomethingIsStuck();
  void LookAtSlots();
  void LookAtWorkers(bool stuck);
  void Move(WorkerRecord& worker, WorkerRecord::Slot from,
            WorkerRecord::Slot to);
  // A pool without a slot still starts what nobody waits for.
  int AtLeastOneSlot() const { return std::max(slots_.slot_count_.load(), 1); }

  WorkerSlots& slots_;
  // Of the thread alone.
  Instant last_look_{};
  Instant slots_known_since_{};
  int quiet_looks_ = 0;  // in a row, without a task that was started before
  std::optional<pthread_t> thread_ ABSL_GUARDED_BY(slots_.mutex_);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_
