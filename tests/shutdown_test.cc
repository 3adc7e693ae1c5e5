#include "tocsin/signals/shutdown.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/task_tree.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;
using Phase = Shutdown::Phase;

absl::Status WaitForEver() { return Event().Wait(); }

// P8
TEST(Shutdown, DrainsBeforeItStops) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)})
          .value();
  EXPECT_EQ(shutdown->phase(), Phase::kRunning);
  Event draining;
  std::stop_callback on_drain(shutdown->drain_token(), [&] { draining.Set(); });

  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(draining.Wait().ok());
  EXPECT_EQ(shutdown->phase(), Phase::kDraining);
  EXPECT_FALSE(group.scope().cancelled());
  EXPECT_EQ(shutdown->cause()->signum, SIGTERM);

  signals.Advance(absl::Milliseconds(4999));
  ASSERT_TRUE(signals.Send(SIGTERM).ok());  // again: a supervisor's repetition
  EXPECT_EQ(shutdown->phase(), Phase::kDraining);

  group.Spawn([] { return WaitForEver(); });
  signals.Advance(absl::Milliseconds(1));
  EXPECT_EQ(shutdown->phase(), Phase::kStopping);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_THAT(std::string(group.scope().status().message()),
              HasSubstr("SIGTERM from pid"));
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, IsNotStartedByTheSignalsOfOthers) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  auto receiver = signals.service().Open({SIGHUP});
  ASSERT_TRUE(receiver.ok()) << receiver.status();
  ASSERT_TRUE(signals.Send(SIGHUP).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kRunning);
  EXPECT_FALSE(shutdown->cause().has_value());
}

TEST(Shutdown, WithoutDrainingStopsAtOnce) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  group.Spawn([] { return WaitForEver(); });
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kStopping);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(shutdown->drain_token().stop_requested());
}

// GNU timeout, terminals and supervisors send one stop twice.
TEST(Shutdown, ATerminationForcesAndShortensNothing) {
  for (absl::Duration drain : {absl::ZeroDuration(), absl::Seconds(5)}) {
    for (int first : {SIGTERM, SIGINT, SIGHUP}) {
      FakeSignals signals;
      TaskGroup group;
      auto shutdown = Shutdown::Start(signals.service(), group,
                                      {.signals = {SIGINT, SIGTERM, SIGHUP},
                                       .drain = drain})
                          .value();
      ASSERT_TRUE(signals.Send(first).ok());
      const Phase phase = shutdown->phase();
      ASSERT_TRUE(signals.Send(SIGTERM).ok());
      signals.Advance(absl::Seconds(4));
      ASSERT_TRUE(signals.Send(SIGTERM).ok());
      ASSERT_TRUE(signals.Send(SIGHUP).ok());
      EXPECT_EQ(shutdown->phase(), phase);
      EXPECT_FALSE(signals.death().has_value());
    }
  }
}

TEST(Shutdown, AnInterruptForcesOnceStoppingHasLastedAMoment) {
  for (int first : {SIGTERM, SIGINT}) {
    FakeSignals signals;
    TaskGroup group;
    auto shutdown = Shutdown::Start(signals.service(), group).value();
    ASSERT_TRUE(signals.Send(first).ok());
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    signals.Advance(absl::Milliseconds(249));
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    EXPECT_FALSE(signals.death().has_value());
    signals.Advance(absl::Milliseconds(1));
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    ASSERT_TRUE(signals.death().has_value());
    EXPECT_EQ(signals.death()->signum, first);
    EXPECT_THAT(signals.death()->report, HasSubstr("SIGINT from pid"));
  }
}

// A person does not wait for it. The clean-up has its grace all the same.
TEST(Shutdown, AnInterruptEndsTheDrain) {
  for (int first : {SIGTERM, SIGINT}) {
    FakeSignals signals;
    TaskGroup group;
    auto shutdown =
        Shutdown::Start(signals.service(), group,
                        {.drain = absl::Seconds(5), .grace = absl::Seconds(10)})
            .value();
    ASSERT_TRUE(signals.Send(first).ok());
    // One keystroke may come twice, if a parent passes it on.
    signals.Advance(absl::Milliseconds(249));
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    EXPECT_EQ(shutdown->phase(), Phase::kDraining);
    signals.Advance(absl::Milliseconds(1));
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    EXPECT_EQ(shutdown->phase(), Phase::kStopping);
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    signals.Advance(absl::Seconds(10) - absl::Nanoseconds(1));
    EXPECT_FALSE(signals.death().has_value());
    signals.Advance(absl::Nanoseconds(1));
    EXPECT_EQ(signals.death()->signum, first);
  }
}

// P6: TERM and then INT is a second signal, also while draining.
TEST(Shutdown, AnyOtherSignalForcesByOption) {
  for (absl::Duration drain : {absl::ZeroDuration(), absl::Seconds(5)}) {
    for (const int first : {SIGTERM, SIGINT}) {
      FakeSignals signals;
      TaskGroup group;
      auto shutdown =
          Shutdown::Start(
              signals.service(), group,
              {.drain = drain, .on_second_signal = SecondSignal::kAnyForces})
              .value();
      const int second = SIGTERM + SIGINT - first;
      ASSERT_TRUE(signals.Send(first).ok());
      ASSERT_TRUE(signals.Send(second).ok());
      ASSERT_TRUE(signals.death().has_value());
      EXPECT_EQ(signals.death()->signum, first);
      EXPECT_THAT(signals.death()->report,
                  HasSubstr("came, " + SignalName(second) + " from pid"));
    }
  }
}

TEST(Shutdown, ARepeatedInterruptForcesByOptionAlsoWhileDraining) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group,
                      {.drain = absl::Seconds(5),
                       .on_second_signal = SecondSignal::kAnyForces})
          .value();
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_FALSE(signals.death().has_value());
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_EQ(signals.death()->signum, SIGINT);
}

// P6
TEST(Shutdown, ASecondSignalCanBeIgnored) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group,
                                  {.grace = absl::Seconds(10),
                                   .on_second_signal = SecondSignal::kIgnore})
                      .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(9));
  EXPECT_FALSE(signals.death().has_value());
  signals.Advance(absl::Seconds(1));
  EXPECT_EQ(signals.death()->signum, SIGTERM);
}

// P7
TEST(Shutdown, TheEndOfTheGraceForcesAndReportsWhoIsStuck) {
  FakeSignals signals;
  Event release;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group,
                      {.drain = absl::Seconds(5), .grace = absl::Seconds(30)})
          .value();
  std::latch running(1);
  group.Spawn(
      [&] {
        running.count_down();
        CancelScope shield({.shield = true});
        release.Wait().IgnoreError();
      },
      {.name = "flush the journal"});
  running.wait();
  const auto waits = HasSubstr("flush the journal waits in Event::Wait() for ");
  while (!testing::Matches(testing::Contains(waits))(internal::TaskTree())) {
    sched_yield();
  }
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(5));
  signals.Advance(absl::Milliseconds(29'999));
  EXPECT_FALSE(signals.death().has_value());
  signals.Advance(absl::Milliseconds(1));
  ASSERT_TRUE(signals.death().has_value());
  EXPECT_EQ(signals.death()->signum, SIGTERM);
  EXPECT_THAT(signals.death()->report,
              AllOf(HasSubstr("SIGTERM from pid"),
                    HasSubstr("the grace of 30s is over"),
                    HasSubstr("\ntocsin:     flush the journal waits in "
                              "Event::Wait() for ")));
  release.Set();
}

TEST(Shutdown, NothingIsForcedAfterItsEnd) {
  FakeSignals signals;
  {
    TaskGroup group;
    auto shutdown =
        Shutdown::Start(signals.service(), group, {.grace = absl::Seconds(1)})
            .value();
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
  }
  signals.Advance(absl::Seconds(2));
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, AServiceHasAtMostOne) {
  FakeSignals signals;
  TaskGroup group;
  auto first = Shutdown::Start(signals.service(), group).value();
  EXPECT_TRUE(absl::IsAlreadyExists(
      Shutdown::Start(signals.service(), group).status()));
  auto none =
      Shutdown::Start(signals.service(), group, {.signals = {}}).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(first->phase(), Phase::kStopping);
  EXPECT_EQ(none->phase(), Phase::kRunning);
}

TEST(Shutdown, TellsWhyItCannotListen) {
  FakeSignals signals;
  TaskGroup group;
  const SignalSet none_is_a_signal({4096});
  for (const SignalSet& refused : {SignalSet({SIGKILL}), none_is_a_signal}) {
    const absl::Status status =
        Shutdown::Start(signals.service(), group, {.signals = refused})
            .status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  }
}

TEST(Shutdown, DoesNotDrainForLessThanNoTime) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = -absl::Seconds(1)})
          .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kStopping);
}

TEST(Shutdown, ItsCauseIsTheFirstSignal) {
  for (absl::Duration drain : {absl::ZeroDuration(), absl::Hours(1)}) {
    FakeSignals signals;
    TaskGroup group;
    auto shutdown = Shutdown::Start(signals.service(), group,
                                    {.drain = drain,
                                     .on_second_signal = SecondSignal::kIgnore})
                        .value();
    EXPECT_FALSE(shutdown->cause().has_value());
    const absl::Time first = signals.now();
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    signals.Advance(absl::Seconds(1));
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    EXPECT_EQ(shutdown->cause()->signum, SIGTERM);
    EXPECT_EQ(shutdown->cause()->received_at, first);
  }
}

TEST(Shutdown, ARepetitionWhileDrainingIsNotItsCause) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)})
          .value();
  const absl::Time first = signals.now();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(1));
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(shutdown->cause()->received_at, first);
  signals.Advance(absl::Seconds(4));
  EXPECT_EQ(shutdown->phase(), Phase::kStopping) << "the drain was not renewed";
}

TEST(Shutdown, ARepetitionOfWhatItDrainsForForcesByOptionOnceItStops) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group,
                      {.drain = absl::Seconds(5),
                       .on_second_signal = SecondSignal::kAnyForces})
          .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(5));
  EXPECT_FALSE(signals.death().has_value());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_TRUE(signals.death().has_value());
}

TEST(Shutdown, IgnoresASecondInterruptWhileDrainingWhereAllSecondOnesAre) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group,
                                  {.drain = absl::Seconds(5),
                                   .on_second_signal = SecondSignal::kIgnore})
                      .value();
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kDraining);
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, IsForcedOnce) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group,
                      {.grace = absl::Seconds(1),
                       .on_second_signal = SecondSignal::kAnyForces})
          .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  const std::string report = signals.death()->report;
  EXPECT_THAT(report, HasSubstr("a second signal came, SIGINT from pid"));
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(2));
  EXPECT_EQ(signals.death()->report, report);
}

TEST(Shutdown, ReportsWhenItBeganAndThatOnlyMainIsLeft) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  const std::string began = absl::FormatTime(signals.now());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  signals.Advance(absl::Seconds(1));
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_THAT(
      signals.death()->report,
      AllOf(HasSubstr("stopping since SIGTERM from pid"),
            HasSubstr(" at " + began + " and a second signal came, SIGINT"),
            HasSubstr(". What has not ended:\n"
                      "tocsin:   main runs (thread ")));
}

TEST(Shutdown, HearsTheSignalsOfItsPolicyAlone) {
  FakeSignals signals;
  SignalReceiver other = OpenReceiver(signals.service(), {SIGTERM});
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.signals = {SIGUSR1}}).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kRunning);
  ASSERT_TRUE(signals.Send(SIGUSR1).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kStopping);
}

TEST(Shutdown, ThatWasRefusedLeavesTheFirstOneAtWork) {
  FakeSignals signals;
  TaskGroup group;
  auto first = Shutdown::Start(signals.service(), group).value();
  EXPECT_FALSE(Shutdown::Start(signals.service(), group).ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(first->phase(), Phase::kStopping);
}

TEST(Shutdown, MakesRoomForAnotherOneWhenItEnds) {
  FakeSignals signals;
  TaskGroup group;
  EXPECT_FALSE(
      Shutdown::Start(signals.service(), group, {.signals = {SIGKILL}}).ok());
  { auto first = Shutdown::Start(signals.service(), group).value(); }
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(shutdown->phase(), Phase::kStopping);
}

TEST(Shutdown, RunsAllCallbacksOnAThreadOfItsOwnAndCanBeAskedThere) {
  FakeSignals signals;
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)})
          .value();
  auto name = [] {
    std::string own(16, '\0');
    pthread_getname_np(pthread_self(), own.data(), own.size());
    return std::string(own.c_str());
  };
  std::latch drains(1), stops(1);
  std::stop_callback on_drain(shutdown->drain_token(), [&] {
    EXPECT_EQ(name(), "tocsin-shutdown");
    EXPECT_EQ(shutdown->phase(), Phase::kDraining);
    EXPECT_EQ(shutdown->cause()->signum, SIGTERM);
    drains.count_down();
  });
  std::stop_callback on_stop(group.scope().stop_token(), [&] {
    EXPECT_EQ(name(), "tocsin-shutdown");
    EXPECT_EQ(shutdown->phase(), Phase::kStopping);
    EXPECT_EQ(shutdown->cause()->signum, SIGTERM);
    stops.count_down();
  });
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  drains.wait();
  signals.Advance(absl::Seconds(5));
  stops.wait();
}

// A shutdown whose end has begun, and waits for a callback.
class EndingShutdown {
 public:
  EndingShutdown(FakeSignals& signals, TaskGroup& group,
                 const ShutdownPolicy& policy)
      : shutdown_(Shutdown::Start(signals.service(), group, policy).value()),
        callback_(shutdown_->drain_token(), [this] {
          running_.count_down();
          release_.wait();
        }) {
    EXPECT_TRUE(signals.Send(SIGTERM).ok());
    running_.wait();
    end_.emplace([this] {
      shutdown_.reset();
      over_ = true;
    });
    end_->AwaitAsleep();
  }
  ~EndingShutdown() { release_.count_down(); }

  bool over() const { return over_; }

 private:
  std::unique_ptr<Shutdown> shutdown_;
  std::latch running_{1};
  std::latch release_{1};
  std::stop_callback<std::function<void()>> callback_;
  std::atomic<bool> over_{false};
  std::optional<ScopedThread> end_;
};

TEST(Shutdown, WaitsInItsEndForACallbackThatRuns) {
  FakeSignals signals;
  TaskGroup group;
  EndingShutdown shutdown(signals, group, {});
  EXPECT_FALSE(shutdown.over());
}

TEST(Shutdown, ASecondSignalForcesNothingOnceItsEndHasBegun) {
  FakeSignals signals;
  TaskGroup group;
  EndingShutdown shutdown(signals, group,
                          {.on_second_signal = SecondSignal::kAnyForces});
  EXPECT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, TheGraceForcesNothingOnceItsEndHasBegun) {
  FakeSignals signals;
  TaskGroup group;
  EndingShutdown shutdown(signals, group, {.grace = absl::Seconds(1)});
  signals.Advance(absl::Seconds(2));
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, StopsNothingThatEndsWhileItDrains) {
  FakeSignals signals;
  TaskGroup group;
  {
    auto shutdown =
        Shutdown::Start(signals.service(), group, {.drain = absl::Seconds(5)})
            .value();
    Event draining;
    std::stop_callback on_drain(shutdown->drain_token(),
                                [&] { draining.Set(); });
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    ASSERT_TRUE(draining.Wait().ok());
  }
  signals.Advance(absl::Seconds(5));
  EXPECT_FALSE(group.scope().cancelled());
}

TEST(Shutdown, LeavesIgnoredSignalsAlone) {
  SetDisposition(SIGINT, SIG_IGN);
  {
    auto service = StartService();
    TaskGroup group;
    auto shutdown = Shutdown::Start(*service, group).value();
    SendSelf(SIGINT);
    SendSelf(SIGTERM);
    while (!shutdown->cause().has_value()) sched_yield();
    EXPECT_EQ(shutdown->cause()->signum, SIGTERM);
  }
  SetDisposition(SIGINT, SIG_DFL);
}

TEST(Shutdown, HearsIgnoredSignalsByOption) {
  SetDisposition(SIGINT, SIG_IGN);
  {
    auto service = StartService();
    TaskGroup group;
    auto shutdown =
        Shutdown::Start(*service, group, {.honor_ignored = false}).value();
    SendSelf(SIGINT);
    while (!shutdown->cause().has_value()) sched_yield();
    EXPECT_EQ(shutdown->cause()->signum, SIGINT);
  }
  EXPECT_EQ(Disposition(SIGINT).sa_handler, SIG_IGN);
  SetDisposition(SIGINT, SIG_DFL);
}

bool BrokenPipesAreIgnored() {
  return Contains(StatusMask("self", "SigIgn"), SIGPIPE);
}
bool BrokenPipesAreHandled() {
  return Contains(StatusMask("self", "SigCgt"), SIGPIPE);
}
void Handle(int) {}

TEST(Shutdown, GivesBrokenPipesTheirEffectBackWhenItEnds) {
  auto service = StartService();
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(*service, group, {.broken_pipe = BrokenPipe::kFails})
          .value();
  EXPECT_TRUE(BrokenPipesAreIgnored());
  shutdown.reset();
  EXPECT_FALSE(BrokenPipesAreIgnored());
}

TEST(Shutdown, LeavesTheDispositionThatAProgramHasSetForBrokenPipes) {
  auto service = StartService();
  TaskGroup group;
  const ShutdownPolicy policy = {.broken_pipe = BrokenPipe::kFails};
  SetDisposition(SIGPIPE, SIG_IGN);
  EXPECT_TRUE(Shutdown::Start(*service, group, policy).ok());
  EXPECT_TRUE(BrokenPipesAreIgnored());
  SetDisposition(SIGPIPE, Handle);
  {
    auto shutdown = Shutdown::Start(*service, group, policy).value();
    EXPECT_TRUE(BrokenPipesAreHandled());
  }
  EXPECT_TRUE(BrokenPipesAreHandled());
  SetDisposition(SIGPIPE, SIG_DFL);
}

TEST(Shutdown, LeavesAHandlerForBrokenPipesThatCameMeanwhile) {
  auto service = StartService();
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(*service, group, {.broken_pipe = BrokenPipe::kFails})
          .value();
  SetDisposition(SIGPIPE, Handle);
  shutdown.reset();
  EXPECT_TRUE(BrokenPipesAreHandled());
  SetDisposition(SIGPIPE, SIG_DFL);
}

// The force path needs nobody: here main, the stop callback and all workers
// hang.
TEST(ShutdownDeathTest, ASecondSignalEndsAProcessInWhichEverythingHangs) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        auto shutdown =
            Shutdown::Start(*service, group,
                            {.on_second_signal = SecondSignal::kAnyForces})
                .value();
        Pipe never;
        std::latch reading(2);  // a task that has not started would be skipped
        for (int i = 0; i < 2; ++i) {
          group.Spawn(
              [&] {
                reading.count_down();
                never.Take();
              },
              {.name = "reader"});
        }
        reading.wait();
        std::latch hanging(1);
        std::stop_callback callback(group.scope().stop_token(), [&] {
          hanging.count_down();
          never.Take();
        });
        SendSelf(SIGTERM);
        hanging.wait();
        SendSelf(SIGTERM);
        never.Take();
      },
      KilledBySignal(SIGTERM),
      "second signal.*What has not ended:.*reader runs");
}

TEST(ShutdownDeathTest, TheEndOfTheGraceEndsAProcessInWhichEverythingHangs) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        auto shutdown =
            Shutdown::Start(*service, group, {.grace = absl::Milliseconds(1)})
                .value();
        SendSelf(SIGINT);
        Pipe().Take();
      },
      KilledBySignal(SIGINT), "grace.*is over");
}

TEST(ShutdownDeathTest, ASecondSignalEndsAProcessWhoseDrainCallbackHangs) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        auto shutdown =
            Shutdown::Start(*service, group,
                            {.drain = absl::Hours(1),
                             .on_second_signal = SecondSignal::kAnyForces})
                .value();
        Pipe never;
        std::latch hanging(1);
        std::stop_callback callback(shutdown->drain_token(), [&] {
          hanging.count_down();
          never.Take();
        });
        SendSelf(SIGTERM);
        hanging.wait();
        SendSelf(SIGINT);
        never.Take();
      },
      KilledBySignal(SIGTERM), "second signal.*SIGINT");
}

TEST(ShutdownDeathTest, DiscardsWhatCameWhenItEnds) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        {
          auto shutdown = Shutdown::Start(*service, group).value();
          SendSelf(SIGTERM);
          while (!shutdown->cause().has_value()) sched_yield();
        }
        _exit(0);
      },
      ExitedWithCode(0), "");
}

}  // namespace
}  // namespace tocsin
