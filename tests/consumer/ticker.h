// A task that does something every second.
#ifndef TICKER_H_
#define TICKER_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

// Calls `tick` with 1, 2, 3 and so on until it is cancelled.
absl::Status Tick(absl::FunctionRef<void(int)> tick);

#endif  // TICKER_H_
