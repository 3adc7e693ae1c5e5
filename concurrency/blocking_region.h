// Tells the thread pool that the code in a block waits for something foreign.
//
// A worker of a pool that sleeps in a wait of the library gives its slot to
// another task. A region extends that to calls the library does not know:
//
//   ssize_t size;
//   {
//     BlockingRegion region;
//     size = read(fd, buffer, sizeof(buffer));
//   }
//
// Without one the pool finds out by itself, a tenth of a second later. Regions
// nest. On a thread that is no worker of a pool they do nothing.
#ifndef TOCSIN_CONCURRENCY_BLOCKING_REGION_H_
#define TOCSIN_CONCURRENCY_BLOCKING_REGION_H_

namespace tocsin {

namespace internal {

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

// Leaves the thread's slot, if it has one, for as long as it lives.
class [[nodiscard]] SlotRelease {
 public:
  SlotRelease() : slot_(worker_slot) {
    if (slot_ != nullptr) slot_->Leave();
  }
  SlotRelease(const SlotRelease&) = delete;
  SlotRelease& operator=(const SlotRelease&) = delete;
  ~SlotRelease() {
    if (slot_ != nullptr) slot_->Return();
  }

 private:
  WorkerSlot* const slot_;
};

}  // namespace internal

class [[nodiscard]] BlockingRegion {
 public:
  BlockingRegion() = default;
  BlockingRegion(const BlockingRegion&) = delete;
  BlockingRegion& operator=(const BlockingRegion&) = delete;

 private:
  internal::SlotRelease slot_release_;
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_BLOCKING_REGION_H_
