// The library's clock. Nobody can set it, so no step of the wall clock moves a
// deadline, a timeout or an alarm. (It stands still while the machine is
// suspended, as CLOCK_MONOTONIC does.)
//
// Any thread may ask, in a forked child too.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_CLOCK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_CLOCK_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>

#include "absl/time/time.h"

namespace tocsin::inline v0_2::internal {

using Instant = std::chrono::steady_clock::time_point;

inline constexpr Instant kNever = Instant::max();

inline Instant Now() { return std::chrono::steady_clock::now(); }

// kNever if that is too far away to be told.
inline Instant Add(Instant instant, absl::Duration duration) {
  int64_t sum;
  const int64_t added = absl::ToInt64Nanoseconds(duration);
  if (instant == kNever) return kNever;
  if (__builtin_add_overflow(instant.time_since_epoch().count(), added, &sum)) {
    return added > 0 ? kNever : Instant::min();
  }
  return Instant(std::chrono::nanoseconds(sum));
}

inline Instant After(absl::Duration duration) { return Add(Now(), duration); }

// Zero if it has passed.
inline absl::Duration TimeUntil(Instant instant) {
  if (instant == kNever) return absl::InfiniteDuration();
  const Instant now = Now();
  return instant > now ? absl::FromChrono(instant - now) : absl::ZeroDuration();
}

// For a system call, which refuses what is before the epoch.
inline timespec ToTimespec(Instant instant) {
  return absl::ToTimespec(
      absl::FromChrono(std::max(instant, Instant()).time_since_epoch()));
}

// The wall clock, which others can set: for what is shown to people. (Like
// absl::Now(), which may hang in a forked child: it sometimes takes a lock,
// which another thread of the parent may have held.)
inline absl::Time WallNow() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return absl::TimeFromTimespec(now);
}

// How many nanoseconds the wall clock is ahead of the library's, just now.
int64_t WallAhead();

// The same point in time on either clock, as long as one is `ahead` by so much.
Instant FromWallTime(absl::Time time, int64_t ahead);
absl::Time ToWallTime(Instant instant, int64_t ahead);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_CLOCK_H_
