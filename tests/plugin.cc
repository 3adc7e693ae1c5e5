#include "tests/plugin.h"

#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace {

std::unique_ptr<tocsin::SignalService> service;
std::optional<tocsin::SignalReceiver> receiver;

absl::Status TryToStart() {
  auto started = tocsin::SignalService::Start();
  if (!started.ok()) return started.status();
  service = *std::move(started);
  auto opened = service->Open({SIGTERM});
  if (!opened.ok()) return opened.status();
  receiver.emplace(*std::move(opened));
  return absl::OkStatus();
}

const char* Start() {
  static std::string result;
  result = TryToStart().ToString();
  return result.c_str();
}

int Receive() {
  if (!receiver.has_value()) return -1;
  const auto event = receiver->Receive();
  return event.ok() ? event->signum : -1;
}

void Stop() {
  receiver.reset();
  service.reset();
}

}  // namespace

constexpr Plugin plugin = {.start = Start, .receive = Receive, .stop = Stop};
