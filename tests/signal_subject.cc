// A program for the tests that need one of its own, under a terminal or a
// debugger: it receives signals and tells of each on a descriptor.
//
//   signal_subject REPORT_FD END
//
// reports "ready", then each event in a line. At SIGTSTP it stops itself, as
// the receiver of that signal does or, if END is "hooks", by JobControl. At
// SIGINT it ends: by the signal if END is "die", else with status 130. At
// SIGHUP it reports what becomes of a line written to its terminal, and ends.
// "storm" as END has it send itself signals, and end.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

#include "absl/status/statusor.h"
#include "tests/process_status.h"
#include "tocsin/signals/job_control.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace {

void Report(int fd, const char* what, std::string_view detail = "") {
  dprintf(fd, "%s%.*s\n", what, static_cast<int>(detail.size()), detail.data());
}

// Signals of two kinds, each of which must come back.
int Storm(tocsin::SignalReceiver& receiver) {
  for (int value = 0; value < 1000; ++value) {
    if (sigqueue(getpid(), SIGRTMIN, sigval{.sival_int = value}) != 0) return 1;
    if (receiver.Receive()->value->sival_int != value) return 1;
    if (kill(getpid(), SIGTERM) != 0) return 1;
    if (receiver.Receive()->signum != SIGTERM) return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int report = std::atoi(argv[1]);
  const std::string_view end = argv[2];
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return 2;
  tocsin::SignalSet signals(
      {SIGINT, SIGHUP, SIGTERM, SIGTSTP, SIGCONT, SIGWINCH, SIGRTMIN});
  std::unique_ptr<tocsin::JobControl> job_control;
  if (end == "hooks") {
    signals.erase(SIGTSTP);
    auto started = tocsin::JobControl::Start(
        **service, {.on_suspend = [&] { Report(report, "suspends"); },
                    .on_resume = [&] { Report(report, "resumes"); }});
    if (!started.ok()) return 2;
    job_control = *std::move(started);
  }
  auto receiver = (*service)->Open(signals);
  if (!receiver.ok()) return 2;
  if (end == "storm") return Storm(*receiver);
  // Until its thread sleeps, that may take a signal before a debugger sees it.
  tocsin::AwaitState(tocsin::ServiceThread(), "S");
  Report(report, "ready");
  for (const tocsin::SignalEvent& event : *receiver) {
    std::ostringstream words;
    words << event;
    Report(report, "", words.str());
    switch (event.signum) {
      case SIGTSTP:
        tocsin::StopSelf();
        Report(report, "goes on");
        break;
      case SIGHUP:
        Report(report, write(STDOUT_FILENO, "x", 1) < 0 && errno == EIO
                           ? "writes in vain"
                           : "writes");
        return 0;
      case SIGINT:
        if (end == "die") tocsin::DieBySignal(SIGINT);
        return 130;
    }
  }
}
