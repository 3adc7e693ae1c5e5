// Why a scope was cancelled, and the mark by which a status tells which scope
// it comes from.
//
// Any thread may use it. Making a cause allocates nothing, making a status of
// it does.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SCOPE_CAUSE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SCOPE_CAUSE_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"

namespace tocsin::inline v0_2::internal {

struct ScopeCause {
  // Whether there is one: the scope is cancelled.
  bool exists() const { return scope != 0; }
  // What CancelScope::status() returns: OK if there is no cause.
  absl::Status status() const;
  // What a wait in the scope returns. Does not throw: if memory runs out, it is
  // the code alone.
  absl::Status WaitStatus() const;

  absl::Status reason;  // OK: the deadline passed
  absl::Time deadline = absl::InfiniteFuture();
  uint64_t scope = 0;  // the number of the scope
  Instant cleaned_up_at = kNever;
};

// The number of the scope that `status` is marked with.
std::optional<uint64_t> ScopeOf(const absl::Status& status);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SCOPE_CAUSE_H_
