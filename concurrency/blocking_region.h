// Tells the thread pool that a block waits for something outside the library.
//
// A pool's worker that sleeps in a wait of the library gives its slot to
// another task. A region extends that to calls the library does not know:
//
//   ssize_t size;
//   {
//     BlockingRegion region;
//     size = read(fd, buffer, sizeof(buffer));
//   }
//
// Without one the pool finds out by itself, a tenth of a second after another
// task has found no worker. Regions nest. On a thread that is not a worker of a
// pool they do nothing but tell reports that it waits.
#ifndef TOCSIN_CONCURRENCY_BLOCKING_REGION_H_
#define TOCSIN_CONCURRENCY_BLOCKING_REGION_H_

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/wait_note.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin::inline v0_2 {

class [[nodiscard]] BlockingRegion {
 public:
  BlockingRegion() : note_({"a BlockingRegion", internal::Now()}) {}
  BlockingRegion(const BlockingRegion&) = delete;
  BlockingRegion& operator=(const BlockingRegion&) = delete;

 private:
  internal::NotedWait note_;
  internal::SlotRelease slot_release_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_BLOCKING_REGION_H_
