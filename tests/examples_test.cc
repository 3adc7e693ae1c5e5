// Runs the programs in examples/ and sends them real signals.
#include <csignal>
#include <string>
#include <utility>

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
  Program program({"examples/reload_and_stop"});
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
    Program program({"examples/cancel_on_signal"});
    EXPECT_EQ(program.ReadLine(), "Serving requests.");
    program.Send(signum);
    EXPECT_EQ(program.ReadAll(), std::string(line) + "\nCleaning up.\n");
    EXPECT_EQ(ExitStatus(program.Wait()), 0);
  }
}

TEST(WatchSignals, ShowsEachSignalWithItsSender) {
  Program program({"examples/watch_signals", "--count=2"});
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
  Program program({"examples/watch_signals", "INT", "SIGHUP", "RTMIN+1", "10"});
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
    Program program({"examples/watch_signals", argument});
    EXPECT_THAT(program.ReadLine(), StartsWith("watch_signals: "));
    EXPECT_EQ(program.ReadAll(), "") << argument;
    EXPECT_EQ(ExitStatus(program.Wait()), 2) << argument;
  }
}

TEST(WatchSignals, ExplainsItself) {
  Program program({"examples/watch_signals", "--help"});
  EXPECT_THAT(program.ReadAll(), HasSubstr("--count=N"));
  EXPECT_EQ(ExitStatus(program.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
