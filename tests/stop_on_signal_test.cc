#include "tocsin/signals/stop_on_signal.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <functional>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;
using ::testing::KilledBySignal;

absl::Status WaitForEver() { return Event().Wait(); }

// P1
TEST(StopOnSignal, ASignalRequestsTheTokenAndIsTheCause) {
  auto service = StartService();
  StopOnSignal stop(*service, {SIGINT, SIGTERM});
  ASSERT_TRUE(stop.status().ok());
  EXPECT_FALSE(stop.cause().has_value());
  std::latch stopped(1);
  std::stop_callback callback(stop.stop_token(), [&] { stopped.count_down(); });
  EXPECT_FALSE(stop.stop_token().stop_requested());
  SendSelf(SIGINT);
  stopped.wait();
  EXPECT_EQ(stop.cause()->signum, SIGINT);
  EXPECT_EQ(stop.cause()->sender->pid, getpid());
}

// P11
TEST(StopOnSignal, CancelsAndJoinsATaskGroupThatIsTiedToIt) {
  FakeSignals signals;
  TaskGroup group;
  StopOnSignal stop(signals.service());
  stop.Tie(group.scope());
  for (int i = 0; i < 8; ++i) {
    group.Spawn([] {
      const absl::Status status = WaitForEver();
      EXPECT_TRUE(absl::IsCancelled(status));
      EXPECT_THAT(std::string(status.message()), HasSubstr("SIGTERM from pid"));
    });
  }
  std::latch running(1);
  group.Spawn([&] { running.count_down(); });
  running.wait();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(stop.cause()->signum, SIGTERM);
}

TEST(StopOnSignal, CancelsAtOnceWhatIsTiedLater) {
  FakeSignals signals;
  StopOnSignal stop(signals.service());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  while (!stop.cause().has_value()) sched_yield();
  CancelScope scope;
  stop.Tie(scope);
  EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
}

// P3
TEST(StopOnSignal, IsStoppedWithTheScopeThatItWasMadeIn) {
  FakeSignals signals;
  CancelScope outer;
  std::optional<StopOnSignal> early(std::in_place, signals.service());
  EXPECT_FALSE(early->stop_token().stop_requested());
  outer.Cancel();
  EXPECT_TRUE(early->stop_token().stop_requested());
  EXPECT_FALSE(early->cause().has_value());
  StopOnSignal late(signals.service());
  EXPECT_TRUE(late.stop_token().stop_requested());
}

TEST(StopOnSignal, RunsItsCallbacksOnAThreadOfItsOwn) {
  auto service = StartService();
  StopOnSignal stop(*service);
  std::latch stopped(1);
  std::string name(16, '\0');
  std::stop_callback callback(stop.stop_token(), [&] {
    pthread_getname_np(pthread_self(), name.data(), name.size());
    stopped.count_down();
  });
  SendSelf(SIGTERM);
  stopped.wait();
  EXPECT_STREQ(name.c_str(), "tocsin-stop");
}

TEST(StopOnSignal, LeavesIgnoredSignalsAlone) {
  SetDisposition(SIGINT, SIG_IGN);
  auto service = StartService();
  StopOnSignal stop(*service);
  SendSelf(SIGINT);
  SendSelf(SIGTERM);
  while (!stop.cause().has_value()) sched_yield();
  EXPECT_EQ(stop.cause()->signum, SIGTERM);
  SetDisposition(SIGINT, SIG_DFL);
}

TEST(StopOnSignal, TellsWhyItCannotListen) {
  FakeSignals signals;
  StopOnSignal stop(signals.service(), {SIGKILL});
  EXPECT_TRUE(absl::IsInvalidArgument(stop.status()));
}

// The threads that were started after it was made.
class NewThreads {
 public:
  // Returns once there are none any more: a StopOnSignal has done all it will.
  void AwaitEnd() const {
    auto is_old = [&](const std::string& task) {
      return std::count(old_.begin(), old_.end(), task) > 0;
    };
    while (true) {
      const std::vector<std::string> now = Threads();
      if (std::all_of(now.begin(), now.end(), is_old)) return;
      sched_yield();
    }
  }

 private:
  const std::vector<std::string> old_ = Threads();
};

TEST(StopOnSignal, CancelsAllThatIsTiedToItForTheSignal) {
  FakeSignals signals;
  CancelScope first, second;
  NewThreads listener;
  StopOnSignal stop(signals.service());
  stop.Tie(first);
  stop.Tie(second);
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  listener.AwaitEnd();
  for (const CancelScope* scope : {&first, &second}) {
    EXPECT_TRUE(absl::IsCancelled(scope->status()));
    EXPECT_THAT(std::string(scope->status().message()),
                HasSubstr("SIGTERM from pid"));
  }
  EXPECT_TRUE(stop.stop_token().stop_requested());
  CancelScope late;
  stop.Tie(late);
  EXPECT_THAT(std::string(late.status().message()),
              HasSubstr("SIGTERM from pid"));
}

TEST(StopOnSignal, CancelsNothingThatIsTiedToItBeforeItIsStopped) {
  FakeSignals signals;
  CancelScope scope;
  {
    StopOnSignal stop(signals.service());
    stop.Tie(scope);
    EXPECT_FALSE(stop.cause().has_value());
  }
  EXPECT_FALSE(scope.cancelled());
}

TEST(StopOnSignal, HearsItsSignalsAlone) {
  FakeSignals signals;
  SignalReceiver other = OpenReceiver(signals.service(), {SIGTERM});
  NewThreads listener;
  StopOnSignal stop(signals.service(), {SIGUSR1, SIGUSR2});
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGUSR2).ok());
  listener.AwaitEnd();
  EXPECT_EQ(stop.cause()->signum, SIGUSR2);
}

TEST(StopOnSignal, KeepsHowItWasStoppedFirst) {
  FakeSignals signals;
  {
    CancelScope outer;
    NewThreads listener;
    StopOnSignal stop(signals.service());
    CancelScope tied({.shield = true});
    stop.Tie(tied);
    outer.Cancel();
    EXPECT_TRUE(tied.cancelled());
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    listener.AwaitEnd();
    EXPECT_FALSE(stop.cause().has_value()) << "the scope was first";
  }
  {
    CancelScope outer;
    NewThreads listener;
    StopOnSignal stop(signals.service());
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    listener.AwaitEnd();
    outer.Cancel();
    ASSERT_TRUE(stop.cause().has_value()) << "the signal was first";
    EXPECT_EQ(stop.cause()->signum, SIGTERM);
  }
}

TEST(StopOnSignal, ThatCannotListenIsStoppedWithItsScopeAllTheSame) {
  FakeSignals signals;
  CancelScope outer;
  StopOnSignal stop(signals.service(), {SIGKILL});
  CancelScope tied({.shield = true});
  stop.Tie(tied);
  EXPECT_FALSE(stop.stop_token().stop_requested());
  outer.Cancel();
  EXPECT_TRUE(stop.stop_token().stop_requested());
  EXPECT_TRUE(tied.cancelled());
}

// Else they would hang.
TEST(StopOnSignal, CanBeAskedAndTiedToByWhatTheStopRuns) {
  FakeSignals signals;
  CancelScope tied, tied_by_token, tied_by_scope;
  StopOnSignal stop(signals.service());
  stop.Tie(tied);
  std::latch over(2);
  auto use = [&](CancelScope& scope) {
    EXPECT_EQ(stop.cause()->signum, SIGTERM);
    stop.Tie(scope);
    EXPECT_THAT(std::string(scope.status().message()),
                HasSubstr("SIGTERM from pid"));
    over.count_down();
  };
  std::stop_callback on_token(stop.stop_token(), [&] { use(tied_by_token); });
  std::stop_callback on_scope(tied.stop_token(), [&] { use(tied_by_scope); });
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  over.wait();
}

TEST(StopOnSignal, GivesTheSignalsBackBeforeItsCallbacksRun) {
  auto service = StartService();
  CancelScope tied;
  StopOnSignal stop(*service, {SIGTERM, SIGINT});
  stop.Tie(tied);
  EXPECT_NE(Disposition(SIGINT).sa_handler, SIG_DFL);
  std::latch over(2);
  auto look = [&] {
    EXPECT_EQ(Disposition(SIGINT).sa_handler, SIG_DFL);
    EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
    over.count_down();
  };
  std::stop_callback on_token(stop.stop_token(), look);
  std::stop_callback on_scope(tied.stop_token(), look);
  SendSelf(SIGTERM);
  over.wait();
}

TEST(StopOnSignal, WaitsInItsEndForACallbackThatRuns) {
  FakeSignals signals;
  for (const bool by_signal : {true, false}) {
    SCOPED_TRACE(by_signal);
    CancelScope outer;
    std::optional<StopOnSignal> stop(std::in_place, signals.service());
    std::latch running(1), release(1);
    std::stop_callback hangs(stop->stop_token(), [&] {
      running.count_down();
      release.wait();
    });
    std::optional<ScopedThread> canceller;
    if (by_signal) {
      EXPECT_TRUE(signals.Send(SIGTERM).ok());
    } else {
      canceller.emplace([&] { outer.Cancel(); });
    }
    running.wait();
    std::atomic<bool> over = false;
    ScopedThread end([&] {
      stop.reset();
      over = true;
    });
    end.AwaitAsleep();
    EXPECT_FALSE(over);
    release.count_down();
  }
}

// P5
TEST(StopOnSignalDeathTest, ASecondSignalHasItsPreviousEffect) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        StopOnSignal stop(*service);
        SendSelf(SIGTERM);
        while (!stop.cause().has_value()) sched_yield();
        SendSelf(SIGINT);
        _exit(0);
      },
      KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace tocsin
