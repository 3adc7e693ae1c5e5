// The right of a pool's worker to run tasks; a pool has a fixed number of them.
//
// A worker leaves its slot, and returns to it, on its own thread: around each
// sleep in the library and each BlockingRegion.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_

namespace tocsin::inline v0_2::internal {

class WorkerSlot {
 public:
  // Called on the worker's thread, in pairs, which may nest.
  virtual void Leave() = 0;
  virtual void Return() = 0;

 protected:
  ~WorkerSlot() = default;
};

// Null on threads that are not workers, and once the worker is gone: its thread
// still has the program's thread_local objects to destroy.
extern constinit thread_local WorkerSlot* worker_slot;

// Leaves the thread's slot, if it has one, as long as this object lives. One
// that outlives the worker, in a thread_local, returns to nothing.
class [[nodiscard]] SlotRelease {
 public:
  SlotRelease() : slot_(worker_slot) {
    if (slot_ != nullptr) slot_->Leave();
  }
  SlotRelease(const SlotRelease&) = delete;
  SlotRelease& operator=(const SlotRelease&) = delete;
  ~SlotRelease() {
    if (slot_ != nullptr && slot_ == worker_slot) slot_->Return();
  }

 private:
  WorkerSlot* const slot_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOT_H_
