#include "tocsin/signals/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <sstream>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/internal/child_launch.h"
#include "tocsin/signals/internal/end_watch.h"
#include "tocsin/signals/internal/ignored_at_start.h"
#include "tocsin/signals/internal/lasting_thread.h"
#include "tocsin/signals/internal/living_child.h"
#include "tocsin/signals/internal/refused_call.h"
#include "tocsin/signals/signal_set.h"

extern char** environ;

namespace tocsin::inline v0_2 {
namespace {

using internal::MutexLock;

absl::Status CallError(absl::string_view call, absl::string_view subject,
                       int error) {
  const std::string message =
      absl::StrCat(call, " for ", subject, ": ", internal::ErrorText(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case E2BIG:
    case EBADF:
    case EINVAL:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOEXEC:
      return absl::InvalidArgumentError(message);
    default:
      return absl::InternalError(message);
  }
}

void Close(int& fd) {
  if (fd >= 0) close(std::exchange(fd, -1));
}

std::vector<std::string> PathsOf(const std::string& program) {
  if (absl::StrContains(program, '/')) return {program};
  const char* path = std::getenv("PATH");
  std::vector<std::string> paths;
  for (absl::string_view directory :
       absl::StrSplit(path != nullptr ? path : "/bin:/usr/bin", ':')) {
    paths.push_back(directory.empty() ? program
                                      : absl::StrCat(directory, "/", program));
  }
  return paths;
}

std::vector<const char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<const char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& string : strings) pointers.push_back(string.c_str());
  pointers.push_back(nullptr);
  return pointers;
}

// Ours, but for what the service manager told this process alone.
std::vector<const char*> EnvironmentForChildren() {
  std::vector<const char*> variables;
  for (char** variable = environ; variable != nullptr && *variable != nullptr;
       ++variable) {
    if (!absl::StartsWith(*variable, "NOTIFY_SOCKET=") &&
        !absl::StartsWith(*variable, "WATCHDOG_PID=") &&
        !absl::StartsWith(*variable, "WATCHDOG_USEC=")) {
      variables.push_back(*variable);
    }
  }
  variables.push_back(nullptr);
  return variables;
}

// Keeps the payloads, which say which scope was cancelled.
absl::Status WithMessage(const absl::Status& status,
                         absl::string_view message) {
  absl::Status reworded(status.code(), message);
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    reworded.SetPayload(type, payload);
  });
  return reworded;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const ExitStatus& status) {
  if (status.code.has_value()) {
    return out << "exited with status " << *status.code;
  }
  if (!status.signum.has_value()) return out << "has not ended";
  return out << "was killed by " << SignalName(*status.signum)
             << (status.core_dumped ? " (core dumped)" : "");
}

struct ChildProcess::Child {
  ~Child();

  std::string Name() const {
    return absl::StrCat(program, " (pid ", process.pid(), ")");
  }
  absl::Status CheckParent() const;
  bool AwaitEnd(absl::Duration timeout) const;
  absl::StatusOr<ExitStatus> Reap();
  absl::Status Terminate(absl::Duration patience);
  void Kill();

  std::string program;
  absl::Duration grace;
  internal::LivingChild process;
  int ends[3] = {-1, -1, -1};  // our ends of the pipes

  absl::Mutex mutex;
  bool being_ended ABSL_GUARDED_BY(mutex) = false;
  std::optional<absl::StatusOr<ExitStatus>> end ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<ChildProcess> ChildProcess::Spawn(
    std::vector<std::string> argv, const ChildProcessOptions& options) {
  if (argv.empty() || argv[0].empty()) {
    return absl::InvalidArgumentError(
        "no program to run: argv[0] must name one");
  }
  auto child = std::make_unique<Child>();
  child->program = argv[0];
  child->grace = options.grace;

  struct ClosedAtEnd {
    ~ClosedAtEnd() {
      for (int& fd : fds) Close(fd);
    }
    int fds[3] = {-1, -1, -1};
  } opened;
  internal::Launch launch;
  const ChildStream streams[] = {options.input, options.output, options.error};
  for (int i = 0; i < 3; ++i) {
    const int fd = streams[i].fd_;
    if (fd == ChildStream::kInherit) continue;
    if (fd >= 0) {
      launch.streams[i] = fd;
      continue;
    }
    if (fd == ChildStream::kNull) {
      opened.fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
      if (opened.fds[i] < 0) return CallError("open", "/dev/null", errno);
    } else if (fd == ChildStream::kPipe) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) {
        return CallError("pipe2", child->program, errno);
      }
      opened.fds[i] = ends[i == 0 ? 0 : 1];
      child->ends[i] = ends[i == 0 ? 1 : 0];
    } else {
      return absl::InvalidArgumentError(
          "ChildStream::Fd() was given a negative number, which is no file "
          "descriptor");
    }
    launch.streams[i] = opened.fds[i];
  }

  const std::vector<std::string> paths = PathsOf(argv[0]);
  const std::vector<const char*> programs = Pointers(paths);
  const std::vector<const char*> arguments = Pointers(argv);
  const std::vector<const char*> environment =
      options.environment.has_value() ? Pointers(*options.environment)
                                      : EnvironmentForChildren();
  launch.programs = programs.data();
  launch.argv = arguments.data();
  launch.environment = environment.data();
  if (!options.working_directory.empty()) {
    launch.directory = options.working_directory.c_str();
  }
  launch.own_group = options.own_group;
  launch.ignored_signals = internal::IgnoredAtStart();

  launch.dies_with_parent = options.dies_with_parent;
  internal::Launched launched;
  const auto start = [&] {
    const auto call = [&] { launched = internal::Start(launch); };
    if (options.dies_with_parent) return internal::CallOnLastingThread(call);
    call();
    return 0;
  };
  int no_thread = start();
  std::unique_ptr<internal::EndWatch> watch;
  if (no_thread == 0 && launched.pidfd_refused) {
    auto started = internal::EndWatch::Start();
    if (!started.ok()) return started.status();
    watch = *std::move(started);
    launch.pidfd = false;
    no_thread = start();
  }
  if (no_thread != 0) {
    return internal::NoThread("ChildProcessOptions::dies_with_parent",
                              no_thread);
  }
  if (launched.pid < 0) {
    const absl::string_view call = launched.failed_call;
    // Of what the caller gave, these take nothing that could be wrong.
    if ((call == "clone" || call == "prctl" || call == "setpgid") &&
        internal::IsRefusal(launched.error)) {
      return internal::RefusedCall(call, child->program, launched.error);
    }
    return CallError(
        call, call == "chdir" ? options.working_directory : child->program,
        launched.error);
  }
  if (watch != nullptr) watch->Watch(launched.pid);
  child->process.Know(launched.pid, launched.pidfd, options.own_group,
                      std::move(watch));
  return ChildProcess(std::move(child));
}

ChildProcess::ChildProcess(std::unique_ptr<Child> child)
    : child_(std::move(child)) {}
ChildProcess::ChildProcess(ChildProcess&&) noexcept = default;
ChildProcess& ChildProcess::operator=(ChildProcess&&) noexcept = default;
ChildProcess::~ChildProcess() = default;

pid_t ChildProcess::pid() const { return child_->process.pid(); }
int ChildProcess::stdin_pipe() const { return child_->ends[0]; }
int ChildProcess::stdout_pipe() const { return child_->ends[1]; }
int ChildProcess::stderr_pipe() const { return child_->ends[2]; }
void ChildProcess::CloseStdin() { Close(child_->ends[0]); }

absl::StatusOr<ExitStatus> ChildProcess::Wait() {
  if (absl::Status ours = child_->CheckParent(); !ours.ok()) return ours;
  const absl::StatusOr<short> ended = PollFd(child_->process.end_fd(), POLLIN);
  if (!ended.ok()) return ended.status();
  return child_->Reap();
}

absl::StatusOr<ExitStatus> ChildProcess::WaitOrTerminate() {
  if (absl::Status ours = child_->CheckParent(); !ours.ok()) return ours;
  const absl::StatusOr<short> ended = PollFd(child_->process.end_fd(), POLLIN);
  if (ended.ok()) return child_->Reap();
  const absl::Status cancelled = CheckCancelled();
  if (cancelled.ok()) return ended.status();

  const absl::Status terminated = child_->Terminate(child_->grace);
  std::ostringstream how;
  if (!terminated.ok()) {
    how << terminated.message();
  } else if (const absl::StatusOr<ExitStatus> end = child_->Reap(); end.ok()) {
    how << child_->Name() << " " << *end;
  } else {
    how << end.status().message();
  }
  return WithMessage(cancelled,
                     absl::StrCat(cancelled.message(), "; ", how.str()));
}

absl::Status ChildProcess::Terminate(absl::Duration grace) {
  if (absl::Status ours = child_->CheckParent(); !ours.ok()) return ours;
  return child_->Terminate(grace);
}

absl::Status ChildProcess::Send(int signum) {
  if (absl::Status ours = child_->CheckParent(); !ours.ok()) return ours;
  int error = ESRCH;
  {
    MutexLock lock(child_->mutex);
    if (!child_->end.has_value()) {
      if (child_->process.SignalAlone(signum) == 0) return absl::OkStatus();
      error = errno;
    }
  }
  return CallError(absl::StrCat("sending ", SignalName(signum)), child_->Name(),
                   error);
}

ChildProcess::Child::~Child() {
  if (process.pid() > 0 && CheckParent().ok()) {
    Kill();
    Reap().IgnoreError();
  }
  if (process.pidfd() >= 0) close(process.pidfd());
  for (int& fd : ends) Close(fd);
}

absl::Status ChildProcess::Child::CheckParent() const {
  if (getpid() == process.parent()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      Name(), " is a child of process ", process.parent(),
      ", from which this one was forked; spawn a child of its own here"));
}

absl::Status ChildProcess::Child::Terminate(absl::Duration patience) {
  {
    MutexLock lock(mutex);
    if (end.has_value()) return absl::OkStatus();
    if (process.Signal(SIGTERM) != 0 && errno != ESRCH) {
      return CallError("sending SIGTERM", Name(), errno);
    }
    process.Signal(SIGCONT);
    being_ended = true;
  }
  TOCSIN_STEP("ChildProcess: was signalled");
  if (!AwaitEnd(patience)) Kill();
  Reap().IgnoreError();
  return absl::OkStatus();
}

void ChildProcess::Child::Kill() {
  {
    MutexLock lock(mutex);
    if (end.has_value()) return;
    being_ended = true;
    process.Signal(SIGKILL);
  }
  AwaitEnd(absl::InfiniteDuration());
}

bool ChildProcess::Child::AwaitEnd(absl::Duration timeout) const {
  BlockingRegion region;
  const internal::Instant until = internal::After(timeout);
  while (true) {
    timespec left;
    if (until != internal::kNever) {
      left = absl::ToTimespec(internal::TimeUntil(until));
    }
    pollfd ended{.fd = process.end_fd(), .events = POLLIN, .revents = 0};
    const int ready =
        ppoll(&ended, 1, until == internal::kNever ? nullptr : &left, nullptr);
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

// Called only once the child has ended.
absl::StatusOr<ExitStatus> ChildProcess::Child::Reap() {
  MutexLock lock(mutex);
  if (end.has_value()) return *end;
  if (being_ended && process.HoldsGroup()) process.Signal(SIGKILL);
  process.Forget();

  TOCSIN_STEP("ChildProcess: about to reap");
  siginfo_t info{};
  int result;
  do {
    result = process.WaitId(&info, WEXITED);
  } while (result != 0 && errno == EINTR);
  if (result == 0) {
    ExitStatus status;
    if (info.si_code == CLD_EXITED) {
      status.code = info.si_status;
    } else {
      status.signum = info.si_status;
      status.core_dumped = info.si_code == CLD_DUMPED;
    }
    end.emplace(status);
  } else if (errno == ECHILD) {
    end.emplace(absl::UnknownError(absl::StrCat(
        Name(),
        " has ended and its status is unknown: this process ignores "
        "SIGCHLD, or other code in it has waited for any child")));
  } else {
    end.emplace(CallError("waitid", Name(), errno));
  }
  return *end;
}

}  // namespace tocsin::inline v0_2
