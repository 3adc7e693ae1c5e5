// What a thread gives to others while it sleeps, if it is a pool's worker.
//
// Each thread uses its own.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_

namespace tocsin::internal {

// The right of a pool's worker to run tasks, as one among so many at a time.
class WorkerSlot {
 public:
  // Called on the worker's thread, in pairs, which may nest.
  virtual void Leave() = 0;
  virtual void Return() = 0;

 protected:
  ~WorkerSlot() = default;
};

// Null on threads that are no workers.
inline constinit thread_local WorkerSlot* worker_slot = nullptr;

}  // namespace tocsin::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_
