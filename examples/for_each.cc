// Runs a command for each of its arguments, several at a time.
//
//   for_each AT_A_TIME TIME_LIMIT COMMAND ARGUMENT...
//
// Ends at the first that fails or exceeds the limit, which is for each; the
// commands that run then are terminated, as they are by Ctrl+C.
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/job_control.h"
#include "tocsin/signals/run.h"

using tocsin::ChildProcess;
using tocsin::ExitStatus;
using tocsin::JobControl;
using tocsin::TaskGroup;

struct Request {
  int at_a_time;
  absl::Duration limit;
  std::string command;
  std::vector<std::string> arguments;
};

// [guide: child]
absl::Status RunCommand(const std::string& command,
                        const std::string& argument) {
  absl::StatusOr<ChildProcess> child = ChildProcess::Spawn(
      {command, argument},
      {.input = tocsin::ChildStream::Null(), .grace = absl::Seconds(5)});
  if (!child.ok()) return child.status();
  absl::StatusOr<ExitStatus> status = child->WaitOrTerminate();
  if (!status.ok()) return status.status();
  if (status->success()) return absl::OkStatus();
  return absl::UnknownError(absl::StrFormat("%s %s %s", command, argument,
                                            absl::FormatStreamed(*status)));
}
// [guide]

class Progress {
 public:
  explicit Progress(size_t all) : all_(all) {}

  void Count() {
    ++done_;
    Show();
  }
  void Show() const {
    if (on_)
      std::cerr << absl::StrCat("\r", done_.load(), " of ", all_, " done");
  }
  void EndLine() const {
    if (on_) std::cerr << "\n";
  }

 private:
  const bool on_ = isatty(STDERR_FILENO) == 1;
  const size_t all_;
  std::atomic<size_t> done_ = 0;
};

absl::Status ForEach(tocsin::Program& program, const Request& request) {
  Progress progress(request.arguments.size());
  // [guide: job_control]
  const auto job_control = JobControl::Start(
      program.signals(), {.on_suspend = [&] { progress.EndLine(); },
                          .on_resume = [&] { progress.Show(); }});
  if (!job_control.ok()) return job_control.status();
  // [guide]
  progress.Show();

  // [guide: pool]
  TaskGroup group({.max_running = request.at_a_time});
  for (const std::string& argument : request.arguments) {
    group.Spawn([&] {
      absl::Status status = tocsin::FailAfter(
          request.limit, [&] { return RunCommand(request.command, argument); });
      progress.Count();
      return status;
    });
  }
  absl::Status status = group.Wait();
  // [guide]
  progress.EndLine();
  return status;
}

int main(int argc, char** argv) {
  Request request;
  if (argc < 4 || !absl::SimpleAtoi(argv[1], &request.at_a_time) ||
      request.at_a_time < 1 || !absl::ParseDuration(argv[2], &request.limit)) {
    std::cerr << "usage: " << argv[0]
              << " AT_A_TIME TIME_LIMIT COMMAND ARGUMENT...\n";
    return 2;
  }
  request.command = argv[3];
  request.arguments.assign(argv + 4, argv + argc);
  // [guide: run]
  return tocsin::Run(
      [&](tocsin::Program& program) { return ForEach(program, request); });
  // [guide]
}
