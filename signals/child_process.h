// A program that this process runs as its child.
//
//   absl::StatusOr<ChildProcess> child =
//       ChildProcess::Spawn({"gzip", "-k", path});
//   if (!child.ok()) return child.status();
//   absl::StatusOr<ExitStatus> status = child->Wait();
//   if (!status.ok()) return status.status();
//   if (!status->success()) std::cerr << "gzip " << *status << "\n";
//
// The child starts with no signal blocked and with default dispositions,
// whatever this process blocks, ignores or receives. Only what was ignored when
// this process started, as by nohup(1), is ignored by the child too. File
// descriptors that are not close-on-exec are inherited.
//
// A child belongs to its scope twice over. When the CancelScope of a thread in
// Wait() is cancelled, the child is terminated. And it does not outlive its
// ChildProcess: the destructor kills it. Nothing else in the process is
// touched: no handler is installed, SIGCHLD may have any disposition, and no
// child but this one is ever reaped. In turn, nobody else may reap this one, by
// a loop around waitpid(-1) for example: its status is then lost.
//
// All members may be called from any thread, Wait() by several at once. Move
// and destroy it only while no thread is inside it. In a child made by fork()
// it is the parent's: Wait() and Terminate() fail with kFailedPrecondition and
// the destructor does nothing to the process. Needs Linux 5.4.
#ifndef TOCSIN_SIGNALS_CHILD_PROCESS_H_
#define TOCSIN_SIGNALS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tocsin {

// How a process ended: by itself, with a code, or by a signal.
struct ExitStatus {
  std::optional<int> code = std::nullopt;
  std::optional<int> signum = std::nullopt;
  bool core_dumped = false;

  bool success() const { return code == 0; }

  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
  // "exited with status 1", "was killed by SIGSEGV (core dumped)"
  friend std::ostream& operator<<(std::ostream& out, const ExitStatus& status);
};

class ChildProcess {
 public:
  // What one of the child's first three file descriptors is.
  class Stream {
   public:
    static Stream Inherit() { return Stream(kInherit); }
    static Stream Null() { return Stream(kNull); }  // /dev/null
    // A pipe. Our end is input(), output() or error() of the ChildProcess.
    static Stream Pipe() { return Stream(kPipe); }
    // A descriptor of ours, which remains ours and need only be open in
    // Spawn().
    static Stream Fd(int fd) { return Stream(fd < 0 ? kNotOpen : fd); }

   private:
    friend class ChildProcess;
    enum : int { kInherit = -1, kNull = -2, kPipe = -3, kNotOpen = -4 };
    explicit Stream(int fd) : fd_(fd) {}
    int fd_;
  };

  struct Options {
    Stream input = Stream::Inherit();
    Stream output = Stream::Inherit();
    Stream error = Stream::Inherit();
    // Makes the child the leader of a process group of its own. Ctrl+C in the
    // terminal does not reach it then, and what ends the child ends the group.
    bool own_group = false;
    // Each as "NAME=value"; nothing: ours.
    std::optional<std::vector<std::string>> environment = std::nullopt;
    std::string working_directory = {};  // empty: ours
    // How long the child has to end by itself when a Wait() is cancelled.
    absl::Duration grace = absl::Seconds(10);
  };

  // Runs argv[0], which is searched in our $PATH if it has no slash; a relative
  // path is relative to the child's working directory. Returns once the program
  // runs. If it cannot be run there is no child, and the error names the call
  // that failed: kNotFound if there is no such program or directory,
  // kPermissionDenied, kResourceExhausted at a limit of processes, descriptors
  // or memory, kInvalidArgument for what is no program, no open descriptor, or
  // an empty `argv`.
  static absl::StatusOr<ChildProcess> Spawn(std::vector<std::string> argv);
  static absl::StatusOr<ChildProcess> Spawn(std::vector<std::string> argv,
                                            const Options& options);

  ChildProcess(ChildProcess&&) noexcept;
  // Destroys what it held, as the destructor does.
  ChildProcess& operator=(ChildProcess&&) noexcept;

  // Unless the child was waited for, kills it, with its group if that is its
  // own, and waits for its end: by SIGKILL, so for a moment. Terminate() or
  // Wait() before lets it end in good order. A child that we may not signal,
  // for it runs as another user, is waited for as long as it takes.
  ~ChildProcess();

  // Its process id, also when it has ended.
  pid_t pid() const;

  // Waits until the child has ended, and returns how; the same to every thread
  // and every later call.
  //
  // When the current scope is cancelled, or its deadline passes, terminates the
  // child with Options::grace, and returns the scope's kCancelled or
  // kDeadlineExceeded once it has ended; the message says how. Another Wait(),
  // in a scope that is not cancelled, then returns the ExitStatus.
  //
  // kUnknown if it has ended but somebody else has its status: the kernel,
  // because this process ignores SIGCHLD, or other code that waited for any
  // child. Any other error means that the wait could not begin, with the child
  // unharmed: kResourceExhausted where the one descriptor was not to be had
  // that PollFd() needs.
  absl::StatusOr<ExitStatus> Wait();

  // Ends the child: sends SIGTERM, and SIGKILL if it has not ended after
  // `grace`; SIGCONT as well, so that a stopped child can act. Returns OK once
  // it has ended, however it did, which Wait() tells; at once if it had ended.
  // Goes to the whole group if that is the child's own. Members that are left
  // when the child, its leader, has ended are killed.
  //
  // Observes no cancel scope, for `grace` bounds it: it is for clean-up. An
  // error means that the child was not signalled: kPermissionDenied if it runs
  // as another user.
  absl::Status Terminate(absl::Duration grace);

  // Sends a signal to the child alone, never to another process that has got
  // its number since. kNotFound once it has ended and was waited for;
  // kInvalidArgument for what is no signal; kPermissionDenied.
  absl::Status Send(int signum);

  // Our ends of the pipes: one to write to, two to read from; -1 for what is
  // not Stream::Pipe(). They block as any pipe does: wait with PollFd() to
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

}  // namespace tocsin

#endif  // TOCSIN_SIGNALS_CHILD_PROCESS_H_
