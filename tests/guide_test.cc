// Runs the programs that docs/guide.md quotes, as far as examples_test.cc and
// http_server_test.cc do not.
#include <sys/types.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"
#include "tests/terminal.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

std::string Script(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

TEST(ForEach, RunsTheCommandForEachArgument) {
  StartedProgram program(
      {"examples/for_each", "2", "1h", "echo", "a", "b", "c"});
  const std::vector<std::string> lines = {
      program.ReadLine(), program.ReadLine(), program.ReadLine()};
  EXPECT_THAT(lines, UnorderedElementsAre("a", "b", "c"));
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(ForEach, EndsAtTheFirstFailureAndSkipsTheRest) {
  const std::string script = Script("fail", "echo once; exit 3\n");
  StartedProgram program(
      {"examples/for_each", "1", "1h", "sh", script, script});
  EXPECT_EQ(program.ReadLine(), "once");
  EXPECT_THAT(program.ReadAll(), HasSubstr("exited with status 3"));
  EXPECT_EQ(ExitStatus(program.Wait()), 1);
}

TEST(ForEach, EndsWhatTakesTooLong) {
  StartedProgram program({"examples/for_each", "1", "10ms", "sleep", "1000"});
  EXPECT_THAT(program.ReadAll(), HasSubstr("not done within 10ms"));
  EXPECT_EQ(ExitStatus(program.Wait()), 1);
}

TEST(ForEach, LeavesNoCommandBehindWhenASignalStopsIt) {
  StartedProgram program({"examples/for_each", "1", "1h", "sh",
                          Script("sleep", "echo $$; exec sleep 1000\n")});
  const pid_t command = std::stoi(program.ReadLine());
  program.Send(SIGTERM);
  EXPECT_EQ(KillingSignal(program.Wait()), SIGTERM);
  EXPECT_EQ(kill(command, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

// Nobody could continue it there, so that the kernel does not stop it; the
// hooks run all the same.
TEST(ForEach, ShowsItsProgressAgainAfterCtrlZ) {
  Terminal terminal({"examples/for_each", "1", "1h", "sleep", "1000"});
  terminal.AwaitText("0 of 1 done");
  terminal.Type("\x1a");
  terminal.AwaitText("\n");
  terminal.AwaitText("0 of 1 done");
  terminal.Type("\x03");
  EXPECT_EQ(KillingSignal(terminal.Wait()), SIGINT);
}

TEST(ForEach, ExplainsItself) {
  StartedProgram program({"examples/for_each", "0", "1h", "echo"});
  EXPECT_THAT(program.ReadAll(), StartsWith("usage: "));
  EXPECT_EQ(ExitStatus(program.Wait()), 2);
}

TEST(PlainThreads, ReloadsAndStops) {
  for (int signum : {SIGINT, SIGTERM}) {
    StartedProgram program({"examples/plain_threads"});
    program.AwaitHandlers({SIGHUP, SIGINT, SIGTERM});
    program.Send(SIGHUP);
    EXPECT_THAT(program.ReadLine(),
                StartsWith("Reloading for SIGHUP from pid"));
    program.Send(signum);
    // How near depends on how far it came.
    EXPECT_THAT(program.ReadAll(), StartsWith("Pi is about "));
    EXPECT_EQ(ExitStatus(program.Wait()), 0);
  }
}

// What it reads is at its end from the start.
TEST(EventLoop, TakesSignalsWhileItPolls) {
  StartedProgram program({"examples/event_loop"});
  program.AwaitHandlers({SIGUSR1, SIGTERM});
  for (int i = 0; i < 2; ++i) {
    program.Send(SIGUSR1);
    EXPECT_EQ(program.ReadLine(), "0 lines so far");
  }
  program.Send(SIGTERM);
  EXPECT_EQ(program.ReadAll(), "");
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

TEST(EventLoop, EchoesWhatItReads) {
  Terminal terminal({"examples/event_loop"});
  terminal.Type("some words\n");
  terminal.AwaitText("some words\r\n");  // the terminal's echo
  terminal.AwaitText("some words\r\n");  // the program's
  terminal.Send(SIGUSR1);
  terminal.AwaitText("1 lines so far");
  terminal.Send(SIGTERM);
  EXPECT_EQ(ExitStatus(terminal.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
