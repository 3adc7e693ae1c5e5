// Cleans up on Ctrl+C or termination, and also ends when the work ends.
#include <csignal>
#include <cstdio>

#include "absl/time/time.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/run.h"

absl::Status ServeRequests() {
  std::puts("Serving requests.");
  std::fflush(stdout);
  absl::Status status = tocsin::SleepFor(absl::Seconds(10));
  std::puts(status.ok() ? "All requests served." : "Cleaning up.");
  return status;
}

// [guide: cancel_on_signal]
absl::Status Main(tocsin::SignalService& service, tocsin::TaskGroup& group) {
  absl::StatusOr<tocsin::SignalReceiver> signals =
      service.Open({SIGINT, SIGTERM});
  if (!signals.ok()) return signals.status();
  group.SpawnService([&] {
    for (const tocsin::SignalEvent& event : *signals) {
      std::puts(event.signum == SIGINT ? "Ctrl+C pressed!" : "Terminated!");
      group.Cancel();
    }
  });
  group.Spawn(ServeRequests);
  return group.Wait();
}

int main() { return tocsin::Run(Main, {.stop_on = {}}); }
// [guide]
