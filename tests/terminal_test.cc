// Signals that come from a terminal, and the shell that watches.
#include "tests/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr char kInterrupt[] = "\x03";  // Ctrl+C
constexpr char kStop[] = "\x1a";       // Ctrl+Z

// The command line of a subject that reports to `fd`.
std::string Subject(int fd, const std::string& end) {
  return absl::StrCat("tests/signal_subject ", fd, " ", end);
}

// The next line of a report, without its newline.
std::string Line(const Pipe& report) {
  std::string line;
  for (char c; (c = report.Take()) != '\0' && c != '\n';) line.push_back(c);
  return line;
}

// S3, J2
TEST(Terminal, ItsKeysAndItsSizeAreTheTerminalsSignals) {
  Pipe report;
  Terminal terminal(
      {"tests/signal_subject", absl::StrCat(report.writer()), "exit"});
  report.CloseWriter();
  EXPECT_EQ(Line(report), "ready");
  terminal.Resize(40);
  EXPECT_EQ(Line(report), "SIGWINCH from the terminal");
  terminal.Type(kInterrupt);
  EXPECT_EQ(Line(report), "SIGINT from the terminal");
  EXPECT_EQ(ExitStatus(terminal.Wait()), 130);
}

// G49
TEST(Terminal, ThatHangsUpIsToldAndCanBeWrittenToNoMore) {
  Pipe report;
  Terminal terminal(
      {"tests/signal_subject", absl::StrCat(report.writer()), "exit"});
  report.CloseWriter();
  EXPECT_EQ(Line(report), "ready");
  terminal.HangUp();
  // The kernel sends SIGCONT along, for those that were stopped.
  std::string line = Line(report);
  if (line == "SIGCONT from the terminal") line = Line(report);
  EXPECT_EQ(line, "SIGHUP from the terminal");
  EXPECT_EQ(Line(report), "writes in vain");
  EXPECT_EQ(ExitStatus(terminal.Wait()), 0);
}

// G47: a shell goes by how its program ended.
TEST(Shell, LeavesALoopWhenTheProgramDiesByTheInterrupt) {
  for (const char* end : {"die", "exit"}) {
    Pipe report;
    Terminal terminal(
        {"bash", "-c",
         absl::StrCat("for i in 1 2; do ", Subject(report.writer(), end),
                      "; echo went on after $?; done")});
    report.CloseWriter();
    EXPECT_EQ(Line(report), "ready");
    terminal.Type(kInterrupt);
    EXPECT_EQ(Line(report), "SIGINT from the terminal");
    if (end == std::string("die")) {
      EXPECT_THAT(terminal.AwaitEnd(), Not(HasSubstr("went on")));
      EXPECT_EQ(KillingSignal(terminal.Wait()), SIGINT);
    } else {
      terminal.AwaitText("went on after 130");
      EXPECT_EQ(Line(report), "ready");
    }
  }
}

// G48, J1
TEST(Shell, StopsAndResumesAProgramThatReceivesTheKey) {
  Pipe report;
  setenv("PS1", "prompt> ", 1);
  Terminal terminal({"bash", "--norc", "--noprofile", "-i"});
  terminal.AwaitText("prompt> ");
  terminal.Type(Subject(report.writer(), "exit") + "\n");
  EXPECT_EQ(Line(report), "ready");
  for (int i = 0; i < 2; ++i) {
    terminal.Type(kStop);
    EXPECT_EQ(Line(report), "SIGTSTP from the terminal");
    terminal.AwaitText("Stopped");
    terminal.AwaitText("prompt> ");
    terminal.Type("fg\n");
    EXPECT_EQ(Line(report), "goes on");
    EXPECT_THAT(Line(report), HasSubstr("SIGCONT from pid "));
  }
  terminal.Type(kInterrupt);
  EXPECT_EQ(Line(report), "SIGINT from the terminal");
  terminal.AwaitText("prompt> ");
  terminal.Type("exit\n");
  EXPECT_EQ(ExitStatus(terminal.Wait()), 130);
}

// J1
TEST(Shell, StopsAndResumesAProgramWithHooks) {
  Pipe report;
  setenv("PS1", "prompt> ", 1);
  Terminal terminal({"bash", "--norc", "--noprofile", "-i"});
  terminal.AwaitText("prompt> ");
  terminal.Type(Subject(report.writer(), "hooks") + "\n");
  EXPECT_EQ(Line(report), "ready");
  for (int i = 0; i < 2; ++i) {
    terminal.Type(kStop);
    EXPECT_EQ(Line(report), "suspends");
    terminal.AwaitText("Stopped");
    terminal.AwaitText("prompt> ");
    terminal.Type("fg\n");
    // On two threads, in either order.
    EXPECT_THAT((std::vector<std::string>{Line(report), Line(report)}),
                UnorderedElementsAre("resumes", HasSubstr("SIGCONT from pid")));
  }
  terminal.Type(kInterrupt);
  EXPECT_EQ(Line(report), "SIGINT from the terminal");
  terminal.AwaitText("prompt> ");
  terminal.Type("exit\n");
  EXPECT_EQ(ExitStatus(terminal.Wait()), 130);
}

// G41
TEST(StopSelf, StopsTheProcessEachTimeUntilItIsContinued) {
  Pipe report;
  Child child(Fork([&] {
    setpgid(0, 0);  // a group of its own, and not an orphaned one
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTSTP, SIGCONT});
    report.Put('r');
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(Next(receiver).signum, SIGTSTP);
      StopSelf();
      EXPECT_EQ(Next(receiver).signum, SIGCONT);
      report.Put('c');
    }
  }));
  EXPECT_EQ(report.Take(), 'r');
  for (int i = 0; i < 2; ++i) {
    child.Send(SIGTSTP);
    const int status = child.Wait(WUNTRACED);
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTSTP);
    EXPECT_EQ(StatusField(std::to_string(child.pid()), "State"), "T");
    child.Send(SIGCONT);
    EXPECT_EQ(report.Take(), 'c');
  }
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// J3: nobody could continue it there.
TEST(StopSelf, ReturnsAtOnceInAnOrphanedProcessGroup) {
  Child child(Fork([] {
    setsid();
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTSTP});
    StopSelf();
    SendSelf(SIGTSTP);
    EXPECT_EQ(Next(receiver).signum, SIGTSTP);
  }));
  EXPECT_EQ(ExitStatus(child.Wait(WUNTRACED)), 0);
}

}  // namespace
}  // namespace tocsin
