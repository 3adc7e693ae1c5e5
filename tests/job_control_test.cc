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
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::AnyOf;

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

// Issue 19: it stopped, with nobody to continue it.
TEST(JobControl, DoesNotStopAProcessThatWasToldToGoOnMeanwhile) {
  Pipe report;
  Pipe go_on;
  Child child(Fork([&] {
    setpgid(0, 0);
    auto service = StartService();
    SignalReceiver witness = OpenReceiver(*service, {SIGCONT, SIGUSR1});
    auto job_control =
        JobControl::Start(*service, {.on_suspend =
                                         [&] {
                                           report.Put('s');
                                           go_on.Take();
                                         },
                                     .on_resume = [&] { report.Put('r'); }})
            .value();
    report.Put('!');
    // All receivers have a signal when one of them returns it.
    EXPECT_EQ(Next(witness).signum, SIGCONT);
    EXPECT_EQ(Next(witness).signum, SIGUSR1);
    report.Put('c');
    while (true) pause();
  }));
  EXPECT_EQ(report.Take(), '!');
  child.Send(SIGTSTP);
  EXPECT_EQ(report.Take(), 's');
  child.Send(SIGCONT);
  child.Send(SIGUSR1);
  EXPECT_EQ(report.Take(), 'c');
  go_on.Put();
  EXPECT_EQ(report.Take(), 'r');
}

// Issue 19: it needed two.
TEST(JobControl, OfTwoStopsBeforeItIsContinuedOneCounts) {
  Pipe report;
  Pipe go_on;
  Child child(Fork([&] {
    setpgid(0, 0);
    auto service = StartService();
    SignalReceiver witness = OpenReceiver(*service, {SIGTSTP});
    auto job_control =
        JobControl::Start(*service, {.on_suspend =
                                         [&] {
                                           report.Put('s');
                                           go_on.Take();
                                         },
                                     .on_resume = [&] { report.Put('r'); }})
            .value();
    report.Put('!');
    while (true) {
      EXPECT_EQ(Next(witness).signum, SIGTSTP);
      report.Put('t');
    }
  }));
  EXPECT_EQ(report.Take(), '!');
  child.Send(SIGTSTP);
  const std::string first = {report.Take(), report.Take()};
  EXPECT_THAT(first, AnyOf("st", "ts"));
  child.Send(SIGTSTP);
  EXPECT_EQ(report.Take(), 't');
  go_on.Put();
  ASSERT_TRUE(WIFSTOPPED(child.Wait(WUNTRACED)));
  child.Send(SIGCONT);
  EXPECT_EQ(report.Take(), 'r');
  // It stops for a new one only.
  child.Send(SIGTSTP);
  const std::string again = {report.Take(), report.Take()};
  EXPECT_THAT(again, AnyOf("st", "ts"));
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
