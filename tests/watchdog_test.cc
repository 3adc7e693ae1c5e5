// The watchdog of the tests, and the state they start from, seen on a program
// of its own that is one of them.
#include "tests/watchdog.h"

#include <sched.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <set>
#include <string>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/program.h"

namespace tocsin {
namespace {

using testing::HasSubstr;

class WatchdogTest : public testing::Test {
 protected:
  WatchdogTest() {
    // While it waits for a test to be ended, it stands still itself.
    AllowLongRun(4);
  }

  // What the case prints; it fails.
  static std::string OutputOfFailure(const std::string& name) {
    StartedProgram subject({"tests/watchdog_subject", "--gtest_filter=" + name,
                            "--gtest_also_run_disabled_tests"});
    std::string output = subject.ReadAll();
    EXPECT_NE(ExitStatus(subject.Wait()), 0) << output;
    return output;
  }
};

TEST_F(WatchdogTest, EndsATestThatWaitsForEverAndSaysWhatFor) {
  const std::string output = OutputOfFailure("Hangs.DISABLED_InARead");
  EXPECT_THAT(output, HasSubstr("Hangs.DISABLED_InARead: stands still"));
  EXPECT_THAT(output, HasSubstr("(idler) waits in futex"));
  EXPECT_THAT(output, HasSubstr("waits in read of pipe:"));
}

TEST_F(WatchdogTest, EndsATestWhoseChildWaitsForEverAndTheChild) {
  const std::string output = OutputOfFailure("Hangs.DISABLED_InAChild");
  EXPECT_THAT(output, HasSubstr("Hangs.DISABLED_InAChild: stands still"));
  EXPECT_THAT(output, HasSubstr("waits in wait4"));
  EXPECT_THAT(output, HasSubstr("waits in pause"));
  const size_t at = output.find("child is ");
  ASSERT_NE(at, std::string::npos) << output;
  const std::string child = std::to_string(std::stoi(output.substr(at + 9)));
  // It has been killed, and needs a moment to die of it; whoever reaps it here
  // may take longer.
  const std::set<std::string> over = {"", "Z", "X"};
  while (!over.contains(StatusField(child, "State"))) sched_yield();
}

TEST_F(WatchdogTest, EndsATestThatComputesForEver) {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "it may take a minute there";
#endif
  if (std::getenv("COVERAGE_DIR") != nullptr) {
    GTEST_SKIP() << "it may take a minute there, too";
  }
  EXPECT_THAT(OutputOfFailure("Hangs.DISABLED_InALoop"),
              HasSubstr("Hangs.DISABLED_InALoop: runs on"));
}

TEST_F(WatchdogTest, NamesTheTestInWhichTheProgramDies) {
  EXPECT_THAT(OutputOfFailure("Hangs.DISABLED_Dies"),
              HasSubstr("Hangs.DISABLED_Dies: dies by signal 9"));
}

// By a shell that ignores some signals and has closed its input, with others
// blocked and one of these pending.
TEST_F(WatchdogTest, TestsStartFromAKnownState) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGUSR2);
  sigset_t before;
  sigprocmask(SIG_BLOCK, &blocked, &before);
  StartedProgram subject(
      {"/bin/sh", "-c",
       "trap '' HUP INT QUIT USR1 CHLD\n"
       "kill -USR2 $$\n"
       "exec tests/watchdog_subject --gtest_filter=KnownState.* "
       "--gtest_also_run_disabled_tests 0<&-"});
  sigprocmask(SIG_SETMASK, &before, nullptr);
  const std::string output = subject.ReadAll();
  EXPECT_EQ(ExitStatus(subject.Wait()), 0) << output;
  EXPECT_THAT(output, HasSubstr("1 test from 1 test suite ran")) << output;
}

}  // namespace
}  // namespace tocsin
