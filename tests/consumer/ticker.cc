#include "ticker.h"

#include "absl/time/time.h"
#include "tocsin/concurrency/wait.h"

absl::Status Tick(absl::FunctionRef<void(int)> tick) {
  absl::Status status;
  for (int i = 1; status.ok(); ++i) {
    tick(i);
    status = tocsin::Sleep(absl::Seconds(1));
  }
  return status;
}
