// The system calls without which signals would be lost, tried before a service
// takes any.
//
// Any thread may try them. Nothing is sent and nothing is taken.
#ifndef TOCSIN_SIGNALS_INTERNAL_NEEDED_CALLS_H_
#define TOCSIN_SIGNALS_INTERNAL_NEEDED_CALLS_H_

#include "absl/status/status.h"

namespace tocsin::inline v0_2::internal {

// Names the first one that is refused. A filter that ends the process instead
// ends it here.
absl::Status TryNeededCalls();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_NEEDED_CALLS_H_
