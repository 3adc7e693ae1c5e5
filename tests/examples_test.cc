// Runs the programs in examples/ and sends them real signals.
#include <sched.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ReloadAndStop, PrintsALineForEachHangUpAndReturnsAtTermination) {
  StartedProgram program({"examples/reload_and_stop"});
  program.AwaitHandlers({SIGHUP, SIGTERM});
  for (int i = 0; i < 2; ++i) {
    program.Send(SIGHUP);
    EXPECT_EQ(program.ReadLine(), "Reloading configuration");
  }
  program.Send(SIGTERM);
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(CancelOnSignal, CleansUpAndReturns) {
  for (const auto& [signum, line] : {std::pair(SIGINT, "Ctrl+C pressed!"),
                                     std::pair(SIGTERM, "Terminated!")}) {
    StartedProgram program({"examples/cancel_on_signal"});
    EXPECT_EQ(program.ReadLine(), "Serving requests.");
    program.Send(signum);
    EXPECT_EQ(program.ReadAll(), std::string(line) + "\nCleaning up.\n");
    EXPECT_EQ(ExitStatus(program.Wait()), 0);
  }
}

TEST(WatchSignals, ShowsEachSignalWithItsSender) {
  StartedProgram program({"examples/watch_signals", "--count=2"});
  EXPECT_THAT(program.ReadLine(), StartsWith("Watching process "));
  EXPECT_THAT(program.ReadLine(), StartsWith("TIME "));
  program.Send(SIGTERM);
  EXPECT_THAT(program.ReadLine(),
              AllOf(HasSubstr(" SIGTERM "), HasSubstr(" user "),
                    HasSubstr(" " + std::to_string(getpid()) + " "),
                    HasSubstr(" examples_test")));
  ASSERT_EQ(sigqueue(program.pid(), SIGRTMIN + 1, sigval{.sival_int = 42}), 0);
  EXPECT_THAT(
      program.ReadLine(),
      AllOf(HasSubstr(" SIGRTMIN+1 "), HasSubstr(" queue "), HasSubstr(" 42")));
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(WatchSignals, EndsAtTheSecondInterruptWithinASecond) {
  StartedProgram program(
      {"examples/watch_signals", "INT", "SIGHUP", "RTMIN+1", "10"});
  program.ReadLine();
  program.ReadLine();
  // On a slow machine more than a second may lie between two; the lines tell.
  absl::Time last = absl::InfinitePast();
  while (true) {
    program.Send(SIGINT);
    const std::string line = program.ReadLine();
    absl::Time time;
    ASSERT_TRUE(absl::ParseTime("%H:%M:%E*S", line.substr(0, line.find(' ')),
                                &time, nullptr))
        << line;
    if (time - last < absl::Seconds(1)) break;
    last = time;
  }
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(WatchSignals, RefusesWhatCannotBeReceivedWithOneLine) {
  for (const char* argument : {"FOO", "KILL", "--count=0", "--verbose"}) {
    StartedProgram program({"examples/watch_signals", argument});
    EXPECT_THAT(program.ReadLine(), StartsWith("watch_signals: "));
    EXPECT_EQ(program.ReadAll(), "") << argument;
    EXPECT_EQ(ExitStatus(program.Wait()), 2) << argument;
  }
}

TEST(WatchSignals, ExplainsItself) {
  StartedProgram program({"examples/watch_signals", "--help"});
  EXPECT_THAT(program.ReadAll(), HasSubstr("--count=N"));
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(Supervisor, ExitsAsTheCommandDid) {
  const struct {
    const char* script;
    int status;
  } cases[] = {{"exit 0", 0}, {"exit 7", 7}, {"kill -KILL $$", 128 + SIGKILL}};
  for (const auto& c : cases) {
    StartedProgram program({"examples/supervisor", "sh", "-c", c.script});
    EXPECT_EQ(program.ReadAll(), "");
    EXPECT_EQ(ExitStatus(program.Wait()), c.status) << c.script;
  }
}

TEST(Supervisor, SaysThatACommandCannotBeRun) {
  const struct {
    const char* command;
    int status;
  } cases[] = {{"/no/such/command", 127}, {"/", 126}, {"--wrong", 2}};
  for (const auto& c : cases) {
    StartedProgram program({"examples/supervisor", c.command});
    EXPECT_NE(program.ReadAll(), "") << c.command;
    EXPECT_EQ(ExitStatus(program.Wait()), c.status) << c.command;
  }
}

TEST(Supervisor, PassesSignalsOnToTheCommand) {
  StartedProgram program(
      {"examples/supervisor", "sh", "-c",
       "trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; "
       "while :; do :; done"});
  ASSERT_EQ(program.ReadLine(), "ready");
  for (int i = 0; i < 3; ++i) {
    program.Send(SIGUSR1);
    EXPECT_EQ(program.ReadLine(), "usr1");
  }
  program.Send(SIGTERM);
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 5);
}

// The PPid of a process, 0 once it is gone.
pid_t ParentOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; file >> word;) {
    pid_t parent;
    if (word == "PPid:" && file >> parent) return parent;
  }
  return 0;
}

TEST(Supervisor, ReapsOrphans) {
  StartedProgram program(
      {"examples/supervisor", "--subreaper", "sh", "-c",
       "trap 'exit 5' TERM; (sh -c 'echo $$; exec sleep 1000' &); "
       "while :; do :; done"});
  const pid_t orphan = std::stoi(program.ReadLine());
  while (ParentOf(orphan) != program.pid()) sched_yield();
  ASSERT_EQ(kill(orphan, SIGKILL), 0);
  while (ParentOf(orphan) != 0) sched_yield();
  program.Send(SIGTERM);
  EXPECT_EQ(ExitStatus(program.Wait()), 5);
}

TEST(Supervisor, KnowsTheCommandAmongManyOrphans) {
  StartedProgram program(
      {"examples/supervisor", "--subreaper", "sh", "-c",
       "for i in 1 2 3 4 5 6 7 8 9 10; do (exit 1 & exit 2 &); "
       "done; exit 7"});
  EXPECT_EQ(ExitStatus(program.Wait()), 7);
}

// Runs a script as the command of a supervisor that is process 1 of a pid
// namespace of its own.
std::vector<std::string> AsProcessOne(const std::string& script) {
  return {
      "/usr/bin/unshare",    "--pid", "--fork", "--kill-child", "--mount-proc",
      "examples/supervisor", "sh",    "-c",     script};
}

class SupervisorAsProcessOne : public ::testing::Test {
 protected:
  void SetUp() override {
    StartedProgram probe(
        {"/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "true"});
    if (probe.Wait() != 0) {
      GTEST_SKIP() << "no pid namespace can be made here: " << probe.ReadAll();
    }
  }
};

// The kernel drops what process 1 has no handler for.
TEST_F(SupervisorAsProcessOne, PassesSignalsOn) {
  StartedProgram handles(
      AsProcessOne("trap 'exit 5' TERM; kill -TERM 1; while :; do :; done"));
  EXPECT_EQ(ExitStatus(handles.Wait()), 5);
  StartedProgram dies(AsProcessOne("kill -TERM 1; while :; do :; done"));
  EXPECT_EQ(ExitStatus(dies.Wait()), 128 + SIGTERM);
}

// kill(1) finds a process until it is reaped.
TEST_F(SupervisorAsProcessOne, ReapsOrphans) {
  StartedProgram program(
      AsProcessOne("(sh -c 'echo $$' &) | { read orphan; "
                   "while kill -0 $orphan 2>/dev/null; do :; done; }; exit 7"));
  EXPECT_EQ(ExitStatus(program.Wait()), 7);
}

}  // namespace
}  // namespace tocsin
