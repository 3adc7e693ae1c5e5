// The wall clock, and points in time as numbers that fit into an atomic.
//
// Any thread may ask, in a forked child too.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_

#include <cstdint>
#include <ctime>

#include "absl/time/time.h"

namespace tocsin::inline v0_2::internal {

// Like absl::Now(), which may hang in a forked child: it sometimes takes a
// lock, which another thread of the parent may have held.
inline absl::Time Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return absl::TimeFromTimespec(now);
}

// A deadline, in Unix nanoseconds, that never comes.
inline constexpr int64_t kNever = INT64_MAX;

inline int64_t NowInNanoseconds() { return absl::ToUnixNanos(Now()); }

inline int64_t ToNanoseconds(absl::Time time) {
  return time == absl::InfiniteFuture() ? kNever : absl::ToUnixNanos(time);
}

inline absl::Time FromNanoseconds(int64_t time) {
  if (time == kNever) return absl::InfiniteFuture();
  if (time == INT64_MIN) return absl::InfinitePast();
  return absl::FromUnixNanos(time);
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WALL_CLOCK_H_
