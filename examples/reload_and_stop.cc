// Reloads on SIGHUP and returns on SIGTERM.
#include <csignal>
#include <cstdio>
#include <iostream>

#include "tocsin/signals/signal_service.h"

int main() {
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return std::cerr << service.status() << "\n", 1;
  auto signals = (*service)->Open({SIGTERM, SIGHUP});
  if (!signals.ok()) return std::cerr << signals.status() << "\n", 1;

  for (const tocsin::SignalEvent& event : *signals) {
    if (event.signum == SIGTERM) return 0;
    std::puts("Reloading configuration");
    std::fflush(stdout);
  }
  return 1;
}
