// Stops the process as Ctrl+Z does.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_STOP_SELF_H_
#define TOCSIN_SIGNALS_INTERNAL_STOP_SELF_H_

#include "absl/functional/function_ref.h"

namespace tocsin::inline v0_2::internal {

// What tocsin::StopSelf() does (process.h), unless the process is told to go
// on: by a SIGCONT from here on, or by one before, which `told_to_go_on` knows
// of. That is asked when the stop is pending: a SIGCONT then discards it.
void StopSelfUnless(absl::FunctionRef<bool()> told_to_go_on);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_STOP_SELF_H_
