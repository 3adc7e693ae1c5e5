// A program that this process runs as its child.
//
//   absl::StatusOr<ChildProcess> child =
//       ChildProcess::Spawn({"gzip", "-k", path});
//   if (!child.ok()) return child.status();
//   absl::StatusOr<ExitStatus> status = child->WaitOrTerminate();
//   if (!status.ok()) return status.status();
//   if (!status->success()) std::cerr << "gzip " << *status << "\n";
//
// The child starts with no signal blocked and with default dispositions,
// whatever this process blocks, ignores or receives. Only what was ignored when
// this process started, as by nohup(1), is ignored by the child too. File
// descriptors that are not close-on-exec are inherited.
//
// A child does not outlive its ChildProcess: the destructor kills it. When the
// CancelScope of a thread in WaitOrTerminate() is cancelled, the child is
// terminated; a thread in Wait() gives up then, as in every wait of the
// library, and the child runs on. Nothing else in the process is touched: no
// handler is installed, SIGCHLD may have any disposition, and no child but this
// one is ever reaped. In turn, nobody else may reap this one, by a loop around
// waitpid(-1) for example: its status is then lost.
//
// All members may be called from any thread, the waits by several at once. Move
// and destroy it only while no thread is inside it. In a child made by fork()
// it is the parent's: the waits and Terminate() fail with kFailedPrecondition
// and the destructor does nothing to the process. Needs Linux 5.4.
#ifndef TOCSIN_SIGNALS_CHILD_PROCESS_H_
#define TOCSIN_SIGNALS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tocsin::inline v0_2 {

// How a process ended: by itself, with a code, or by a signal.
struct ExitStatus {
  std::optional<int> code = std::nullopt;
  std::optional<int> signum = std::nullopt;
  bool core_dumped = false;

  bool success() const { return code == 0; }

  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
  // "exited with status 1", "was killed by SIGSEGV (core dumped)"
  friend std::ostream& operator<<(std::ostream& out, const ExitStatus& status);
  // The same for absl::StrCat() and absl::StrFormat(), in releases of Abseil
  // that have it.
  template <typename Sink>
  friend void AbslStringify(Sink& sink, const ExitStatus& status) {
    std::ostringstream out;
    out << status;
    sink.Append(out.str());
  }
};

// What one of a child's first three file descriptors is.
class ChildStream {
 public:
  static ChildStream Inherit() { return ChildStream(kInherit); }
  static ChildStream Null() { return ChildStream(kNull); }  // /dev/null
  // A pipe. Our end is stdin_pipe(), stdout_pipe() or stderr_pipe() of the
  // ChildProcess.
  static ChildStream Pipe() { return ChildStream(kPipe); }
  // A descriptor of ours, which remains ours and need only be open in Spawn().
  static ChildStream Fd(int fd) { return ChildStream(fd < 0 ? kNotOpen : fd); }

 private:
  friend class ChildProcess;
  enum : int { kInherit = -1, kNull = -2, kPipe = -3, kNotOpen = -4 };
  explicit ChildStream(int fd) : fd_(fd) {}
  int fd_;
};

struct ChildProcessOptions {
  ChildStream input = ChildStream::Inherit();
  ChildStream output = ChildStream::Inherit();
  ChildStream error = ChildStream::Inherit();
  // Makes the child the leader of a process group of its own. Ctrl+C in the
  // terminal does not reach it then, and what ends the child ends the group.
  bool own_group = false;
  // Each as "NAME=value"; nothing: ours.
  std::optional<std::vector<std::string>> environment = std::nullopt;
  std::string working_directory = {};  // empty: ours
  // How long the child has to end by itself when WaitOrTerminate() is
  // cancelled.
  absl::Duration grace = absl::Seconds(10);
};

class ChildProcess {
 public:
  using Options = ChildProcessOptions;

  // Runs argv[0], which is searched in our $PATH if it has no slash; a relative
  // path is relative to the child's working directory. Returns once the program
  // runs. If it cannot be run there is no child, and the error names the call
  // that failed: kNotFound if there is no such program or directory,
  // kPermissionDenied, kResourceExhausted at a limit of processes, descriptors
  // or memory, kInvalidArgument for what is no program, no open descriptor, or
  // an empty `argv`.
  static absl::StatusOr<ChildProcess> Spawn(
      std::vector<std::string> argv, const ChildProcessOptions& options = {});

  ChildProcess(ChildProcess&&) noexcept;
  // Destroys what it held, as the destructor does.
  ChildProcess& operator=(ChildProcess&&) noexcept;

  // Unless the child was waited for, kills it, with its group if that is its
  // own, and waits for its end: by SIGKILL, so for a moment. Terminate() or a
  // wait before lets it end in good order. A child that we may not signal,
  // because it runs as another user, is waited for as long as it takes.
  ~ChildProcess();

  // Its process id, also when it has ended.
  pid_t pid() const;

  // Waits until the child has ended, and returns how; the same to every thread
  // and every later call.
  //
  // Observes the current scope: returns its kCancelled or kDeadlineExceeded
  // when it is cancelled, and leaves the child as it is. Another wait then
  // begins anew.
  //
  // kUnknown if the child has ended but somebody else has its status: the
  // kernel, because this process ignores SIGCHLD, or other code that waited for
  // any child. Any other error means that the wait could not begin:
  // kResourceExhausted where the one descriptor was not to be had that PollFd()
  // needs.
  absl::StatusOr<ExitStatus> Wait();

  // The same, but when the scope is cancelled or its deadline passes,
  // terminates the child with ChildProcessOptions::grace, and returns the
  // scope's kCancelled or kDeadlineExceeded once it has ended; the message says
  // how. A Wait() in a scope that is not cancelled then returns the ExitStatus.
  // Where the wait could not begin the child is unharmed.
  absl::StatusOr<ExitStatus> WaitOrTerminate();

  // Ends the child: sends SIGTERM, and SIGKILL if it has not ended after
  // `grace`; SIGCONT as well, so that a stopped child can act. Returns OK once
  // it has ended, however it did, which Wait() tells; at once if it had ended.
  // Goes to the whole group if that is the child's own. Members that are left
  // when the child, its leader, has ended are killed.
  //
  // Observes no cancel scope, because `grace` bounds it: it is for clean-up. An
  // error means that the child was not signalled: kPermissionDenied if it runs
  // as another user.
  absl::Status Terminate(absl::Duration grace);

  // Sends a signal to the child alone, never to another process that has got
  // its number since; 0 only asks, as in kill(2). kNotFound once it has ended
  // and was waited for; kInvalidArgument for what is no signal;
  // kPermissionDenied.
  absl::Status Send(int signum);

  // Our ends of the pipes: one to write to, two to read from; -1 for what is
  // not ChildStream::Pipe(). They block as any pipe does: wait with PollFd() to
  // observe the scope. They stay open until the destructor, also when the child
  // has ended.
  int stdin_pipe() const;
  int stdout_pipe() const;
  int stderr_pipe() const;
  // Closes stdin_pipe(), so that the child reads the end of its input.
  void CloseStdin();

 private:
  struct Child;
  explicit ChildProcess(std::unique_ptr<Child> child);

  std::unique_ptr<Child> child_;  // null: moved from
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_CHILD_PROCESS_H_
