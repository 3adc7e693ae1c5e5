// Shows the signals that this process receives, one line for each.
#include <fcntl.h>
#include <pwd.h>
#include <sys/types.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace {

constexpr std::string_view kHelp =
    R"(Shows the signals that this process receives, one line for each.

  watch_signals [--count=N] [SIGNAL...]

SIGNAL is a name or a number: TERM, SIGHUP, RTMIN+1, 15. Without any, all that
can be received are shown.
  --count=N  ends after N signals
Ends at the second Ctrl+C within a second.
)";

struct Request {
  tocsin::SignalSet signals;
  std::optional<int> count;
  bool help = false;
};

tocsin::SignalSet AllReceivable() {
  tocsin::SignalSet signals;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (tocsin::CheckReceivable({signum}).ok()) signals.insert(signum);
  }
  return signals;
}

absl::StatusOr<Request> Parse(int argc, char** argv) {
  Request request;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help") {
      request.help = true;
    } else if (argument.starts_with("--count=")) {
      int count;
      const char* given = argv[i] + std::string_view("--count=").size();
      if (!absl::SimpleAtoi(given, &count) || count < 1) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--count takes a number from 1 on, not \"", given, "\""));
      }
      request.count = count;
    } else if (argument.starts_with("-")) {
      return absl::InvalidArgumentError(
          absl::StrCat("no such option: ", argv[i], "; see --help"));
    } else {
      absl::StatusOr<int> signum = tocsin::ParseSignal(argument);
      if (!signum.ok()) return signum.status();
      request.signals.insert(*signum);
    }
  }
  if (request.signals.empty()) request.signals = AllReceivable();
  if (absl::Status status = tocsin::CheckReceivable(request.signals);
      !status.ok()) {
    return status;
  }
  return request;
}

std::string CommandOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/comm"));
  std::string command;
  std::getline(file, command);
  return command.empty() ? "-" : command;
}

std::string UserName(uid_t uid) {
  const passwd* user = getpwuid(uid);
  return user != nullptr ? user->pw_name : absl::StrCat(uid);
}

void PrintRow(absl::string_view time, absl::string_view signal,
              absl::string_view origin, absl::string_view pid,
              absl::string_view user, absl::string_view command,
              absl::string_view value) {
  absl::PrintF("%-15s %-12s %-13s %8s %-10s %-16s %s\n", time, signal, origin,
               pid, user, command, value);
  std::fflush(stdout);
}

void Print(const tocsin::SignalEvent& event) {
  std::ostringstream origin;
  origin << event.origin;
  const auto& sender = event.sender;
  PrintRow(
      absl::FormatTime("%H:%M:%E6S", event.received_at, absl::LocalTimeZone()),
      tocsin::SignalName(event.signum), origin.str(),
      sender ? absl::StrCat(sender->pid) : "-",
      sender ? UserName(sender->uid) : "-",
      sender ? CommandOf(sender->pid) : "-",
      event.value ? absl::StrCat(event.value->sival_int) : "-");
}

}  // namespace

int main(int argc, char** argv) {
  const absl::StatusOr<Request> request = Parse(argc, argv);
  if (!request.ok()) {
    std::cerr << "watch_signals: " << request.status().message() << "\n";
    return 2;
  }
  if (request->help) {
    std::cout << kHelp;
    return 0;
  }
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return std::cerr << service.status() << "\n", 1;
  // Ctrl+C always ends the program, also when it is not among what is shown.
  tocsin::SignalSet opened = request->signals;
  opened.insert(SIGINT);
  tocsin::ReceiverOptions options;
  // What comes after the last line shown has no effect either.
  options.on_close = tocsin::ReceiverOptions::OnClose::kDiscard;
  auto receiver = (*service)->Open(opened, options);
  if (!receiver.ok()) return std::cerr << receiver.status() << "\n", 1;

  std::cout << "Watching process " << getpid() << "\n";
  PrintRow("TIME", "SIGNAL", "ORIGIN", "PID", "USER", "COMMAND", "VALUE");
  int shown = 0;
  absl::Time last_interrupt = absl::InfinitePast();
  for (const tocsin::SignalEvent& event : *receiver) {
    if (request->signals.contains(event.signum)) {
      Print(event);
      ++shown;
    }
    if (shown == request->count) return 0;
    if (event.signum == SIGINT) {
      const bool again = event.received_at - last_interrupt < absl::Seconds(1);
      if (again || event.count > 1) return 0;
      last_interrupt = event.received_at;
    }
  }
  return 1;
}
