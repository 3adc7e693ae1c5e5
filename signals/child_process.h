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
// whatever this process blocks, ignores or receives. It ignores only signals
// that were ignored when this process started, as under nohup(1). If this
// library came later, in a plug-in that dlopen(3) loads, nobody knows any more
// who ignores what: then the child ignores those of SIGHUP, SIGINT and SIGQUIT
// that were ignored when the library came, as nohup(1) and shells leave them,
// and no others. File descriptors that are not close-on-exec are inherited.
//
// A child does not outlive its ChildProcess: the destructor kills it, and so
// does Shutdown when it forces the end. When the
// CancelScope of a thread in WaitOrTerminate() is cancelled, the child is
// terminated. A thread in Wait() gives up instead, as in every wait of the
// library, and the child runs on. Nothing else in the process is touched: no
// handler is installed, SIGCHLD may have any disposition, and no child but this
// one is ever reaped. In turn, no other code may reap this child, for example
// with a loop around waitpid(-1): its status is then lost.
//
// All members may be called from any thread, the waits by several at once. Move
// and destroy it only while no thread is inside it. After fork() it belongs to
// the parent: in the forked process the waits, Terminate() and Send() fail with
// kFailedPrecondition, and the destructor does not touch the child.
//
// The child is known by a pidfd, which Linux 5.4 and later give. Where a filter
// or an emulator refuses one, or a call that takes one, the child is known by
// its number, and where there is none to poll, a thread of its own waits for
// its end. All of this holds there too, as long as no other code reaps the
// child and this process does not ignore SIGCHLD: the number then stays the
// child's until it is waited for here. Otherwise it is looked for before it is
// signalled, and if it ends between the two and its number goes to another
// process at once, that one is signalled in its place.
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
  // A descriptor of ours. It remains ours and need be open only during Spawn().
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
  // terminal then does not reach it, and ending the child ends the whole group.
  bool own_group = false;
  // Has the kernel kill the child when this process ends, however it does: by
  // SIGKILL too, which runs no destructor. Not the child's own children. A
  // program that runs with other rights, by a set-user-ID bit, is not killed.
  // A thread of the library spawns it: what belongs to a thread, such as its
  // niceness or affinity, is that thread's. The child also ends if this process
  // becomes another program, by execve(2).
  bool dies_with_parent = false;
  // Each as "NAME=value". std::nullopt: ours, without NOTIFY_SOCKET,
  // WATCHDOG_PID and WATCHDOG_USEC, by which the child would speak to our
  // service manager.
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
  // runs. If it cannot be run, there is no child, and the error names the call
  // that failed: kNotFound if there is no such program or directory,
  // kPermissionDenied, kResourceExhausted at a limit of processes, threads,
  // descriptors or memory, kInvalidArgument if the file is not a program, a
  // descriptor is not open, or `argv` is empty, kFailedPrecondition or
  // kUnimplemented if the system refuses a call without which there is no
  // child, such as clone(2) or waitid(2).
  static absl::StatusOr<ChildProcess> Spawn(
      std::vector<std::string> argv, const ChildProcessOptions& options = {});

  ChildProcess(ChildProcess&&) noexcept;
  // Destroys what it held, as the destructor does.
  ChildProcess& operator=(ChildProcess&&) noexcept;

  // Unless the child was waited for, kills it with SIGKILL, and its group if it
  // has its own, and waits for the short time that this takes. Call Terminate()
  // or wait first to let it end in good order. A child that we may not signal,
  // because it runs as another user, is waited for as long as it takes.
  ~ChildProcess();

  // Its process id, also after it has ended.
  pid_t pid() const;

  // Waits until the child has ended, and returns how it ended. Every thread and
  // every later call gets the same result.
  //
  // Observes the current scope: returns its kCancelled or kDeadlineExceeded
  // when it is cancelled, and leaves the child as it is. It can be waited for
  // again.
  //
  // kUnknown if the child has ended but its status is lost: the kernel dropped
  // it because this process ignores SIGCHLD, or other code took it by waiting
  // for any child. Any other error means that the wait could not begin:
  // kResourceExhausted if no descriptor was left for PollFd(), which needs one.
  absl::StatusOr<ExitStatus> Wait();

  // The same, but when the scope is cancelled or its deadline passes,
  // terminates the child with ChildProcessOptions::grace, and returns the
  // scope's kCancelled or kDeadlineExceeded once it has ended; the message says
  // how. A child that may not be signalled runs on, and the message says why. A
  // later Wait() in a scope that is not cancelled returns the ExitStatus. If
  // the wait could not begin, the child is left alone.
  absl::StatusOr<ExitStatus> WaitOrTerminate();

  // Ends the child: sends SIGTERM, with SIGCONT so that a stopped child can
  // act, and SIGKILL if it has not ended after `grace`. Returns OK once it has
  // ended, in whatever way (Wait() tells); at once if it had ended before. If
  // the child has its own group, signals the whole group, and kills the members
  // that are left when the child, its leader, has ended.
  //
  // Observes no cancel scope, because `grace` bounds it: it is for clean-up. An
  // error means that the child was not signalled: kPermissionDenied if it runs
  // as another user.
  absl::Status Terminate(absl::Duration grace);

  // Sends a signal to the child alone, and by its pidfd never to another
  // process that has got its number since. 0 sends nothing and only checks, as
  // in kill(2). kNotFound once it has ended and was waited for;
  // kInvalidArgument if `signum` is not a signal; kPermissionDenied.
  absl::Status Send(int signum);

  // Our ends of the pipes: one to write to, two to read from; -1 if the stream
  // is not ChildStream::Pipe(). They block as any pipe does: wait with PollFd()
  // to observe the scope. They stay open until the destructor runs, also after
  // the child has ended.
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
