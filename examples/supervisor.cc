// Runs a command as process 1 of a container should: passes on the signals that
// it receives, reaps orphans, and exits as the command did.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace {

constexpr std::string_view kHelp =
    R"(Runs a command as process 1 of a container should.

  supervisor [--subreaper] COMMAND [ARGUMENT...]

Passes on to the command every signal that it receives, reaps orphans, and exits
with the command's status: 128 + n if signal n killed it, 127 if there is no
such command, 126 if it cannot be run.
  --subreaper  adopts the orphans among its descendants, as process 1 always does
)";

tocsin::SignalSet AllButSigchld() {
  tocsin::SignalSet signals;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (tocsin::CheckReceivable({signum}).ok()) signals.insert(signum);
  }
  signals.erase(SIGCHLD);
  return signals;
}

// [guide: forward]
void Forward(tocsin::SignalReceiver& signals, tocsin::ChildProcess& command) {
  for (const tocsin::SignalEvent& event : signals) {
    if (event.origin != tocsin::SignalEvent::Origin::kTerminal) {
      command.Send(event.signum).IgnoreError();  // it may have ended just now
    } else if (event.signum == SIGTSTP) {
      // What a key sends, the command gets as well. At Ctrl+Z both stop.
      tocsin::StopSelf();
    }
  }
}
// [guide]

bool AdoptsOrphans() {
  int subreaper = 0;
  prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
  return getpid() == 1 || subreaper != 0;
}

// [guide: reap]
// Looks before it reaps: the end of the command is for Wait(), and when that
// has come, no orphan matters any more.
void ReapOrphans(pid_t command) {
  while (true) {
    siginfo_t ended{};
    if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0) return;
    if (ended.si_pid == 0 || ended.si_pid == command) return;
    waitid(P_PID, static_cast<id_t>(ended.si_pid), &ended, WEXITED);
  }
}
// [guide]

int ExitCode(const tocsin::ExitStatus& status) {
  return status.code.has_value() ? *status.code : 128 + *status.signum;
}

absl::StatusOr<int> Supervise(const std::vector<std::string>& argv) {
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return service.status();
  // Both before there is a command, so that none is missed.
  tocsin::ReceiverOptions options;
  // What comes when the command has ended has no effect.
  options.on_close = tocsin::ReceiverOptions::OnClose::kDiscard;
  auto signals = (*service)->Open(AllButSigchld(), options);
  if (!signals.ok()) return signals.status();
  auto ends = (*service)->Open({SIGCHLD});
  if (!ends.ok()) return ends.status();
  auto command = tocsin::ChildProcess::Spawn(argv);
  if (!command.ok()) return command.status();

  tocsin::TaskGroup group;
  group.SpawnBackground([&] { Forward(*signals, *command); });
  if (AdoptsOrphans()) {
    group.SpawnBackground([&] {
      for (const tocsin::SignalEvent& event : *ends) {
        static_cast<void>(event);  // several ends may be merged into one
        ReapOrphans(command->pid());
      }
    });
  }
  const auto status = command->Wait();
  group.Cancel();
  if (const absl::Status joined = group.Wait(); !joined.ok()) return joined;
  if (!status.ok()) return status.status();
  return ExitCode(*status);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "--subreaper") {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
      std::cerr << "supervisor: prctl: " << std::strerror(errno) << "\n";
      return 1;
    }
    arguments.erase(arguments.begin());
  }
  if (arguments.empty() || arguments[0].starts_with("-")) {
    std::cerr << kHelp;
    return 2;
  }
  const absl::StatusOr<int> code = Supervise(arguments);
  if (code.ok()) return *code;
  std::cerr << "supervisor: " << code.status().message() << "\n";
  if (absl::IsNotFound(code.status())) return 127;
  return absl::IsPermissionDenied(code.status()) ? 126 : 1;
}
