// The thread of a pool that looks after tasks that no worker takes.
//
// Any thread may rouse it. It runs while a task is ready and no slot is free,
// or the system refuses a thread for it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_
#define TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_

#include <pthread.h>

#include <optional>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

class PoolMonitor {
 public:
  explicit PoolMonitor(WorkerSlots& slots) : slots_(slots) {}
  PoolMonitor(const PoolMonitor&) = delete;
  PoolMonitor& operator=(const PoolMonitor&) = delete;

  // Makes the thread, or wakes it. If the system refuses one, the next call
  // tries again.
  void Rouse();

  // Ends the thread and waits for that. REQUIRES: the workers have ended.
  void End();

 private:
  void Run();
  bool SomethingIsStuck();
  void LookAtWorkers(bool stuck);

  WorkerSlots& slots_;
  std::optional<pthread_t> thread_ ABSL_GUARDED_BY(slots_.mutex_);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_POOL_MONITOR_H_
