// The thread of a pool that looks after tasks for which nobody came.
//
// Any thread may rouse it; it runs while something is ready and no slot is
// free.
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

  // Makes the thread, or wakes it. Where the system refuses one, the next call
  // tries again.
  void Rouse();

  // Ends the thread and waits for that. The workers have ended.
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
