#include "tocsin/signals/child_process.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tests/watchdog.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/worker_slot.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

using Options = ChildProcess::Options;

const ExitStatus kSuccess{.code = 0};
const ExitStatus kTerminated{.signum = SIGTERM};
const ExitStatus kKilled{.signum = SIGKILL};

ChildProcess Spawn(std::vector<std::string> argv, const Options& options = {}) {
  auto child = ChildProcess::Spawn(std::move(argv), options);
  if (!child.ok()) ADD_FAILURE() << child.status();
  return *std::move(child);
}

// Reads its input and writes it to its output, until the input ends.
ChildProcess SpawnCat(Options options = {}) {
  options.input = ChildStream::Pipe();
  options.output = ChildStream::Pipe();
  return Spawn({"cat"}, options);
}

// A shell script, which says "ready" once it is.
ChildProcess SpawnScript(const std::string& script, Options options = {}) {
  options.input = ChildStream::Pipe();
  options.output = ChildStream::Pipe();
  ChildProcess child = Spawn({"sh", "-c", script}, options);
  char ready[6];
  EXPECT_EQ(read(child.stdout_pipe(), ready, sizeof(ready)), 6);
  EXPECT_EQ(std::string(ready, 6), "ready\n");
  return child;
}

ChildProcess SpawnDeafToTerm(Options options = {}) {
  return SpawnScript("trap '' TERM; echo ready; exec cat", options);
}

// In a group of its own: a leader that SIGTERM ends, and one that it does not.
ChildProcess SpawnGroupWithDeafMember() {
  return SpawnScript(
      "exec 3<&0; (trap '' TERM; echo ready; exec cat <&3) & wait",
      {.own_group = true});
}

ExitStatus WaitFor(ChildProcess& child) {
  auto status = child.Wait();
  if (!status.ok()) ADD_FAILURE() << status.status();
  return status.ok() ? *status : ExitStatus();
}

// All that is written until the last writer has closed or ended.
std::string ReadAll(int fd) {
  std::string all;
  char buffer[4096];
  for (ssize_t size; (size = read(fd, buffer, sizeof(buffer))) > 0;) {
    all.append(buffer, static_cast<size_t>(size));
  }
  return all;
}

bool Echoes(ChildProcess& cat) {
  char byte = '\0';
  return write(cat.stdin_pipe(), "x", 1) == 1 &&
         read(cat.stdout_pipe(), &byte, 1) == 1 && byte == 'x';
}

// A mask of the child's /proc/self/status, such as "SigBlk".
uint64_t Mask(const std::string& status, const std::string& name) {
  const size_t at = status.find(name + ":");
  if (at == std::string::npos) {
    ADD_FAILURE() << "no " << name << " in\n" << status;
    return ~uint64_t{0};
  }
  return std::stoull(status.substr(at + name.size() + 1), nullptr, 16);
}

std::string StatusOfAChild() {
  ChildProcess child =
      Spawn({"cat", "/proc/self/status"}, {.output = ChildStream::Pipe()});
  std::string status = ReadAll(child.stdout_pipe());
  EXPECT_EQ(WaitFor(child), kSuccess);
  return status;
}

bool HasChildren() {
  siginfo_t info;
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

std::string InWords(const ExitStatus& status) {
  std::ostringstream out;
  out << status;
  return out.str();
}

std::set<int> OpenDescriptors() {
  std::set<int> open;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    open.insert(std::stoi(entry.path().filename()));
  }
  // The one that was looked through is closed by now.
  std::erase_if(open, [](int fd) { return fcntl(fd, F_GETFD) < 0; });
  return open;
}

int Count(const char* variable, int standard) {
  const char* given = std::getenv(variable);
  return given != nullptr ? std::atoi(given) : standard;
}

TEST(ChildProcess, TellsTheCodeThatItsChildExitedWith) {
  ChildProcess child = Spawn({"sh", "-c", "exit 3"});
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3});
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3}) << "the second time";
}

TEST(ChildProcess, TellsTheSignalThatKilledItsChild) {
  ChildProcess child = Spawn({"sh", "-c", "kill -USR1 $$"});
  EXPECT_EQ(WaitFor(child), ExitStatus{.signum = SIGUSR1});
}

TEST(ExitStatus, IsPrintedInWords) {
  EXPECT_EQ(InWords({.code = 3}), "exited with status 3");
  EXPECT_EQ(InWords({.signum = SIGTERM}), "was killed by SIGTERM");
  EXPECT_EQ(InWords({.signum = SIGSEGV, .core_dumped = true}),
            "was killed by SIGSEGV (core dumped)");
}

// As Abseil's.
struct Sink {
  void Append(absl::string_view more) { text.append(more.data(), more.size()); }
  std::string text;
};

TEST(ExitStatus, IsPrintedInTheSameWordsByAbseil) {
  Sink sink;
  AbslStringify(sink, ExitStatus{.code = 3});
  EXPECT_EQ(sink.text, "exited with status 3");
}

TEST(ChildProcess, HandsOutPipesToAndFromTheChild) {
  ChildProcess child =
      Spawn({"sh", "-c", "cat; echo oops >&2"}, {.input = ChildStream::Pipe(),
                                                 .output = ChildStream::Pipe(),
                                                 .error = ChildStream::Pipe()});
  ASSERT_EQ(write(child.stdin_pipe(), "hello", 5), 5);
  child.CloseStdin();
  EXPECT_EQ(child.stdin_pipe(), -1);
  EXPECT_EQ(ReadAll(child.stdout_pipe()), "hello");
  EXPECT_EQ(ReadAll(child.stderr_pipe()), "oops\n");
  EXPECT_EQ(WaitFor(child), kSuccess);
}

TEST(ChildProcess, GivesTheChildNullAndDescriptorsOfOurs) {
  Pipe output;
  ChildProcess child = Spawn({"sh", "-c", "cat; echo out; echo err >&2"},
                             {.input = ChildStream::Null(),
                              .output = ChildStream::Fd(output.writer()),
                              .error = ChildStream::Fd(output.writer())});
  EXPECT_EQ(WaitFor(child), kSuccess);
  output.CloseWriter();
  EXPECT_EQ(ReadAll(output.reader()), "out\nerr\n");
}

// Descriptors that stand in each other's place must not overwrite each other.
TEST(ChildProcess, CanExchangeTheStandardDescriptors) {
  auto exchange = [] {
    Pipe first, second;
    dup2(first.writer(), 1);
    dup2(second.writer(), 2);
    ChildProcess child =
        Spawn({"sh", "-c", "echo out; echo err >&2"},
              {.output = ChildStream::Fd(2), .error = ChildStream::Fd(1)});
    const bool succeeded = WaitFor(child) == kSuccess;
    _exit(succeeded && first.Take() == 'e' && second.Take() == 'o' ? 0 : 1);
  };
  EXPECT_EXIT(exchange(), ExitedWithCode(0), "");
}

TEST(ChildProcess, RunsInTheGivenEnvironmentAndDirectory) {
  Options options{.output = ChildStream::Pipe()};
  options.environment = {"GREETING=hello"};
  options.working_directory = "/proc/self";
  ChildProcess child =
      Spawn({"sh", "-c", "echo $GREETING $TEST_TMPDIR; pwd -P"}, options);
  EXPECT_EQ(ReadAll(child.stdout_pipe()),
            "hello\n/proc/" + std::to_string(child.pid()) + "\n");
}

// It would speak to our service manager in our name.
TEST(ChildProcess, DoesNotInheritTheServiceManager) {
  setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
  setenv("WATCHDOG_PID", "1", 1);
  setenv("WATCHDOG_USEC", "1000000", 1);
  setenv("WATCHDOGS", "two", 1);
  const std::vector<std::string> command = {
      "sh", "-c",
      "echo $NOTIFY_SOCKET $WATCHDOG_PID $WATCHDOG_USEC $WATCHDOGS"};
  Options options{.output = ChildStream::Pipe()};
  ChildProcess child = Spawn(command, options);
  EXPECT_EQ(ReadAll(child.stdout_pipe()), "two\n");
  options.environment = {"NOTIFY_SOCKET=/given"};
  ChildProcess asked = Spawn(command, options);
  EXPECT_EQ(ReadAll(asked.stdout_pipe()), "/given\n");
  for (const char* name :
       {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "WATCHDOGS"}) {
    unsetenv(name);
  }
}

TEST(ChildProcess, ReportsAProgramThatCannotBeRun) {
  const struct {
    std::vector<std::string> argv;
    std::string directory;
    absl::StatusCode code;
    std::string message;
  } cases[] = {
      {{"no-such-program"},
       "",
       absl::StatusCode::kNotFound,
       "execve for no-such-program: No such file or directory"},
      {{"/no/such/program"},
       "",
       absl::StatusCode::kNotFound,
       "execve for /no/such/program: No such file or directory"},
      {{"/proc/self/status"},
       "",
       absl::StatusCode::kPermissionDenied,
       "execve for /proc/self/status: Permission denied"},
      {{"true"},
       "/no/such/directory",
       absl::StatusCode::kNotFound,
       "chdir for /no/such/directory: No such file or directory"},
      {{}, "", absl::StatusCode::kInvalidArgument, "no program to run"},
      {{""}, "", absl::StatusCode::kInvalidArgument, "no program to run"},
  };
  for (const auto& c : cases) {
    const auto child =
        ChildProcess::Spawn(c.argv, {.working_directory = c.directory});
    EXPECT_EQ(child.status().code(), c.code);
    EXPECT_THAT(std::string(child.status().message()), HasSubstr(c.message));
  }
  EXPECT_FALSE(HasChildren());
}

TEST(ChildProcess, ReportsAFileThatIsNoProgram) {
  const std::string path = ::testing::TempDir() + "/no_program";
  const int fd = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
  ASSERT_EQ(write(fd, "?", 1), 1);
  close(fd);
  EXPECT_EQ(ChildProcess::Spawn({path}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChildProcess, ReportsADescriptorThatIsNotOpen) {
  for (const int fd : {-1, -2, -3, -4, -7, INT_MAX}) {
    const auto child =
        ChildProcess::Spawn({"true"}, {.output = ChildStream::Fd(fd)});
    EXPECT_EQ(child.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ChildProcess, ReportsThatNoDescriptorIsLeft) {
  auto spawn = [] {
    const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
    setrlimit(RLIMIT_NOFILE, &limit);
    std::cerr << ChildProcess::Spawn({"true"}).status() << "\n"
              << ChildProcess::Spawn({"true"}, {.input = ChildStream::Pipe()})
                     .status()
              << "\n"
              << ChildProcess::Spawn({"true"}, {.input = ChildStream::Null()})
                     .status();
    _exit(HasChildren() ? 1 : 0);
  };
  EXPECT_EXIT(spawn(), ExitedWithCode(0),
              "RESOURCE_EXHAUSTED: (clone for true|eventfd for ChildProcess): "
              "Too many open files; raise RLIMIT_NOFILE .*\n"
              "RESOURCE_EXHAUSTED: pipe2 for true: .*RLIMIT_NOFILE.*\n"
              "RESOURCE_EXHAUSTED: open for /dev/null: .*RLIMIT_NOFILE");
}

TEST(ChildProcess, ReportsThatNoProcessIsLeft) {
  if (getuid() == 0) {
    // The limit does not hold for root, and in a sandbox there may be nobody
    // else to become.
    const pid_t pid = fork();
    if (pid == 0) _exit(setresuid(65534, 65534, 65534) == 0 ? 0 : 1);
    int status;
    waitpid(pid, &status, 0);
    if (status != 0) GTEST_SKIP() << "cannot give up being root here";
  }
  auto spawn = [] {
    const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
    setrlimit(RLIMIT_NPROC, &limit);
    if (getuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(1);
    std::cerr << ChildProcess::Spawn({"true"}).status();
    _exit(0);
  };
  EXPECT_EXIT(
      spawn(), ExitedWithCode(0),
      "RESOURCE_EXHAUSTED: (clone for true|pthread_create for ChildProcess "
      "without a pidfd): Resource temporarily unavailable; "
      "raise RLIMIT_NPROC .* or the cgroup's pids.max");
}

TEST(ChildProcess, KeepsItsDescriptorsToItselfAndClosesThem) {
  const std::set<int> before = OpenDescriptors();
  {
    ChildProcess child = SpawnCat({.error = ChildStream::Null()});
    int ours = 0;
    for (int fd : OpenDescriptors()) {
      if (before.contains(fd)) continue;
      EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC) << fd;
      ++ours;
    }
    EXPECT_EQ(ours, 3) << "two pipes and the pidfd";
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

// G28.
TEST(ChildProcess, StartsWithNothingBlockedIgnoredOrCaught) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGUSR1});
  ScopedSignalBlock block({SIGINT, SIGTERM, SIGUSR2, SIGRTMIN});
  SetDisposition(SIGPIPE, SIG_IGN);
  std::string status = StatusOfAChild();
  EXPECT_EQ(Mask(status, "SigBlk"), 0u);
  EXPECT_EQ(Mask(status, "SigIgn"), 0u);
  std::thread([&] { status = StatusOfAChild(); }).join();
  EXPECT_EQ(Mask(status, "SigBlk"), 0u);
  EXPECT_EQ(Mask(status, "SigIgn"), 0u);
  SetDisposition(SIGPIPE, SIG_DFL);
}

// G29.
TEST(ChildProcess, EndsBySigtermWhileThisProcessBlocksAndReceivesIt) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  ScopedSignalBlock block({SIGTERM});
  ChildProcess child = SpawnCat();
  ASSERT_TRUE(child.Send(SIGTERM).ok());
  EXPECT_EQ(WaitFor(child), kTerminated);
  EXPECT_FALSE(receiver.TryReceive().ok());
}

// Run by the next test, with SIGHUP and SIGUSR1 ignored from the start.
TEST(IgnoredAtStart, DISABLED_Inner) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGHUP});
  SetDisposition(SIGUSR2, SIG_IGN);
  const uint64_t ignored = Mask(StatusOfAChild(), "SigIgn");
  EXPECT_EQ(ignored,
            uint64_t{1} << (SIGHUP - 1) | uint64_t{1} << (SIGUSR1 - 1));
}

TEST(IgnoredAtStart, IsIgnoredByChildrenAlsoWhileItIsReceived) {
  ChildProcess child = Spawn({"sh", "-c", "trap '' HUP USR1; exec \"$@\"", "sh",
                              std::filesystem::read_symlink("/proc/self/exe"),
                              "--gtest_filter=IgnoredAtStart.DISABLED_Inner",
                              "--gtest_also_run_disabled_tests", kAsStarted},
                             {.output = ChildStream::Pipe()});
  const std::string output = ReadAll(child.stdout_pipe());
  EXPECT_EQ(WaitFor(child), kSuccess) << output;
  EXPECT_THAT(output, HasSubstr("1 test from 1 test suite ran"));
}

// C5.
TEST(ChildProcess, MissesNoneOfAHundredAndLeavesForeignChildrenAlone) {
  auto watch = [] {
    std::vector<pid_t> foreign;
    for (int i = 0; i < 10; ++i) {
      const pid_t pid = fork();
      if (pid == 0) _exit(i);
      foreign.push_back(pid);
    }
    int missed = 0;
    for (int i = 0; i < 100; ++i) {
      ChildProcess child = Spawn({"sh", "-c", "exit " + std::to_string(i)});
      if (WaitFor(child) != ExitStatus{.code = i}) ++missed;
    }
    int stolen = 0;
    for (int i = 0; i < 10; ++i) {
      int status;
      if (waitpid(foreign[static_cast<size_t>(i)], &status, 0) < 0 ||
          WEXITSTATUS(status) != i) {
        ++stolen;
      }
    }
    std::cerr << missed << " missed, " << stolen << " stolen";
    _exit(HasChildren() ? 1 : 0);
  };
  EXPECT_EXIT(watch(), ExitedWithCode(0), "0 missed, 0 stolen");
}

// G52.
TEST(ChildProcess, FindsFiftyThatEndAtOnceWhereSigchldIsMerged) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD});
  Pipe input;
  fcntl(input.writer(), F_SETFD, FD_CLOEXEC);
  std::vector<ChildProcess> children;
  for (int i = 0; i < 50; ++i) {
    children.push_back(
        Spawn({"cat"}, {.input = ChildStream::Fd(input.reader())}));
  }
  input.CloseWriter();
  EXPECT_EQ(Next(receiver).signum, SIGCHLD);
  for (ChildProcess& child : children) EXPECT_EQ(WaitFor(child), kSuccess);
  EXPECT_FALSE(HasChildren());
}

// C6.
TEST(ChildProcess, SaysThatTheStatusIsUnknownWhereSigchldIsIgnored) {
  auto wait = [] {
    SetDisposition(SIGCHLD, SIG_IGN);
    // One that ends before the wait, and one in the middle of it.
    ChildProcess quick = Spawn({"true"}, {.output = ChildStream::Pipe()});
    ReadAll(quick.stdout_pipe());
    ChildProcess child = SpawnCat();
    ScopedThread waiter([&] { std::cerr << quick.Wait().status() << "\n"; });
    waiter.Join();
    ScopedThread second([&] { std::cerr << child.Wait().status() << "\n"; });
    second.AwaitAsleep();
    child.CloseStdin();
    second.Join();
    _exit(0);
  };
  EXPECT_EXIT(wait(), ExitedWithCode(0),
              "UNKNOWN: true .* has ended and its status is unknown: this "
              "process ignores SIGCHLD.*\n"
              "UNKNOWN: cat .* has ended");
}

// C6.
TEST(ChildProcess, TerminatesWhereSigchldIsIgnored) {
  auto terminate = [] {
    SetDisposition(SIGCHLD, SIG_IGN);
    for (const bool own_group : {false, true}) {
      ChildProcess child = SpawnDeafToTerm({.own_group = own_group});
      const absl::Status status = child.Terminate(absl::ZeroDuration());
      if (!status.ok() || kill(child.pid(), 0) == 0) _exit(1);
      if (!child.Terminate(absl::ZeroDuration()).ok()) _exit(2);
    }
    _exit(0);
  };
  EXPECT_EXIT(terminate(), ExitedWithCode(0), "");
}

// C7.
TEST(ChildProcess, InAGroupOfItsOwnSurvivesCtrlC) {
  auto press = [] {
    setsid();
    const int keyboard = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    grantpt(keyboard);
    unlockpt(keyboard);
    const int terminal = open(ptsname(keyboard), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ioctl(terminal, TIOCSCTTY, 0) != 0) _exit(1);
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGINT});
    ChildProcess apart = SpawnCat({.own_group = true});
    ChildProcess together = SpawnCat();
    if (write(keyboard, "\003", 1) != 1) _exit(2);
    if (Next(receiver).origin != SignalEvent::Origin::kTerminal) _exit(3);
    if (WaitFor(together) != ExitStatus{.signum = SIGINT}) _exit(4);
    if (!Echoes(apart)) _exit(5);
    apart.CloseStdin();
    if (WaitFor(apart) != kSuccess) _exit(6);
    _exit(0);
  };
  EXPECT_EXIT(press(), ExitedWithCode(0), "");
}

// A thousand with TOCSIN_CHILDREN=1000.
TEST(ChildProcess, MissesNoneAndStealsNoneWhileOthersCallSystem) {
  constexpr int kSpawners = 4;
  const int children = Count("TOCSIN_CHILDREN", 100);
  std::atomic<int> left{children};
  std::atomic<int> missed{0};
  std::atomic<int> stolen{0};
  std::atomic<int> running{kSpawners};
  std::vector<std::thread> threads;
  for (int i = 0; i < kSpawners; ++i) {
    threads.emplace_back([&] {
      for (int n; (n = --left) >= 0;) {
        ChildProcess child =
            Spawn({"sh", "-c", "exit " + std::to_string(n % 100)});
        if (WaitFor(child) != ExitStatus{.code = n % 100}) ++missed;
      }
      --running;
    });
  }
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      do {
        const int status = system("exit 7");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) ++stolen;
      } while (running > 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(stolen, 0);
  EXPECT_FALSE(HasChildren());
}

TEST(ChildProcess, SendsTheChildASignalAsLongAsThereIsOne) {
  ChildProcess child = SpawnCat();
  EXPECT_TRUE(child.Send(0).ok());
  EXPECT_EQ(child.Send(4096).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(child.Send(SIGUSR2).ok());
  EXPECT_EQ(WaitFor(child), ExitStatus{.signum = SIGUSR2});
  EXPECT_EQ(child.Send(SIGUSR2).code(), absl::StatusCode::kNotFound);
}

TEST(Terminate, EndsAChildThatHeedsSigterm) {
  ChildProcess child = SpawnCat();
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(WaitFor(child), kTerminated);
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok()) << "again";
}

TEST(Terminate, KillsAChildThatIgnoresSigterm) {
  for (const auto grace : {absl::ZeroDuration(), absl::Milliseconds(1)}) {
    ChildProcess child = SpawnDeafToTerm();
    EXPECT_TRUE(child.Terminate(grace).ok());
    EXPECT_EQ(WaitFor(child), kKilled);
  }
}

TEST(Terminate, LetsAStoppedChildHeedSigterm) {
  ChildProcess child = SpawnScript(
      "trap 'exit 5' TERM; echo ready; kill -STOP $$; while :; do :; done");
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 5});
}

TEST(Terminate, LeavesNothingOfAGroupBehind) {
  ChildProcess child = SpawnGroupWithDeafMember();
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(WaitFor(child), kTerminated);
  EXPECT_EQ(ReadAll(child.stdout_pipe()), "")
      << "nobody holds the pipe any more";
}

TEST(Terminate, ObservesNoScope) {
  ChildProcess child =
      SpawnScript("trap 'cat; exit 5' TERM; echo ready; while :; do :; done");
  std::thread mourner;
  {
    CancelScope scope;
    scope.Cancel();
    mourner = std::thread([&] { child.CloseStdin(); });
    EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  }
  mourner.join();
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 5});
}

TEST(Terminate, WakesThoseWhoWait) {
  ChildProcess child = SpawnCat();
  ExitStatus status;
  ScopedThread waiter([&] { status = WaitFor(child); });
  waiter.AwaitAsleep();
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  waiter.Join();
  EXPECT_EQ(status, kTerminated);
}

TEST(Wait, TellsSeveralThreadsTheSame) {
  ChildProcess child = SpawnScript("echo ready; cat; exit 4");
  ExitStatus statuses[4];
  {
    std::vector<std::unique_ptr<ScopedThread>> waiters;
    for (ExitStatus& status : statuses) {
      waiters.push_back(
          std::make_unique<ScopedThread>([&] { status = WaitFor(child); }));
    }
    for (auto& waiter : waiters) waiter->AwaitAsleep();
    child.CloseStdin();
  }
  for (const ExitStatus& status : statuses) {
    EXPECT_EQ(status, ExitStatus{.code = 4});
  }
}

// Issue 18: the child was terminated.
TEST(Wait, GivesUpWhenItsScopeEndsAndLeavesTheChildAsItIs) {
  ChildProcess child = SpawnCat();
  absl::Status status;
  ScopedThread waiter([&] { status = child.Wait().status(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel(absl::CancelledError("enough"));
  waiter.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(status.message(), "enough");
  {
    CancelScope scope({.deadline = absl::InfinitePast()});
    EXPECT_TRUE(absl::IsDeadlineExceeded(child.Wait().status()));
  }
  EXPECT_TRUE(Echoes(child));
  child.CloseStdin();
  EXPECT_EQ(WaitFor(child), kSuccess);
}

TEST(WaitOrTerminate, TellsHowTheChildEnded) {
  ChildProcess child = Spawn({"sh", "-c", "exit 3"});
  CancelScope scope;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(child.WaitOrTerminate().value(), ExitStatus{.code = 3});
  }
}

// By them a group recognises its own cancellation.
TEST(WaitOrTerminate, KeepsThePayloadsOfTheReason) {
  ChildProcess child = SpawnCat();
  absl::Status reason = absl::CancelledError("enough");
  reason.SetPayload("whose", absl::Cord("mine"));
  CancelScope scope;
  scope.Cancel(reason);
  const absl::Status status = child.WaitOrTerminate().status();
  EXPECT_NE(status.message(), "enough");
  EXPECT_EQ(status.GetPayload("whose"), absl::Cord("mine"));
}

TEST(WaitOrTerminate, TerminatesTheChildWhenItsScopeIsCancelled) {
  ChildProcess child = SpawnCat({.grace = absl::InfiniteDuration()});
  absl::Status status;
  ScopedThread waiter([&] { status = child.WaitOrTerminate().status(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel(absl::CancelledError("enough"));
  waiter.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(status.message(), "enough; cat (pid " +
                                  std::to_string(child.pid()) +
                                  ") was killed by SIGTERM");
  EXPECT_EQ(WaitFor(child), kTerminated);
}

TEST(WaitOrTerminate, KillsTheChildWhenItsGraceIsOver) {
  ChildProcess child = SpawnDeafToTerm({.grace = absl::Milliseconds(1)});
  CancelScope scope({.deadline = absl::InfinitePast()});
  const absl::Status status = child.WaitOrTerminate().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("killed by SIGKILL"));
  scope.set_shield(true);
}

TEST(WaitOrTerminate, LeavesTheChildAloneWhereItCannotBegin) {
  auto wait = [] {
    ChildProcess child = SpawnCat();
    CancelScope scope;
    const rlimit limit{.rlim_cur = 3, .rlim_max = 3};
    setrlimit(RLIMIT_NOFILE, &limit);
    std::cerr << child.WaitOrTerminate().status();
    _exit(Echoes(child) ? 0 : 1);
  };
  EXPECT_EXIT(wait(), ExitedWithCode(0), "RESOURCE_EXHAUSTED: eventfd");
}

TEST(Destructor, KillsTheChildAndLeavesNoZombie) {
  pid_t pid;
  {
    ChildProcess child = SpawnDeafToTerm();
    pid = child.pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(Destructor, KillsTheWholeGroup) {
  Pipe held;
  fcntl(held.reader(), F_SETFD, FD_CLOEXEC);
  { ChildProcess child = SpawnGroupWithDeafMember(); }
  held.CloseWriter();
  EXPECT_EQ(held.Take(), '\0') << "nobody holds the pipe any more";
}

TEST(Destructor, IsThatOfTheOldChildInAnAssignment) {
  ChildProcess child = SpawnCat();
  const pid_t old = child.pid();
  child = SpawnCat();
  EXPECT_EQ(kill(old, 0), -1);
  EXPECT_TRUE(Echoes(child));
}

TEST(ChildProcess, RemainsTheParentsAfterFork) {
  auto wait_in_fork = [] {
    ChildProcess child = SpawnCat();
    const pid_t forked = fork();
    if (forked == 0) {
      const bool refused =
          absl::IsFailedPrecondition(child.Wait().status()) &&
          absl::IsFailedPrecondition(child.WaitOrTerminate().status()) &&
          absl::IsFailedPrecondition(child.Terminate(absl::ZeroDuration())) &&
          absl::IsFailedPrecondition(child.Send(0));
      { ChildProcess destroyed = std::move(child); }
      _exit(refused ? 0 : 1);
    }
    int status;
    waitpid(forked, &status, 0);
    if (status != 0) _exit(1);
    _exit(Echoes(child) ? 0 : 2);
  };
  EXPECT_EXIT(wait_in_fork(), ExitedWithCode(0), "");
}

TEST(ExitStatus, IsASuccessForTheCodeZeroAlone) {
  EXPECT_TRUE(kSuccess.success());
  const std::vector<ExitStatus> others = {
      {}, {.code = 3}, kTerminated, {.signum = 0}};
  for (const ExitStatus& status : others) {
    EXPECT_FALSE(status.success()) << status;
  }
}

TEST(ChildProcess, HasOurEnvironmentUnlessItIsGivenOne) {
  setenv("TOCSIN_WORD", "ours", 1);
  ChildProcess with_ours =
      Spawn({"sh", "-c", "echo $TOCSIN_WORD"}, {.output = ChildStream::Pipe()});
  EXPECT_EQ(ReadAll(with_ours.stdout_pipe()), "ours\n");
  ChildProcess with_none =
      Spawn({"env"}, {.output = ChildStream::Pipe(),
                      .environment = std::vector<std::string>()});
  EXPECT_EQ(ReadAll(with_none.stdout_pipe()), "");
  unsetenv("TOCSIN_WORD");
}

TEST(ChildProcess, CanReadNothingFromNullAndWriteAnythingToIt) {
  ChildProcess child = Spawn({"sh", "-c", "cat && echo out && echo err >&2"},
                             {.input = ChildStream::Null(),
                              .output = ChildStream::Null(),
                              .error = ChildStream::Null()});
  EXPECT_EQ(WaitFor(child), kSuccess);
}

TEST(ChildProcess, LeavesUsTheDescriptorsThatItIsGiven) {
  Pipe output;
  fcntl(output.writer(), F_SETFD, FD_CLOEXEC);
  ChildProcess child =
      Spawn({"echo", "out"}, {.output = ChildStream::Fd(output.writer())});
  EXPECT_EQ(WaitFor(child), kSuccess);
  EXPECT_EQ(fcntl(output.writer(), F_GETFD), FD_CLOEXEC);
  output.CloseWriter();
  EXPECT_EQ(ReadAll(output.reader()), "out\n");
}

TEST(ChildProcess, InheritsDescriptorsThatAreNotCloseOnExec) {
  Pipe inherited, ours;
  fcntl(ours.writer(), F_SETFD, FD_CLOEXEC);
  for (const Pipe* pipe : {&inherited, &ours}) {
    ChildProcess child = Spawn({"sh", "-c", "test -e /proc/self/fd/$0",
                                std::to_string(pipe->writer())});
    EXPECT_EQ(WaitFor(child).success(), pipe == &inherited);
  }
}

// Close-on-exec, so that it has to be seen to although nothing moves.
TEST(ChildProcess, CanBeGivenTheStandardDescriptorsInTheirOwnPlaces) {
  auto pass_on = [] {
    Pipe input, output, error;
    input.Put('i');
    input.CloseWriter();
    dup3(input.reader(), 0, O_CLOEXEC);
    dup3(output.writer(), 1, O_CLOEXEC);
    dup3(error.writer(), 2, O_CLOEXEC);
    ChildProcess child =
        Spawn({"sh", "-c", "cat; echo err >&2"}, {.input = ChildStream::Fd(0),
                                                  .output = ChildStream::Fd(1),
                                                  .error = ChildStream::Fd(2)});
    const bool succeeded = WaitFor(child) == kSuccess;
    _exit(succeeded && output.Take() == 'i' && error.Take() == 'e' ? 0 : 1);
  };
  EXPECT_EXIT(pass_on(), ExitedWithCode(0), "");
}

// What is moved out of the way does not go to the place that is free.
TEST(ChildProcess, CanExchangeDescriptorsWhereAStandardOneIsClosed) {
  auto exchange = [] {
    Pipe input, first, second;
    input.CloseWriter();
    dup2(first.writer(), 1);
    dup2(second.writer(), 2);
    close(0);
    ChildProcess child = Spawn({"sh", "-c", "cat; echo out; echo err >&2"},
                               {.input = ChildStream::Fd(input.reader()),
                                .output = ChildStream::Fd(2),
                                .error = ChildStream::Fd(1)});
    const bool succeeded = WaitFor(child) == kSuccess;
    _exit(succeeded && first.Take() == 'e' && second.Take() == 'o' ? 0 : 1);
  };
  EXPECT_EXIT(exchange(), ExitedWithCode(0), "");
}

TEST(ChildProcess, LeadsAGroupOfItsOwnWhereThatIsAskedFor) {
  ChildProcess apart = SpawnCat({.own_group = true});
  EXPECT_EQ(getpgid(apart.pid()), apart.pid());
  ChildProcess together = SpawnCat();
  EXPECT_EQ(getpgid(together.pid()), getpgrp());
}

TEST(ChildProcess, RunsItsProgramWhenSpawnReturns) {
  ChildProcess child = SpawnCat();
  EXPECT_NE(std::filesystem::read_symlink("/proc/" +
                                          std::to_string(child.pid()) + "/exe"),
            std::filesystem::read_symlink("/proc/self/exe"));
}

TEST(ChildProcess, CanBeMoved) {
  ChildProcess first = SpawnCat();
  const pid_t pid = first.pid();
  ChildProcess child = std::move(first);
  EXPECT_EQ(child.pid(), pid);
  EXPECT_TRUE(Echoes(child));
  child.CloseStdin();
  child.CloseStdin();
  EXPECT_EQ(WaitFor(child), kSuccess);
  EXPECT_EQ(child.pid(), pid);
}

// A folder of programs.
class Programs {
 public:
  explicit Programs(const std::string& name)
      : path_(::testing::TempDir() + "/" + name) {
    std::filesystem::create_directories(path_);
  }

  const std::string& path() const { return path_; }

  void Add(const std::string& name, const std::string& text, mode_t mode) {
    const std::string file = path_ + "/" + name;
    // Not written by us: a child of another thread's might hold it open.
    EXPECT_EQ(system(("printf '" + text + "' >" + file).c_str()), 0);
    EXPECT_EQ(chmod(file.c_str(), mode), 0);
  }

 private:
  const std::string path_;
};

class ScopedPath {
 public:
  explicit ScopedPath(const char* path) : before_(std::getenv("PATH")) {
    path != nullptr ? setenv("PATH", path, 1) : unsetenv("PATH");
  }
  ~ScopedPath() { setenv("PATH", before_.c_str(), 1); }

 private:
  const std::string before_;
};

TEST(ChildProcess, IsSearchedInOurPathInOrder) {
  Programs seven("seven"), eight("eight"), barred("barred"), broken("broken");
  seven.Add("tool", "#!/bin/sh\\nexit 7\\n", 0755);
  eight.Add("tool", "#!/bin/sh\\nexit 8\\n", 0755);
  barred.Add("tool", "#!/bin/sh\\nexit 9\\n", 0644);
  broken.Add("tool", "?", 0755);
  auto run = [](const std::string& path, Options options = {}) {
    ScopedPath scoped(path.c_str());
    options.environment = {"PATH=/nowhere"};
    auto child = ChildProcess::Spawn({"tool"}, options);
    return child.ok() ? child->Wait() : child.status();
  };
  const ExitStatus is_seven{.code = 7};
  const ExitStatus is_eight{.code = 8};
  EXPECT_EQ(*run(seven.path() + ":" + eight.path()), is_seven);
  EXPECT_EQ(*run(eight.path() + ":" + seven.path()), is_eight);
  EXPECT_EQ(*run("/nowhere:/etc/passwd:" + seven.path()), is_seven);
  // What may not be run is passed over, and remembered.
  EXPECT_EQ(*run(barred.path() + ":" + seven.path()), is_seven);
  for (const std::string& path :
       {barred.path() + ":/nowhere", "/nowhere:" + barred.path()}) {
    EXPECT_EQ(run(path).status().code(), absl::StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(run("/nowhere:/etc/passwd").status().code(),
            absl::StatusCode::kNotFound);
  // What cannot be run is the end of the search.
  EXPECT_EQ(run(broken.path() + ":" + seven.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  // An empty name is the working directory.
  for (const char* path : {":/nowhere", "/nowhere:", "/nowhere::/nowhere"}) {
    EXPECT_EQ(*run(path, {.working_directory = seven.path()}), is_seven);
  }
}

TEST(ChildProcess, IsSearchedInTheUsualPlacesWithoutAPath) {
  ScopedPath none(nullptr);
  ChildProcess child = Spawn({"true"});
  EXPECT_EQ(WaitFor(child), kSuccess);
}

TEST(ChildProcess, WithASlashIsRelativeToItsWorkingDirectory) {
  Programs seven("seven");
  seven.Add("tool", "#!/bin/sh\\nexit 7\\n", 0755);
  ScopedPath path(seven.path().c_str());
  ChildProcess child = Spawn({"./tool"}, {.working_directory = seven.path()});
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 7});
  EXPECT_EQ(ChildProcess::Spawn({"./tool"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ChildProcess, ReportsEachWayInWhichAPathIsNone) {
  const std::string loop = ::testing::TempDir() + "/loop";
  ASSERT_TRUE(symlink(loop.c_str(), loop.c_str()) == 0 || errno == EEXIST);
  const std::string too_long(300, 'x');
  const struct {
    std::vector<std::string> argv;
    std::string directory;
    absl::StatusCode code;
  } cases[] = {
      {{"/etc/passwd/x"}, "", absl::StatusCode::kNotFound},
      {{"true"}, "/etc/passwd", absl::StatusCode::kNotFound},
      {{loop}, "", absl::StatusCode::kInvalidArgument},
      {{"/" + too_long}, "", absl::StatusCode::kInvalidArgument},
      {{too_long}, "", absl::StatusCode::kInvalidArgument},
      // More than one argument may have.
      {{"true", std::string(size_t{1} << 18, 'x')},
       "",
       absl::StatusCode::kInvalidArgument},
  };
  for (const auto& c : cases) {
    const absl::Status status =
        ChildProcess::Spawn(c.argv, {.working_directory = c.directory})
            .status();
    EXPECT_EQ(status.code(), c.code) << status;
  }
  EXPECT_FALSE(HasChildren());
}

TEST(ChildProcess, ThatCannotBeRunLeavesNothing) {
  ScopedSignalBlock block({SIGUSR1});
  const uint64_t mask = StatusMask(TaskOfThisThread(), "SigBlk");
  const std::set<int> before = OpenDescriptors();
  const Options pipes{.input = ChildStream::Pipe(),
                      .output = ChildStream::Null(),
                      .error = ChildStream::Pipe(),
                      .own_group = true};
  Options nowhere = pipes;
  nowhere.working_directory = "/nowhere";
  Options not_open = pipes;
  not_open.error = ChildStream::Fd(INT_MAX);
  Options negative = pipes;
  negative.error = ChildStream::Fd(-7);
  EXPECT_FALSE(ChildProcess::Spawn({"/nowhere"}, pipes).ok());
  EXPECT_FALSE(ChildProcess::Spawn({"true"}, nowhere).ok());
  EXPECT_FALSE(ChildProcess::Spawn({"true"}, not_open).ok());
  EXPECT_FALSE(ChildProcess::Spawn({"true"}, negative).ok());
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_EQ(StatusMask(TaskOfThisThread(), "SigBlk"), mask);
  EXPECT_FALSE(HasChildren());
}

TEST(ChildProcess, LeavesTheMaskOfThisThreadAsItWas) {
  ScopedSignalBlock block({SIGUSR1});
  const uint64_t mask = StatusMask(TaskOfThisThread(), "SigBlk");
  ChildProcess child = SpawnCat();
  EXPECT_EQ(StatusMask(TaskOfThisThread(), "SigBlk"), mask);
}

TEST(ChildProcess, TakesNothingWhereOneDescriptorIsMissing) {
  auto spawn = [] {
    const std::set<int> before = OpenDescriptors();
    const Options options{.input = ChildStream::Pipe(),
                          .output = ChildStream::Null(),
                          .error = ChildStream::Pipe()};
    for (rlim_t limit = 3;; ++limit) {
      const rlimit few{.rlim_cur = limit, .rlim_max = 1024};
      setrlimit(RLIMIT_NOFILE, &few);
      auto child = ChildProcess::Spawn({"true"}, options);
      const rlimit enough{.rlim_cur = 1024, .rlim_max = 1024};
      setrlimit(RLIMIT_NOFILE, &enough);
      if (child.ok()) _exit(WaitFor(*child) == kSuccess ? 0 : 1);
      if (!absl::IsResourceExhausted(child.status())) _exit(2);
      if (OpenDescriptors() != before) _exit(3);
      if (HasChildren()) _exit(4);
    }
  };
  EXPECT_EXIT(spawn(), ExitedWithCode(0), "");
}

TEST(ChildProcess, StartsWithEverySignalAsItIsByDefault) {
  auto spawn = [] {
    for (int signum = 1; signum <= SIGRTMAX; ++signum) {
      if (signum != SIGCHLD) signal(signum, SIG_IGN);
    }
    _exit(Mask(StatusOfAChild(), "SigIgn") == 0 ? 0 : 1);
  };
  EXPECT_EXIT(spawn(), ExitedWithCode(0), "");
}

TEST(ChildProcess, SaysThatTheStatusIsUnknownWhereOtherCodeHasIt) {
  for (const bool own_group : {false, true}) {
    ChildProcess child = SpawnCat({.own_group = own_group});
    child.CloseStdin();
    EXPECT_EQ(waitpid(child.pid(), nullptr, 0), child.pid());
    EXPECT_EQ(child.Send(0).code(), absl::StatusCode::kNotFound);
    EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(child.Wait().status().code(), absl::StatusCode::kUnknown);
    }
  }
}

TEST(ChildProcess, SendsToTheLeaderOfAGroupAlone) {
  ChildProcess child = SpawnGroupWithDeafMember();
  EXPECT_TRUE(child.Send(SIGKILL).ok());
  EXPECT_EQ(WaitFor(child), kKilled);
  EXPECT_TRUE(Echoes(child)) << "the member is there";
}

TEST(ChildProcess, ThatMayNotBeSignalledIsLeftToEndByItself) {
  auto spawn = [] {
    for (const bool own_group : {false, true}) {
      ChildProcess child = SpawnCat({.own_group = own_group});
      if (setresuid(65534, 65534, 0) != 0) _exit(77);
      for (const absl::Status& status :
           {child.Send(SIGTERM), child.Terminate(absl::ZeroDuration())}) {
        if (!absl::IsPermissionDenied(status)) _exit(1);
      }
      CancelScope scope({.deadline = absl::InfinitePast()});
      const absl::Status status = child.WaitOrTerminate().status();
      if (!absl::IsDeadlineExceeded(status)) _exit(2);
      if (!Echoes(child)) _exit(3);
      // The destructor waits for that.
      const pid_t pid = child.pid();
      child.CloseStdin();
      { ChildProcess destroyed = std::move(child); }
      if (waitpid(pid, nullptr, WNOHANG) != -1) _exit(4);
      if (setresuid(0, 0, 0) != 0) _exit(5);
    }
    _exit(0);
  };
  if (getuid() != 0) GTEST_SKIP() << "only root has children of others";
  const pid_t pid = fork();
  if (pid == 0) spawn();
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "cannot give up being root";
  EXPECT_EQ(status, 0);
}

TEST(Terminate, ReturnsAtOnceForAChildThatHasEnded) {
  ChildProcess child = Spawn({"sh", "-c", "exit 3"});
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  EXPECT_TRUE(child.Terminate(absl::ZeroDuration()).ok());
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3});
}

// Its leader has ended, and nobody has waited for it.
ChildProcess SpawnGroupWithoutLeader() {
  ChildProcess child = SpawnScript(
      "exec 3<&0; (trap '' TERM; echo ready; exec cat <&3) & exit 3",
      {.own_group = true});
  siginfo_t info;
  EXPECT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  return child;
}

TEST(Terminate, KillsWhatIsLeftOfAGroup) {
  ChildProcess child = SpawnGroupWithoutLeader();
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  SetDisposition(SIGPIPE, SIG_IGN);
  EXPECT_FALSE(Echoes(child));
  SetDisposition(SIGPIPE, SIG_DFL);
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3});
}

TEST(Destructor, KillsWhatIsLeftOfAGroup) {
  Pipe held;
  fcntl(held.reader(), F_SETFD, FD_CLOEXEC);
  { ChildProcess child = SpawnGroupWithoutLeader(); }
  held.CloseWriter();
  EXPECT_EQ(held.Take(), '\0') << "nobody holds the pipe any more";
}

TEST(Wait, LeavesWhatIsLeftOfAGroup) {
  ChildProcess child = SpawnGroupWithoutLeader();
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3});
  EXPECT_TRUE(Echoes(child)) << "the child was not terminated";
}

// Made by setsid(1), not by us.
TEST(Terminate, LeavesAGroupThatTheChildMadeForItself) {
  Options options{.input = ChildStream::Pipe(), .output = ChildStream::Pipe()};
  ChildProcess child =
      Spawn({"setsid", "sh", "-c",
             "exec 3<&0; (trap '' TERM; echo; exec cat <&3) & wait"},
            options);
  char line;
  ASSERT_EQ(read(child.stdout_pipe(), &line, 1), 1);
  ASSERT_EQ(getpgid(child.pid()), child.pid());
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_TRUE(Echoes(child));
}

// A worker of a pool lets another run meanwhile.
class CountingSlot final : public internal::WorkerSlot {
 public:
  CountingSlot() { internal::worker_slot = this; }
  ~CountingSlot() { internal::worker_slot = nullptr; }

  void Leave() override { ++left; }
  void Return() override { ++returned; }

  int left = 0;
  int returned = 0;
};

TEST(Terminate, GivesUpTheSlotOfAWorker) {
  ChildProcess child = SpawnCat();
  CountingSlot slot;
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_GT(slot.left, 0);
  EXPECT_EQ(slot.left, slot.returned);
}

TEST(Destructor, GivesUpTheSlotOfAWorker) {
  CountingSlot slot;
  { ChildProcess child = SpawnCat(); }
  EXPECT_GT(slot.left, 0);
  EXPECT_EQ(slot.left, slot.returned);
}

TEST(WaitOrTerminate, TellsHowAChildHadEndedWhenItsScopeIsCancelled) {
  ChildProcess child = Spawn({"sh", "-c", "exit 3"});
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  {
    CancelScope scope;
    scope.Cancel(absl::CancelledError("enough"));
    const absl::Status status = child.WaitOrTerminate().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("enough; sh (pid " + std::to_string(child.pid()) +
                          ") exited with status 3"));
  }
  EXPECT_EQ(WaitFor(child), ExitStatus{.code = 3});
}

TEST(WaitOrTerminate, TellsItsReasonAlsoWhereTheStatusIsUnknown) {
  ChildProcess child = SpawnCat();
  child.CloseStdin();
  EXPECT_EQ(waitpid(child.pid(), nullptr, 0), child.pid());
  CancelScope scope({.deadline = absl::InfinitePast()});
  const absl::Status status = child.WaitOrTerminate().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("status is unknown"));
}

}  // namespace
}  // namespace tocsin
