// How a process ends, and what others do to one that receives signals.
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/debugging/failure_signal_handler.h"
#include "absl/status/status.h"
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

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;
using ::testing::Not;

// G35
TEST(DieBySignalDeathTest, TheParentSeesTheSignal) {
  for (int signum : {SIGINT, SIGTERM, SIGKILL, SIGUSR1, SIGRTMIN}) {
    EXPECT_EXIT(
        {
          auto service = StartService();
          SignalReceiver receiver = OpenReceiver(*service, {SIGINT, SIGTERM});
          DieBySignal(signum);
        },
        KilledBySignal(signum), "");
  }
}

// G35
TEST(DieBySignalDeathTest, WorksInAThreadThatBlocksAllSignals) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        SignalReceiver receiver = OpenReceiver(*service, {SIGINT});
        std::thread([] {
          sigset_t all;
          sigfillset(&all);
          pthread_sigmask(SIG_SETMASK, &all, nullptr);
          DieBySignal(SIGINT);
        }).join();
      },
      KilledBySignal(SIGINT), "");
}

TEST(DieBySignalDeathTest, WorksForASignalThatIsIgnored) {
  EXPECT_EXIT(
      {
        SetDisposition(SIGINT, SIG_IGN);
        DieBySignal(SIGINT);
      },
      KilledBySignal(SIGINT), "");
}

TEST(DieBySignalDeathTest, ExitsWithAStatusIfTheSignalEndsNoProcess) {
  EXPECT_EXIT(DieBySignal(SIGWINCH), ExitedWithCode(128 + SIGWINCH), "");
}

// Issue 19: stopped, and went on when it was continued. In a process group of
// its own, as a shell's job: in an orphaned one only SIGSTOP stops.
TEST(DieBySignalDeathTest, ExitsWithAStatusIfTheSignalStopsAProcess) {
  for (const int signum : {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU}) {
    Child child(Fork([signum] {
      setpgid(0, 0);
      DieBySignal(signum);
    }));
    EXPECT_EQ(ExitStatus(child.Wait(WUNTRACED)), 128 + signum);
  }
}

// G46
TEST(GoogleTestDeathTest, BothStylesWorkWhileAReceiverIsOpen) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGINT});
  for (const char* style : {"fast", "threadsafe"}) {
    GTEST_FLAG_SET(death_test_style, style);
    EXPECT_EXIT(DieBySignal(SIGINT), KilledBySignal(SIGINT), "") << style;
    EXPECT_EXIT(_exit(3), ExitedWithCode(3), "") << style;
  }
  GTEST_FLAG_SET(death_test_style, "fast");
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
}

// G51. The process that has a number in its own namespace does not know ours:
// for it we are nobody.
TEST(ProcessOne, ReceivesSignalsFromBothSidesAndExitsWithAStatus) {
  Pipe report;
  Child parent(Fork([&] {
    if (unshare(CLONE_NEWPID) != 0) {
      report.Put('-');
      return;
    }
    Pipe go;
    Child one(Fork([&] {
      EXPECT_EQ(getpid(), 1);
      auto service = StartService();
      SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
      Child inside(Fork([] { EXPECT_EQ(kill(1, SIGTERM), 0); }));
      const SignalEvent from_inside = Next(receiver);
      EXPECT_EQ(from_inside.signum, SIGTERM);
      ASSERT_TRUE(from_inside.sender.has_value());
      EXPECT_EQ(from_inside.sender->pid, inside.pid());
      EXPECT_EQ(ExitStatus(inside.Wait()), 0);
      go.Put();
      const SignalEvent from_outside = Next(receiver);
      EXPECT_EQ(from_outside.signum, SIGTERM);
      EXPECT_FALSE(from_outside.sender.has_value());
      EXPECT_THAT(testing::PrintToString(from_outside),
                  HasSubstr("from outside of this pid namespace"));
      if (!HasFailure()) DieBySignal(SIGTERM);
    }));
    go.CloseWriter();
    go.Take();
    one.Send(SIGTERM);
    EXPECT_EQ(ExitStatus(one.Wait()), 128 + SIGTERM);
    report.Put('+');
  }));
  report.CloseWriter();
  const char outcome = report.Take();
  EXPECT_EQ(ExitStatus(parent.Wait()), 0);
  if (outcome == '-') GTEST_SKIP() << "no pid namespace may be made here";
}

// G52
TEST(Children, ThatExitAtOnceAreAllReapedAtTheSignal) {
  constexpr int kChildren = 50;
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD});
  std::vector<pid_t> children;
  Pipe go;
  for (int i = 0; i < kChildren; ++i) {
    children.push_back(Fork([&] {
      go.CloseWriter();
      go.Take();
      _exit(0);
    }));
  }
  go.CloseWriter();
  size_t events = 0;
  while (!children.empty()) {
    EXPECT_EQ(Next(receiver).signum, SIGCHLD);
    ++events;
    std::erase_if(children, [](pid_t child) {
      int status = -1;
      const pid_t reaped = waitpid(child, &status, WNOHANG);
      return reaped == child && ExitStatus(status) == 0;
    });
  }
  EXPECT_LE(events, size_t{kChildren});
}

// G54, in a child, as that handler cannot be taken out again.
TEST(Verify, NamesASignalThatACrashHandlerTookOver) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGHUP});
    EXPECT_TRUE(service->Verify().ok());
    absl::InstallFailureSignalHandler({});
    const absl::Status status = service->Verify();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr("SIGTERM"));
    EXPECT_THAT(status.message(), Not(HasSubstr("SIGHUP")));
    receiver.Close();
    EXPECT_EQ(service->stats().conflicts, 1u);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// G36
TEST(Doorbell, RungByAStrangerHasNoEffect) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
  const pid_t self = getpid();
  const pid_t service_thread = std::stoi(StatusField(ServiceThread(), "Pid"));
  Child stranger(Fork([&] {
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(kill(self, SIGSTKFLT), 0);
      EXPECT_EQ(sigqueue(self, SIGSTKFLT, {.sival_int = i}), 0);
      EXPECT_EQ(syscall(SYS_tgkill, self, self, SIGSTKFLT), 0);
      EXPECT_EQ(syscall(SYS_tgkill, self, service_thread, SIGSTKFLT), 0);
    }
  }));
  EXPECT_EQ(ExitStatus(stranger.Wait()), 0);
  for (int i = 0; i < 100; ++i) {
    SendSelf(SIGSTKFLT);
    const int signum = i % 2 == 0 ? SIGTERM : SIGRTMIN;
    SendSelf(signum);
    EXPECT_EQ(Next(receiver).signum, signum);
  }
  EXPECT_FALSE(receiver.TryReceive().ok());
  EXPECT_EQ(service->stats().received, 100u);
}

// It has its effect again when there is no service.
TEST(DoorbellDeathTest, EndsAProcessWithoutAService) {
  EXPECT_EXIT(
      {
        StartService();
        raise(SIGSTKFLT);
        _exit(0);
      },
      KilledBySignal(SIGSTKFLT), "");
}

}  // namespace
}  // namespace tocsin
