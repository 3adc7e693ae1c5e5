// The program of the README.
#include <csignal>
#include <cstdio>

#include "tocsin/signals/run.h"

// [guide: reload_and_stop]
// Reloads on SIGHUP, returns on SIGTERM.
absl::Status Main(tocsin::Program& program) {
  absl::StatusOr<tocsin::SignalReceiver> signals =
      program.signals().Open({SIGTERM, SIGHUP});
  if (!signals.ok()) return signals.status();
  for (const tocsin::SignalEvent& event : *signals) {
    if (event.signum == SIGTERM) return absl::OkStatus();
    std::puts("Reloading configuration");
    std::fflush(stdout);
  }
  return tocsin::CheckCancelled();
}

int main() { return tocsin::Run(Main, {.shutdown = {.signals = {}}}); }
// [guide]
