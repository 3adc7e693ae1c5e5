#ifndef TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_

#include <ctime>

#include "absl/time/time.h"

namespace tocsin::internal {

// As absl::Now(), which may hang in a forked child: it takes a lock at times,
// that another thread of the parent held.
inline absl::Time Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return absl::TimeFromTimespec(now);
}

}  // namespace tocsin::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_
