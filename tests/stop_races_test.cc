// The windows in what ends a program or a child, each held open at its step.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/internal/last_hook.h"
#include "tocsin/signals/internal/watchdog.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/stop_on_signal.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

TEST(ShutdownRaces, ASignalAtTheMomentOfTheSleepIsHeard) {
  FakeSignals signals;
  TaskGroup group;
  HeldAt asleep("Shutdown: about to sleep");
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  std::latch stopped(1);
  std::stop_callback count(group.scope().stop_token(),
                           [&] { stopped.count_down(); });
  asleep.AwaitThread();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  asleep.Release();
  stopped.wait();
}

// As when a thread that hangs holds malloc's lock.
TEST(ShutdownRacesDeathTest, AReportThatCannotBeMadeDoesNotHoldUpTheEnd) {
  EXPECT_EXIT(
      {
        HeldAt report("Shutdown: about to report");
        auto service = StartService();
        TaskGroup group;
        auto shutdown =
            Shutdown::Start(*service, group, {.grace = absl::Milliseconds(1)})
                .value();
        SendSelf(SIGTERM);
        Pipe().Take();
      },
      testing::KilledBySignal(SIGTERM), "nothing can be told");
}

TEST(ShutdownRaces, TheEndOfTheDrainAtTheMomentOfTheSleepIsHeard) {
  FakeSignals signals;
  TaskGroup group;
  HeldAt asleep("Shutdown: about to sleep");
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)})
          .value();
  std::latch draining(1), stopped(1);
  std::stop_callback on_drain(shutdown->drain_token(),
                              [&] { draining.count_down(); });
  std::stop_callback on_stop(group.scope().stop_token(),
                             [&] { stopped.count_down(); });
  asleep.AwaitThread();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  draining.wait();
  signals.Advance(absl::Seconds(5));
  asleep.Release();
  stopped.wait();
}

TEST(ShutdownRaces, ItsEndAtTheMomentOfTheSleepIsHeard) {
  FakeSignals signals;
  TaskGroup group;
  HeldAt asleep("Shutdown: about to sleep");
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  asleep.AwaitThread();
  ScopedThread end([&] { shutdown.reset(); });
  end.AwaitAsleep();
  asleep.Release();
  end.Join();
  EXPECT_FALSE(group.scope().cancelled());
}

TEST(WatchdogRacesDeathTest, ATimeThatIsSetWhileItFallsAsleepCounts) {
  EXPECT_EXIT(
      {
        HeldAt looked("Watchdog: has looked at its time");
        auto watchdog = internal::Watchdog::Start().value();
        looked.AwaitThread();
        watchdog->Set(SIGTERM, internal::Now());
        looked.Release();
        Pipe().Take();
      },
      testing::KilledBySignal(SIGTERM), "the program has not exited");
}

TEST(WatchdogRacesDeathTest, ATimeThatIsMovedWhileItLooksIsNotUp) {
  EXPECT_EXIT(
      {
        auto watchdog = internal::Watchdog::Start().value();
        std::string thread;
        while (thread.empty()) thread = ThreadNamed("tocsin-watchdog");
        AwaitState(thread, "S");
        std::latch looked(1);
        std::atomic<bool> moved = false;
        AtStep looks("Watchdog: has looked at its time", [&] {
          looked.count_down();
          while (!moved) sched_yield();  // so that it sleeps only afterwards
        });
        watchdog->Set(SIGTERM, internal::Now());
        looked.wait();
        watchdog->Set(SIGTERM, internal::kNever);
        moved = true;
        AwaitState(thread, "S");
        _exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(WatchdogRacesDeathTest, NobodyUnsetsItOnceTheProcessDies) {
  EXPECT_EXIT(
      {
        Pipe dying;
        auto hook = internal::LastHook::Start([&] {
          dying.Put();
          while (true) pause();
        });
        auto watchdog = internal::Watchdog::Start().value();
        watchdog->UseHook(*std::move(hook));
        watchdog->Set(SIGTERM, internal::Now());
        dying.Take();
        watchdog->Unset();
        _exit(1);
      },
      testing::KilledBySignal(SIGTERM), "the program has not exited");
}

// Whether there is one, which ends when it has stopped.
bool ListenerRuns() { return !ThreadNamed("tocsin-stop").empty(); }

TEST(StopOnSignalRaces, ASignalThatComesWhileItsScopeIsCancelledIsNoCause) {
  FakeSignals signals;
  CancelScope outer;
  auto stop = StopOnSignal::Start(signals.service()).value();
  HeldAt heard("StopOnSignal: has heard a signal");
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  heard.AwaitThread();
  outer.Cancel();
  EXPECT_TRUE(stop->stop_token().stop_requested());
  heard.Release();
  while (ListenerRuns()) sched_yield();
  EXPECT_FALSE(stop->cause().has_value());
}

// In an orphaned process group, where nothing stops. Each puts back what it
// found, and must not find what the other one left for a moment.
TEST(StopSelfRaces, AreOneAfterTheOther) {
  const pid_t pid = fork();
  if (pid == 0) {
    setsid();
    HeldAt held("StopSelf: about to stop");
    ScopedThread first([] { StopSelf(); });
    held.AwaitThread();
    std::atomic<bool> over = false;
    ScopedThread second([&] {
      StopSelf();
      over = true;
    });
    second.AwaitAsleep();
    EXPECT_FALSE(over);
    held.Release();
    first.Join();
    second.Join();
    _exit(HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
  EXPECT_EQ(status, 0);
}

ChildProcess Spawn(std::vector<std::string> argv,
                   const ChildProcess::Options& options) {
  auto child = ChildProcess::Spawn(std::move(argv), options);
  if (!child.ok()) ADD_FAILURE() << child.status();
  return *std::move(child);
}

TEST(ChildProcessRaces, TwoThatWaitAreToldTheSame) {
  ChildProcess child =
      Spawn({"sh", "-c", "read go; exit 3"}, {.input = ChildStream::Pipe()});
  HeldAt reaping("ChildProcess: about to reap");
  absl::StatusOr<ExitStatus> ends[2];
  ScopedThread first([&] { ends[0] = child.Wait(); });
  first.AwaitAsleep();
  child.CloseStdin();
  reaping.AwaitThread();
  ScopedThread second([&] { ends[1] = child.Wait(); });
  second.AwaitAsleep();
  reaping.Release();
  first.Join();
  second.Join();
  for (const auto& end : ends) {
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(*end, (ExitStatus{.code = 3}));
  }
}

// Nobody may take the leader's end before that is done: the group would lose
// its number.
TEST(ChildProcessRaces, AWaitThatComesFirstKillsWhatIsLeftOfAGroup) {
  ChildProcess child = Spawn(
      {"sh", "-c", "exec 3<&0; (trap '' TERM; echo; exec cat <&3) & wait"},
      {.input = ChildStream::Pipe(),
       .output = ChildStream::Pipe(),
       .own_group = true});
  char byte;
  ASSERT_EQ(read(child.stdout_pipe(), &byte, 1), 1);  // the member is deaf now
  HeldAt signalled("ChildProcess: was signalled");
  ScopedThread terminator(
      [&] { EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok()); });
  signalled.AwaitThread();
  const absl::StatusOr<ExitStatus> end = child.Wait();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(*end, (ExitStatus{.signum = SIGTERM}));
  SetDisposition(SIGPIPE, SIG_IGN);
  EXPECT_FALSE(write(child.stdin_pipe(), "x", 1) == 1 &&
               read(child.stdout_pipe(), &byte, 1) == 1)
      << "the member is there";
  SetDisposition(SIGPIPE, SIG_DFL);
  signalled.Release();
}

// What has ended meanwhile needs no signal, and gets none.
TEST(ChildProcessRaces, AnEndThatIsTakenDuringTheGraceIsAnEnd) {
  ChildProcess child = Spawn({"sh", "-c", "trap '' TERM; echo; exec cat"},
                             {.input = ChildStream::Pipe(),
                              .output = ChildStream::Pipe(),
                              .own_group = true});
  char byte;
  ASSERT_EQ(read(child.stdout_pipe(), &byte, 1), 1);
  HeldAt signalled("ChildProcess: was signalled");
  absl::Status status = absl::UnknownError("not back");
  ScopedThread terminator(
      [&] { status = child.Terminate(absl::ZeroDuration()); });
  signalled.AwaitThread();
  child.CloseStdin();
  const absl::StatusOr<ExitStatus> end = child.Wait();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(*end, (ExitStatus{.code = 0}));
  signalled.Release();
  terminator.Join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(*child.Wait(), *end);
}

}  // namespace
}  // namespace tocsin
