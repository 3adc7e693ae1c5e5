#include "tocsin/signals/shutdown.h"

#include <csignal>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;
using Phase = Shutdown::Phase;

absl::Status WaitForEver() { return Event().Wait(); }

// P8
TEST(Shutdown, DrainsBeforeItStops) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(signals.service(), group, {.drain = absl::Seconds(5)});
  ASSERT_TRUE(shutdown.status().ok());
  EXPECT_EQ(shutdown.phase(), Phase::kRunning);
  Event draining;
  std::stop_callback on_drain(shutdown.drain_token(), [&] { draining.Set(); });

  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(draining.Wait().ok());
  EXPECT_EQ(shutdown.phase(), Phase::kDraining);
  EXPECT_FALSE(group.scope().cancelled());
  EXPECT_EQ(shutdown.cause()->signum, SIGTERM);

  signals.Advance(absl::Milliseconds(4999));
  ASSERT_TRUE(signals.Send(SIGTERM).ok());  // again: a supervisor's repetition
  EXPECT_EQ(shutdown.phase(), Phase::kDraining);

  group.Spawn([] { return WaitForEver(); });
  signals.Advance(absl::Milliseconds(1));
  EXPECT_EQ(shutdown.phase(), Phase::kStopping);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_THAT(std::string(group.scope().status().message()),
              HasSubstr("SIGTERM from pid"));
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, IsNotStartedByTheSignalsOfOthers) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(signals.service(), group);
  auto receiver = signals.service().Open({SIGHUP});
  ASSERT_TRUE(receiver.ok()) << receiver.status();
  ASSERT_TRUE(signals.Send(SIGHUP).ok());
  EXPECT_EQ(shutdown.phase(), Phase::kRunning);
  EXPECT_FALSE(shutdown.cause().has_value());
}

TEST(Shutdown, WithoutDrainingStopsAtOnce) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(signals.service(), group);
  group.Spawn([] { return WaitForEver(); });
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_EQ(shutdown.phase(), Phase::kStopping);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(shutdown.drain_token().stop_requested());
}

// P6: TERM and then INT is a second signal, also while draining.
TEST(Shutdown, AnInterruptAfterATerminationForces) {
  for (absl::Duration drain : {absl::ZeroDuration(), absl::Seconds(5)}) {
    FakeSignals signals;
    TaskGroup group;
    Shutdown shutdown(signals.service(), group, {.drain = drain});
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    ASSERT_TRUE(signals.Send(SIGINT).ok());
    ASSERT_TRUE(signals.death().has_value());
    EXPECT_EQ(signals.death()->signum, SIGTERM);
    EXPECT_THAT(signals.death()->report, HasSubstr("SIGINT from pid"));
  }
}

TEST(Shutdown, ARepeatedInterruptForcesAlsoWhileDraining) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(signals.service(), group, {.drain = absl::Seconds(5)});
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_FALSE(signals.death().has_value());
  ASSERT_TRUE(signals.Send(SIGINT).ok());
  EXPECT_EQ(signals.death()->signum, SIGINT);
}

// P6
TEST(Shutdown, ASecondSignalCanBeIgnored) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(
      signals.service(), group,
      {.grace = absl::Seconds(10), .second = SecondSignal::kIgnore});
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
  Shutdown shutdown(signals.service(), group,
                    {.drain = absl::Seconds(5), .grace = absl::Seconds(30)});
  std::latch running(1);
  group.Spawn(
      [&] {
        running.count_down();
        CancelScope shield({.shield = true});
        release.Wait().IgnoreError();
      },
      {.name = "flush the journal"});
  running.wait();
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
                    HasSubstr("has not ended: flush the journal")));
  release.Set();
}

TEST(Shutdown, NothingIsForcedAfterItsEnd) {
  FakeSignals signals;
  {
    TaskGroup group;
    Shutdown shutdown(signals.service(), group, {.grace = absl::Seconds(1)});
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
  }
  signals.Advance(absl::Seconds(2));
  EXPECT_FALSE(signals.death().has_value());
}

TEST(Shutdown, AServiceHasAtMostOne) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown first(signals.service(), group);
  Shutdown second(signals.service(), group);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status()));
  Shutdown none(signals.service(), group, {.signals = {}});
  EXPECT_TRUE(none.status().ok());
}

TEST(Shutdown, TellsWhyItCannotListen) {
  FakeSignals signals;
  TaskGroup group;
  Shutdown shutdown(signals.service(), group, {.signals = {SIGKILL}});
  EXPECT_TRUE(absl::IsInvalidArgument(shutdown.status()));
}

// The force path needs nobody: here main, the stop callback and all workers
// hang.
TEST(ShutdownDeathTest, ASecondSignalEndsAProcessInWhichEverythingHangs) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        Shutdown shutdown(*service, group);
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
        Raise(SIGTERM);
        hanging.wait();
        Raise(SIGTERM);
        never.Take();
      },
      KilledBySignal(SIGTERM), "second signal.*has not ended: reader");
}

TEST(ShutdownDeathTest, TheEndOfTheGraceEndsAProcessInWhichEverythingHangs) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskGroup group;
        Shutdown shutdown(*service, group, {.grace = absl::Milliseconds(1)});
        Raise(SIGINT);
        Pipe().Take();
      },
      KilledBySignal(SIGINT), "grace.*is over");
}

}  // namespace
}  // namespace tocsin
