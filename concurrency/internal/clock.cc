#include "tocsin/concurrency/internal/clock.h"

#include <atomic>
#include <cstdlib>

namespace tocsin::inline v0_2::internal {

int64_t WallAhead() {
  // A thread that loses its processor between two looks would be off by as
  // long: the closest of a few counts.
  int64_t ahead = 0;
  auto closest = std::chrono::nanoseconds::max();
  for (int look = 0; look < 3 && closest > std::chrono::microseconds(1);
       ++look) {
    const Instant before = Now();
    const int64_t wall = absl::ToUnixNanos(WallNow());
    const Instant after = Now();
    if (after - before >= closest) continue;
    closest = after - before;
    ahead = wall - (before + closest / 2).time_since_epoch().count();
  }
  // No two looks find quite the same. As long as nobody sets the clock, the
  // first one counts: so of two points in time the earlier stays the earlier.
  constexpr int64_t kAsGoodAsTheSame = 10'000;
  static std::atomic<int64_t> last{INT64_MIN};
  const int64_t known = last.load(std::memory_order_relaxed);
  if (known != INT64_MIN && std::abs(ahead - known) < kAsGoodAsTheSame) {
    return known;
  }
  last.store(ahead, std::memory_order_relaxed);
  return ahead;
}

Instant FromWallTime(absl::Time time, int64_t ahead) {
  if (time == absl::InfiniteFuture()) return kNever;
  int64_t instant;
  if (__builtin_sub_overflow(absl::ToUnixNanos(time), ahead, &instant)) {
    return ahead < 0 ? kNever : Instant::min();
  }
  return Instant(std::chrono::nanoseconds(instant));
}

absl::Time ToWallTime(Instant instant, int64_t ahead) {
  if (instant == kNever) return absl::InfiniteFuture();
  if (instant == Instant::min()) return absl::InfinitePast();
  return absl::FromUnixNanos(ahead) +
         absl::FromChrono(instant.time_since_epoch());
}

}  // namespace tocsin::inline v0_2::internal
