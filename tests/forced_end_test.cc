// What a process does last, when its end is forced.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/program.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/living_child.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

// Is told to stop, and does not.
[[noreturn]] void RunUntilForced(ShutdownPolicy policy) {
  policy.grace = absl::Milliseconds(1);
  std::exit(Run(
      [](Program&) -> absl::Status {
        SendSelf(SIGTERM);
        while (true) pause();
      },
      {.shutdown = std::move(policy)}));
}

// Stops in good order, and then does not exit.
[[noreturn]] void ReturnAndHang(ShutdownPolicy policy) {
  policy.grace = absl::Milliseconds(500);  // enough to return
  Run(
      [](Program& program) {
        SendSelf(SIGTERM);
        while (!program.shutdown().cause()) sched_yield();
        return absl::OkStatus();
      },
      {.shutdown = std::move(policy), .grace_until_exit = true});
  while (true) pause();
}

TEST(OnForced, IsCalledBeforeTheReport) {
  FakeSignals signals;
  TaskSet tasks;
  bool reported_before = true;
  auto shutdown =
      Shutdown::Start(
          signals.service(), tasks,
          {.grace = absl::Seconds(3),
           .on_forced = [&] { reported_before = signals.death().has_value(); }})
          .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(2));
  EXPECT_TRUE(reported_before);  // not called yet
  signals.Advance(absl::Seconds(1));
  EXPECT_FALSE(reported_before);
  EXPECT_TRUE(signals.death().has_value());
}

// So that no handler of the program runs there, and nothing that the hook does
// to a terminal or a pipe stops or kills the process.
TEST(OnForced, RunsWithAllSignalsBlocked) {
  FakeSignals signals;
  TaskSet tasks;
  std::vector<int> open;
  auto shutdown =
      Shutdown::Start(signals.service(), tasks,
                      {.grace = absl::ZeroDuration(),
                       .on_forced =
                           [&] {
                             sigset_t mask;
                             pthread_sigmask(SIG_BLOCK, nullptr, &mask);
                             for (int signum : {SIGTERM, SIGPIPE, SIGTTOU}) {
                               if (sigismember(&mask, signum) != 1) {
                                 open.push_back(signum);
                               }
                             }
                           }})
          .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::ZeroDuration());
  ASSERT_TRUE(signals.death().has_value());
  EXPECT_TRUE(open.empty());
}

TEST(OnForced, IsNotCalledWhereAllEndsInTime) {
  FakeSignals signals;
  TaskSet tasks;
  bool called = false;
  auto shutdown = Shutdown::Start(signals.service(), tasks,
                                  {.grace = absl::Seconds(3),
                                   .on_forced = [&] { called = true; }})
                      .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  shutdown.reset();
  signals.Advance(absl::Seconds(3));
  EXPECT_FALSE(called);
}

TEST(OnForcedDeathTest, DoesNotHoldUpTheEnd) {
  EXPECT_EXIT(RunUntilForced({.on_forced =
                                  [] {
                                    while (true) pause();
                                  }}),
              KilledBySignal(SIGTERM), "the grace of 1ms is over");
}

// After the Shutdown, too.
TEST(OnForcedDeathTest, IsCalledIfMainHasReturned) {
  EXPECT_EXIT(ReturnAndHang({.on_forced =
                                 [] {
                                   if (write(STDERR_FILENO, "called\n", 7) != 7)
                                     _exit(1);
                                 }}),
              KilledBySignal(SIGTERM), "^called\ntocsin: the grace is over");
}

TEST(OnForcedDeathTest, DoesNotHoldUpTheEndIfMainHasReturned) {
  EXPECT_EXIT(ReturnAndHang({.on_forced =
                                 [] {
                                   while (true) pause();
                                 }}),
              KilledBySignal(SIGTERM), "the program has not exited");
}

// Waits until that thread is in a write(2) that blocks. Opens no stream: that
// would wait for the one that flushes.
void AwaitWrite(pid_t thread) {
  const std::string file = absl::StrCat("/proc/self/task/", thread, "/syscall");
  const std::string call = absl::StrCat(SYS_write, " ");
  for (std::string now; now != call; sched_yield()) {
    now.assign(call.size(), '\0');
    const int fd = open(file.c_str(), O_RDONLY);
    [[maybe_unused]] const ssize_t size = read(fd, now.data(), now.size());
    close(fd);
  }
}

// As long as a thread waits in fflush(nullptr), every fork() does.
[[noreturn]] void RunUntilForcedWithAForkThatHangs() {
  Pipe full;
  fcntl(full.writer(), F_SETFL, O_NONBLOCK);
  while (write(full.writer(), "x", 1) == 1) continue;
  fcntl(full.writer(), F_SETFL, 0);
  std::fputs("x", fdopen(full.writer(), "w"));
  std::exit(Run(
      [](Program& program) -> absl::Status {
        std::atomic<pid_t> flushes = 0;
        std::jthread flusher([&] {
          flushes = gettid();
          std::fflush(nullptr);
        });
        while (flushes == 0) sched_yield();
        AwaitWrite(flushes);
        SendSelf(SIGTERM);
        while (!program.shutdown().drain_token().stop_requested()) {
          sched_yield();
        }
        std::jthread forker([] {
          if (fork() == 0) _exit(0);
        });
        while (true) pause();
      },
      {.shutdown = {.grace = absl::Milliseconds(500)}}));
}

std::string Contents(const std::string& file) {
  std::ostringstream all;
  all << std::ifstream(file).rdbuf();
  return all.str();
}

TEST(LastWords, AreNotWrittenToAFileThatGotTheNumberLater) {
  const std::string file = absl::StrCat(::testing::TempDir(), "/later");
  const int before = dup(STDERR_FILENO);
  const internal::LastWords last_words;
  close(STDERR_FILENO);
  ASSERT_EQ(open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600),
            STDERR_FILENO);
  last_words.Say("lost");
  internal::LastWords().Say("told\n");
  dup2(before, STDERR_FILENO);
  close(before);
  EXPECT_EQ(Contents(file), "told\n");
}

// Not even if a static object opened it, before main().
TEST(LastWords, AreNotWrittenToAFileThatFoundStderrClosed) {
  const std::string file = absl::StrCat(::testing::TempDir(), "/data");
  StartedProgram subject(
      {"/bin/sh", "-c",
       "export FILE=\"$0\"; exec tests/forced_end_subject 2>&-", file});
  EXPECT_EQ(KillingSignal(subject.Wait()), SIGTERM);
  EXPECT_EQ(Contents(file), "data\n");
}

// A terminal says that it is ready, and blocks in the middle.
TEST(LastWords, DoNotWaitForATerminalThatIsNearlyFull) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int screen = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_NONBLOCK);
  ASSERT_GE(screen, 0);
  const std::string line(100, 'x');
  while (write(screen, line.data(), line.size()) > 0) continue;
  pollfd ready = {.fd = screen, .events = POLLOUT, .revents = 0};
  for (char byte; poll(&ready, 1, 0) == 0;)
    ASSERT_EQ(read(terminal, &byte, 1), 1);
  EXPECT_EQ(fcntl(screen, F_SETFL, 0), 0);  // blocks from here on
  const int before = dup(STDERR_FILENO);
  dup2(screen, STDERR_FILENO);
  internal::LastWords().Say(std::string(100'000, 'y'));
  dup2(before, STDERR_FILENO);
  for (int fd : {before, screen, terminal}) close(fd);
}

TEST(LastWords, AreWrittenToASocketAsFarAsItHasRoom) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const int before = dup(STDERR_FILENO);
  dup2(ends[0], STDERR_FILENO);
  const internal::LastWords last_words;
  last_words.Say("told");
  last_words.Say(std::string(10'000'000, 'y'));
  dup2(before, STDERR_FILENO);
  char text[4];
  EXPECT_EQ(read(ends[1], text, 4), 4);
  EXPECT_EQ(std::string(text, 4), "told");
  for (int fd : {before, ends[0], ends[1]}) close(fd);
}

// Two processes that have the writing end of `output`, in a group of their own
// or in ours, and do not end by themselves.
absl::StatusOr<ChildProcess> SpawnTwo(const Pipe& output, bool own_group) {
  auto child = ChildProcess::Spawn(
      {"sh", "-c",
       own_group ? "trap '' TERM HUP; (echo; exec sleep 1000) & wait"
                 : "echo; exec sleep 1000"},
      {.output = ChildStream::Fd(output.writer()), .own_group = own_group});
  if (child.ok() && output.Take() != '\n') ADD_FAILURE() << "no start";
  return child;
}

TEST(ChildrenDeathTest, DieWithAProcessWhoseEndIsForced) {
  for (const bool own_group : {false, true}) {
    Pipe output;
    EXPECT_EXIT(
        {
          const auto child = SpawnTwo(output, own_group);
          if (!child.ok()) _exit(1);
          RunUntilForced({});
        },
        KilledBySignal(SIGTERM), "is over");
    output.CloseWriter();
    EXPECT_EQ(output.Take(), '\0');
  }
}

TEST(ChildrenDeathTest, DieIfMainHasReturned) {
  Pipe output;
  EXPECT_EXIT(
      {
        const auto child = SpawnTwo(output, true);
        if (!child.ok()) _exit(1);
        ReturnAndHang({});
      },
      KilledBySignal(SIGTERM), "the program has not exited");
  output.CloseWriter();
  EXPECT_EQ(output.Take(), '\0');
}

// In whatever order they come and go.
TEST(ChildrenDeathTest, ThatWereWaitedForAreForgotten) {
  Pipe output;
  EXPECT_EXIT(
      {
        std::vector<ChildProcess> children;
        for (int i = 0; i < 3; ++i) {
          children.push_back(SpawnTwo(output, true).value());
        }
        auto ended = ChildProcess::Spawn({"true"}).value();
        children.push_back(SpawnTwo(output, true).value());
        if (!ended.Wait().ok()) _exit(1);
        children.erase(children.begin() + 1);
        RunUntilForced({});
      },
      KilledBySignal(SIGTERM), "is over");
  output.CloseWriter();
  EXPECT_EQ(output.Take(), '\0');
}

// A supervisor starts another one when its child has died.
TEST(ChildrenDeathTest, DieIfTheyAreStartedAfterwards) {
  EXPECT_EXIT(
      {
        internal::KillLivingChildren();
        auto child = ChildProcess::Spawn({"sleep", "1000"});
        if (!child.ok()) _exit(2);
        _exit(child->Wait().value().signum == SIGKILL ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

// Such a fork() waits for a lock of the C library's, and holds what its
// handlers have locked.
TEST(ChildrenDeathTest, DieThoughAForkHangs) {
  Pipe output;
  EXPECT_EXIT(
      {
        const auto child = SpawnTwo(output, true);
        if (!child.ok()) _exit(1);
        RunUntilForcedWithAForkThatHangs();
      },
      KilledBySignal(SIGTERM), "");
  output.CloseWriter();
  EXPECT_EQ(output.Take(), '\0');
}

TEST(ChildrenDeathTest, OfItsParentAreNotKilledByAForkedProcess) {
  Pipe output;
  Pipe input;
  auto child = ChildProcess::Spawn(
      {"cat"}, {.input = ChildStream::Fd(input.reader()),
                .output = ChildStream::Fd(output.writer())});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EXIT(RunUntilForced({}), KilledBySignal(SIGTERM), "is over");
  input.Put('a');
  EXPECT_EQ(output.Take(), 'a');
}

// The thread that spawned it has ended when the process is killed.
TEST(DiesWithParent, AndNotWithTheThreadThatSpawnedIt) {
  Pipe input;
  Pipe output;
  const pid_t parent = fork();
  if (parent == 0) {
    absl::StatusOr<ChildProcess> child = absl::UnknownError("not yet");
    std::thread([&] {
      child = ChildProcess::Spawn({"cat"},
                                  {.input = ChildStream::Fd(input.reader()),
                                   .output = ChildStream::Fd(output.writer()),
                                   .dies_with_parent = true});
    }).join();
    if (!child.ok()) _exit(1);
    while (true) pause();
  }
  ASSERT_GT(parent, 0);
  output.CloseWriter();
  input.Put('a');
  EXPECT_EQ(output.Take(), 'a');
  EXPECT_EQ(kill(parent, SIGKILL), 0);
  int status = 0;
  EXPECT_EQ(waitpid(parent, &status, 0), parent);
  EXPECT_EQ(KillingSignal(status), SIGKILL);
  EXPECT_EQ(output.Take(), '\0');
}

TEST(DiesWithParent, ThoughItIgnoresTermination) {
  Pipe input;
  Pipe output;
  Child parent(Fork([&] {
    const auto child =
        ChildProcess::Spawn({"sh", "-c", "trap '' TERM; echo; exec cat"},
                            {.input = ChildStream::Fd(input.reader()),
                             .output = ChildStream::Fd(output.writer()),
                             .dies_with_parent = true});
    if (child.ok()) pause();
  }));
  output.CloseWriter();
  EXPECT_EQ(output.Take(), '\n');
  parent.Send(SIGKILL);
  EXPECT_EQ(KillingSignal(parent.Wait()), SIGKILL);
  input.Put('a');
  EXPECT_EQ(output.Take(), '\0');
}

// The thread that it is spawned on sleeps in between.
TEST(DiesWithParent, CanBeAskedForAgain) {
  for (int i = 0; i < 2; ++i) {
    auto child = ChildProcess::Spawn({"true"}, {.dies_with_parent = true});
    ASSERT_TRUE(child.ok()) << child.status();
    EXPECT_TRUE(child->Wait().ok());
    AwaitState(ThreadNamed("tocsin-spawn"), "S");
  }
}

// ThreadSanitizer allows no thread in a forked child.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST(DiesWithParent, CanBeAskedForInAForkedProcess) {
  const ChildProcessOptions options = {.dies_with_parent = true};
  EXPECT_TRUE(ChildProcess::Spawn({"true"}, options).value().Wait().ok());
  const pid_t pid = fork();
  if (pid == 0) {
    _exit(ChildProcess::Spawn({"true"}, options).value().Wait().ok() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}
#endif

}  // namespace
}  // namespace tocsin
