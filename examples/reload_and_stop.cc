// The program of the README.
#include <csignal>
#include <cstdio>

#include "tocsin/signals/run.h"

// [guide: reload_and_stop]
// Reloads on SIGHUP, returns on SIGTERM.
absl::Status Main(tocsin::SignalService& service, tocsin::TaskGroup&) {
  absl::StatusOr<tocsin::SignalReceiver> signals =
      service.Open({SIGTERM, SIGHUP});
  if (!signals.ok()) return signals.status();
  for (const tocsin::SignalEvent& event : *signals) {
    if (event.signum == SIGTERM) return absl::OkStatus();
    std::puts("Reloading configuration");
    std::fflush(stdout);
  }
  return signals->status();
}

int main() { return tocsin::Run(Main, {.stop_on = {}}); }
// [guide]
