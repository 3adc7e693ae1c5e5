// Which signals were ignored when the process started, as its parent chose. A
// child inherits that choice. If this code was loaded later, those that are
// known to be ignored by parents.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_IGNORED_AT_START_H_
#define TOCSIN_SIGNALS_INTERNAL_IGNORED_AT_START_H_

#include <cstdint>

namespace tocsin::inline v0_2::internal {

// A mask as in the kernel: bit signum - 1.
uint64_t IgnoredAtStart();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_IGNORED_AT_START_H_
