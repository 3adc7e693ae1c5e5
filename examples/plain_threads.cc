// A program of plain threads, without Run(): adds up the series for pi until
// SIGINT or SIGTERM, and reloads on SIGHUP.
#include <csignal>
#include <iostream>
#include <memory>
#include <stop_token>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/stop_on_signal.h"

int Fail(const absl::Status& status) {
  std::cerr << status << "\n";
  return 1;
}

void Reload(const tocsin::SignalEvent& event) {
  std::cout << "Reloading for " << event << std::endl;
}

int main() {
  // [guide: open]
  absl::StatusOr<std::unique_ptr<tocsin::SignalService>> service =
      tocsin::SignalService::Start();
  if (!service.ok()) return Fail(service.status());
  absl::StatusOr<tocsin::SignalReceiver> hang_ups = (*service)->Open({SIGHUP});
  if (!hang_ups.ok()) return Fail(hang_ups.status());
  // [guide]

  // [guide: jthread]
  std::jthread reloader([&](std::stop_token stop) {
    tocsin::CancelScope scope(stop);
    for (const tocsin::SignalEvent& event : *hang_ups) Reload(event);
  });
  // [guide]

  double quarter = 0;
  double divisor = 1;
  // [guide: stop_token]
  const auto stop = tocsin::StopOnSignal::Start(**service, {SIGINT, SIGTERM});
  if (!stop.ok()) return Fail(stop.status());
  const std::stop_token stopped = (*stop)->stop_token();
  while (!stopped.stop_requested()) {
    quarter += 1 / divisor - 1 / (divisor + 2);
    divisor += 4;
  }
  // [guide]
  std::cout << "Pi is about " << 4 * quarter << "." << std::endl;
}
