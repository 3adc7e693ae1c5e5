// Cleans up on Ctrl+C or termination, and also ends when the work ends.
#include <csignal>
#include <cstdio>

#include "absl/time/time.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/run.h"

absl::Status ServeRequests() {
  std::puts("Serving requests.");
  std::fflush(stdout);
  absl::Status status = tocsin::Sleep(absl::Seconds(10));
  std::puts(status.ok() ? "All requests served." : "Cleaning up.");
  return status;
}

// [guide: cancel_on_signal]
absl::Status Main(tocsin::Program& program) {
  absl::StatusOr<tocsin::SignalReceiver> signals =
      program.signals().Open({SIGINT, SIGTERM});
  if (!signals.ok()) return signals.status();
  tocsin::TaskGroup& tasks = program.tasks();
  tasks.SpawnBackground([&] {
    for (const tocsin::SignalEvent& event : *signals) {
      std::puts(event.signum == SIGINT ? "Ctrl+C pressed!" : "Terminated!");
      tasks.Cancel();
    }
  });
  tasks.Spawn(ServeRequests);
  return tasks.Wait();
}

int main() { return tocsin::Run(Main, {.shutdown = {.signals = {}}}); }
// [guide]
