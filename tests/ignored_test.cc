// Signals that are ignored when a receiver opens for them, as nohup(1) and
// shells leave them to the programs that they start.
#include <sys/types.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {
namespace {

// Ignores SIGHUP, as under nohup(1), until the end of each test.
class Ignored : public testing::Test {
 protected:
  Ignored() { SetDisposition(SIGHUP, SIG_IGN); }
  ~Ignored() override { SetDisposition(SIGHUP, SIG_DFL); }
};

// G18, H1
TEST_F(Ignored, SignalIsLeftAloneOnRequest) {
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  EXPECT_EQ(receiver.signals(), SignalSet({SIGTERM}));
  EXPECT_EQ(Disposition(SIGHUP).sa_handler, SIG_IGN);
  SendSelf(SIGHUP);
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_FALSE(receiver.TryReceive().ok());
}

// H1: one that asks for it is not heeded by one that does not, nor the reverse.
TEST_F(Ignored, EachReceiverDecidesForItself) {
  auto service = StartService();
  SignalReceiver all = OpenReceiver(*service, {SIGHUP, SIGTERM});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  EXPECT_EQ(all.signals(), SignalSet({SIGHUP, SIGTERM}));
  EXPECT_EQ(polite.signals(), SignalSet({SIGTERM}));
  SendSelf(SIGHUP);
  EXPECT_EQ(Next(all).signum, SIGHUP);
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(all).signum, SIGTERM);
  EXPECT_EQ(Next(polite).signum, SIGTERM);
  EXPECT_FALSE(polite.TryReceive().ok());
}

TEST_F(Ignored, AReceiverLeftWithNoSignalWaitsUntilItIsClosed) {
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGHUP}, {.honor_ignored = true});
  EXPECT_TRUE(receiver.signals().empty());
  SendSelf(SIGHUP);
  receiver.Close();
  EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));
}

// G19, H1
TEST_F(Ignored, SignalIsReceivedAndThenIgnoredAgain) {
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGHUP});
    EXPECT_EQ(receiver.signals(), SignalSet({SIGHUP}));
    SendSelf(SIGHUP);
    EXPECT_EQ(Next(receiver).signum, SIGHUP);
  }
  EXPECT_EQ(Disposition(SIGHUP).sa_handler, SIG_IGN);
  SendSelf(SIGHUP);
}

// A child that ends and that nobody has to wait for.
void ExpectThatAChildLeavesNoZombie() {
  const pid_t pid = Fork([] {});
  EXPECT_EQ(waitpid(pid, nullptr, 0), -1);  // returns once it is gone
  EXPECT_EQ(errno, ECHILD);
}

TEST(IgnoredChildren, AreStillReapedByTheKernelWhileTheirSignalIsReceived) {
  SetDisposition(SIGCHLD, SIG_IGN);
  ExpectThatAChildLeavesNoZombie();
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD});
    ExpectThatAChildLeavesNoZombie();
    EXPECT_EQ(Next(receiver).signum, SIGCHLD);
  }
  EXPECT_EQ(Disposition(SIGCHLD).sa_handler, SIG_IGN);
  ExpectThatAChildLeavesNoZombie();
  SetDisposition(SIGCHLD, SIG_DFL);
}

TEST(IgnoredChildren, TheFlagThatSaysSoIsKept) {
  struct sigaction no_zombies {};
  no_zombies.sa_handler = SIG_DFL;
  no_zombies.sa_flags = SA_NOCLDWAIT | SA_NOCLDSTOP;
  ASSERT_EQ(sigaction(SIGCHLD, &no_zombies, nullptr), 0);
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD});
    ExpectThatAChildLeavesNoZombie();
    EXPECT_EQ(Next(receiver).child->change, ChildStatus::Change::kExited);
    // Nor is a stop told.
    const pid_t stops = Fork([] { raise(SIGSTOP); });
    int status = 0;
    EXPECT_EQ(waitpid(stops, &status, WUNTRACED), stops);
    EXPECT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(kill(stops, SIGCONT), 0);
    EXPECT_EQ(Next(receiver).child->change, ChildStatus::Change::kExited);
    EXPECT_FALSE(receiver.TryReceive().ok());
  }
  EXPECT_EQ(Disposition(SIGCHLD).sa_flags & (SA_NOCLDWAIT | SA_NOCLDSTOP),
            SA_NOCLDWAIT | SA_NOCLDSTOP);
  SetDisposition(SIGCHLD, SIG_DFL);
}

}  // namespace
}  // namespace tocsin
