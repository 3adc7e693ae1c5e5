#include "tocsin/signals/job_control.h"

#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// J1; in terminal_test.cc with a terminal and a shell.
TEST(JobControl, RunsItsHooksAroundEachStop) {
  Pipe report;
  Child child(Fork([&] {
    setpgid(0, 0);  // a group of its own, and not an orphaned one
    auto service = StartService();
    auto job_control =
        JobControl::Start(*service, {.on_suspend = [&] { report.Put('s'); },
                                     .on_resume = [&] { report.Put('r'); }})
            .value();
    report.Put('!');
    while (true) pause();
  }));
  EXPECT_EQ(report.Take(), '!');
  for (int i = 0; i < 2; ++i) {
    child.Send(SIGTSTP);
    EXPECT_EQ(report.Take(), 's');
    const int status = child.Wait(WUNTRACED);
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTSTP);
    child.Send(SIGCONT);
    EXPECT_EQ(report.Take(), 'r');
  }
}

// A process whose on_suspend takes until it is told to return.
class SlowToSuspend {
 public:
  SlowToSuspend() : child_(Fork([this] { Run(); })) {
    EXPECT_EQ(hooks_.Take(), '!');
  }

  // Returns once JobControl has it: all receivers have a signal when one of
  // them returns it.
  void Send(int signum) {
    child_.Send(signum);
    EXPECT_EQ(heard_.Take(), signum);
  }
  // Waits for the next one to begin: 's'uspend or 'r'esume.
  char AwaitHook() { return hooks_.Take(); }
  void ReturnFromOnSuspend() { return_.Put(); }
  void AwaitStop() { EXPECT_TRUE(WIFSTOPPED(child_.Wait(WUNTRACED))); }

 private:
  void Run() {
    setpgid(0, 0);
    auto service = StartService();
    SignalReceiver witness = OpenReceiver(*service, {SIGTSTP, SIGCONT});
    auto job_control =
        JobControl::Start(*service, {.on_suspend =
                                         [this] {
                                           hooks_.Put('s');
                                           return_.Take();
                                         },
                                     .on_resume = [this] { hooks_.Put('r'); }})
            .value();
    hooks_.Put('!');
    while (true) heard_.Put(static_cast<char>(Next(witness).signum));
  }

  Pipe hooks_;
  Pipe heard_;
  Pipe return_;
  Child child_;
};

// Issue 19: it stopped, with nobody to continue it.
TEST(JobControl, DoesNotStopAProcessThatWasToldToGoOnMeanwhile) {
  SlowToSuspend child;
  child.Send(SIGTSTP);
  EXPECT_EQ(child.AwaitHook(), 's');
  child.Send(SIGCONT);
  child.ReturnFromOnSuspend();
  EXPECT_EQ(child.AwaitHook(), 'r');
}

// The two that merge do not tell that one came last.
TEST(JobControl, DoesNotStopForAStopBetweenTwoContinues) {
  SlowToSuspend child;
  child.Send(SIGTSTP);
  EXPECT_EQ(child.AwaitHook(), 's');
  for (const int signum : {SIGCONT, SIGTSTP, SIGCONT}) child.Send(signum);
  child.ReturnFromOnSuspend();
  EXPECT_EQ(child.AwaitHook(), 'r');
}

TEST(JobControl, StopsForAKeyThatIsPressedAfterTheProcessWasToldToGoOn) {
  SlowToSuspend child;
  child.Send(SIGTSTP);
  EXPECT_EQ(child.AwaitHook(), 's');
  child.Send(SIGCONT);
  child.Send(SIGTSTP);
  child.ReturnFromOnSuspend();
  child.AwaitStop();
}

// Issue 19: it needed two.
TEST(JobControl, OfTwoStopsBeforeItIsContinuedOneCounts) {
  SlowToSuspend child;
  child.Send(SIGTSTP);
  EXPECT_EQ(child.AwaitHook(), 's');
  child.Send(SIGTSTP);
  child.ReturnFromOnSuspend();
  child.AwaitStop();
  child.Send(SIGCONT);
  EXPECT_EQ(child.AwaitHook(), 'r');
  // It stops for a new one only.
  child.Send(SIGTSTP);
  EXPECT_EQ(child.AwaitHook(), 's');
}

TEST(JobControl, StopsTheProcessWithoutHooksToo) {
  Pipe report;
  Child child(Fork([&] {
    setpgid(0, 0);
    auto service = StartService();
    auto job_control = JobControl::Start(*service, {}).value();
    report.Put('!');
    while (true) pause();
  }));
  EXPECT_EQ(report.Take(), '!');
  child.Send(SIGTSTP);
  EXPECT_TRUE(WIFSTOPPED(child.Wait(WUNTRACED)));
}

// J3
TEST(JobControl, RunsItsHooksWhereNobodyCouldContinueTheProcess) {
  Pipe report;
  Child child(Fork([&] {
    setsid();
    auto service = StartService();
    auto job_control =
        JobControl::Start(*service, {.on_suspend = [&] { report.Put('s'); },
                                     .on_resume = [&] { report.Put('r'); }})
            .value();
    SendSelf(SIGTSTP);
    while (true) pause();
  }));
  EXPECT_EQ(report.Take(), 's');
  EXPECT_EQ(report.Take(), 'r');
}

TEST(JobControl, LeavesASignalAloneThatIsIgnored) {
  SetDisposition(SIGTSTP, SIG_IGN);
  {
    auto service = StartService();
    auto job_control = JobControl::Start(*service, {}).value();
    EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_IGN);
  }
  SetDisposition(SIGTSTP, SIG_DFL);
}

TEST(JobControl, PutsThePreviousEffectBackWhenItEnds) {
  auto service = StartService();
  { auto job_control = JobControl::Start(*service, {}).value(); }
  EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_DFL);
}

// The limit does not bind root, so the child gives that up.
TEST(JobControl, SaysThatThereIsNoThreadAndLeavesTheSignalAlone) {
  Child child(Fork([] {
    auto service = StartService();
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
    setrlimit(RLIMIT_NPROC, &limit);
    const absl::Status status = JobControl::Start(*service, {}).status();
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_DFL);
  }));
  const int status = ExitStatus(child.Wait());
  if (status == 2) GTEST_SKIP() << "cannot give up being root here";
  EXPECT_EQ(status, 0);
}

TEST(JobControl, RunsTheSecondHookOnlyOnceTheProcessIsContinued) {
  Pipe report;
  Child child(Fork([&] {
    setpgid(0, 0);
    auto service = StartService();
    auto job_control =
        JobControl::Start(*service, {.on_suspend = [&] { report.Put('s'); },
                                     .on_resume = [&] { report.Put('r'); }})
            .value();
    report.Put('!');
    while (true) pause();
  }));
  EXPECT_EQ(report.Take(), '!');
  child.Send(SIGTSTP);
  ASSERT_TRUE(WIFSTOPPED(child.Wait(WUNTRACED)));
  EXPECT_EQ(report.Take(), 's');
  pollfd more{.fd = report.reader(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&more, 1, 0), 0) << "nothing can write any more";
  child.Send(SIGCONT);
  EXPECT_EQ(report.Take(), 'r');
}

// In an orphaned process group, where nothing stops.
TEST(JobControl, RunsItsHooksOnAThreadOfItsOwnWithNoLockHeld) {
  Pipe report;
  Child child(Fork([&] {
    setsid();
    auto service = StartService();
    auto hook = [&] {
      char name[16];
      pthread_getname_np(pthread_self(), name, sizeof(name));
      EXPECT_STREQ(name, "tocsin-jobs");
      SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
      SendSelf(SIGUSR1);
      EXPECT_EQ(Next(receiver).signum, SIGUSR1);
      StopSelf();
      report.Put(testing::Test::HasFailure() ? '-' : '+');
    };
    auto job_control =
        JobControl::Start(*service, {.on_suspend = hook, .on_resume = hook})
            .value();
    SendSelf(SIGTSTP);
    while (true) pause();
  }));
  report.CloseWriter();
  EXPECT_EQ(report.Take(), '+');
  EXPECT_EQ(report.Take(), '+');
}

TEST(JobControl, WaitsInItsEndForAHookThatRuns) {
  Child child(Fork([] {
    setsid();
    auto service = StartService();
    std::latch running(1), release(1);
    std::atomic<bool> resumed = false;
    auto job_control =
        JobControl::Start(*service, {.on_suspend =
                                         [&] {
                                           running.count_down();
                                           release.wait();
                                         },
                                     .on_resume = [&] { resumed = true; }})
            .value();
    SendSelf(SIGTSTP);
    running.wait();
    std::atomic<bool> over = false;
    ScopedThread end([&] {
      job_control.reset();
      over = true;
    });
    AwaitServiceThreadWithout(SIGTSTP);  // then its receiver is closed
    end.AwaitAsleep();
    EXPECT_FALSE(over);
    release.count_down();
    end.Join();
    EXPECT_TRUE(resumed);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
