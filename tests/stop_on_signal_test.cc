#include "tocsin/signals/stop_on_signal.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <latch>
#include <memory>
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

using ::testing::KilledBySignal;

absl::Status WaitForEver() { return Event().Wait(); }

// P1
TEST(StopOnSignal, ASignalRequestsTheTokenAndIsTheCause) {
  auto service = StartService();
  auto stop = StopOnSignal::Start(*service, {SIGINT, SIGTERM}).value();
  EXPECT_FALSE(stop->cause().has_value());
  std::latch stopped(1);
  std::stop_callback callback(stop->stop_token(),
                              [&] { stopped.count_down(); });
  EXPECT_FALSE(stop->stop_token().stop_requested());
  SendSelf(SIGINT);
  stopped.wait();
  EXPECT_EQ(stop->cause()->signum, SIGINT);
  EXPECT_EQ(stop->cause()->sender->pid, getpid());
}

// P11
TEST(StopOnSignal, CancelsAndJoinsTheTasksOfAScopeOfItsToken) {
  FakeSignals signals;
  auto stop = StopOnSignal::Start(signals.service()).value();
  CancelScope scope(stop->stop_token());
  TaskGroup group;
  for (int i = 0; i < 8; ++i) {
    group.Spawn([] { EXPECT_TRUE(absl::IsCancelled(WaitForEver())); });
  }
  std::latch running(1);
  group.Spawn([&] { running.count_down(); });
  running.wait();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  group.Wait().IgnoreError();
  EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
  EXPECT_THAT(CheckCancelled().message(), testing::HasSubstr("SIGTERM"));
  EXPECT_EQ(stop->cause()->signum, SIGTERM);
}

TEST(StopOnSignal, CancelsAtOnceAScopeThatIsMadeLater) {
  FakeSignals signals;
  auto stop = StopOnSignal::Start(signals.service()).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  while (!stop->stop_token().stop_requested()) sched_yield();
  CancelScope scope(stop->stop_token());
  EXPECT_TRUE(absl::IsCancelled(CheckCancelled()));
  EXPECT_THAT(CheckCancelled().message(), testing::HasSubstr("SIGTERM"));
}

TEST(StopOnSignal, HandsOnTheReasonOfItsScope) {
  FakeSignals signals;
  CancelScope outer;
  auto stop = StopOnSignal::Start(signals.service()).value();
  outer.Cancel(absl::CancelledError("disk full"));
  CancelScope shield({.shield = true});
  CancelScope scope(stop->stop_token());
  EXPECT_EQ(CheckCancelled().message(), "disk full");
  EXPECT_FALSE(stop->cause().has_value());
}

// Issue 18: a scope that was tied to it had to outlive it.
TEST(StopOnSignal, ScopesOfItsTokenMayEndBeforeAndAfterIt) {
  FakeSignals signals;
  auto stop = StopOnSignal::Start(signals.service()).value();
  CancelScope after(stop->stop_token());
  { CancelScope before(stop->stop_token()); }
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  while (!after.cancelled()) sched_yield();
  const std::stop_token token = stop->stop_token();
  stop.reset();
  EXPECT_TRUE(token.stop_requested());
  EXPECT_TRUE(after.cancelled());
}

// P3
TEST(StopOnSignal, IsStoppedWithTheScopeThatItWasStartedIn) {
  FakeSignals signals;
  CancelScope outer;
  auto early = StopOnSignal::Start(signals.service()).value();
  EXPECT_FALSE(early->stop_token().stop_requested());
  outer.Cancel();
  EXPECT_TRUE(early->stop_token().stop_requested());
  EXPECT_FALSE(early->cause().has_value());
  auto late = StopOnSignal::Start(signals.service()).value();
  EXPECT_TRUE(late->stop_token().stop_requested());
  EXPECT_FALSE(late->cause().has_value());
}

// It is in nobody's way: the scope may end first, and it may be destroyed by
// another thread.
TEST(StopOnSignal, MayOutliveTheScopeThatItWasStartedIn) {
  FakeSignals signals;
  std::unique_ptr<StopOnSignal> stop;
  std::stop_token token;
  {
    CancelScope outer;
    stop = StopOnSignal::Start(signals.service()).value();
    token = stop->stop_token();
  }
  EXPECT_FALSE(token.stop_requested());
  std::latch stopped(1);
  std::stop_callback count(token, [&] { stopped.count_down(); });
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  stopped.wait();
  std::thread([&] { stop.reset(); }).join();
}

TEST(StopOnSignal, RunsItsCallbacksOnAThreadOfItsOwn) {
  auto service = StartService();
  auto stop = StopOnSignal::Start(*service).value();
  std::latch stopped(1);
  std::string name(16, '\0');
  std::stop_callback callback(stop->stop_token(), [&] {
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
  auto stop = StopOnSignal::Start(*service).value();
  SendSelf(SIGINT);
  SendSelf(SIGTERM);
  while (!stop->cause().has_value()) sched_yield();
  EXPECT_EQ(stop->cause()->signum, SIGTERM);
  SetDisposition(SIGINT, SIG_DFL);
}

TEST(StopOnSignal, TellsWhyItCannotListen) {
  FakeSignals signals;
  EXPECT_TRUE(absl::IsInvalidArgument(
      StopOnSignal::Start(signals.service(), {SIGKILL}).status()));
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

TEST(StopOnSignal, CancelsAllScopesOfItsToken) {
  FakeSignals signals;
  NewThreads listener;
  auto stop = StopOnSignal::Start(signals.service()).value();
  CancelScope first(stop->stop_token());
  CancelScope second({.shield = true});
  CancelScope third(stop->stop_token());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  listener.AwaitEnd();
  EXPECT_TRUE(absl::IsCancelled(first.status()));
  EXPECT_FALSE(second.cancelled());
  EXPECT_TRUE(absl::IsCancelled(third.status()));
  EXPECT_TRUE(stop->stop_token().stop_requested());
}

TEST(StopOnSignal, CancelsNothingBeforeItIsStopped) {
  FakeSignals signals;
  auto stop = StopOnSignal::Start(signals.service()).value();
  CancelScope scope(stop->stop_token());
  EXPECT_FALSE(stop->cause().has_value());
  stop.reset();
  EXPECT_FALSE(scope.cancelled());
}

TEST(StopOnSignal, HearsItsSignalsAlone) {
  FakeSignals signals;
  SignalReceiver other = OpenReceiver(signals.service(), {SIGTERM});
  NewThreads listener;
  auto stop =
      StopOnSignal::Start(signals.service(), {SIGUSR1, SIGUSR2}).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGUSR2).ok());
  listener.AwaitEnd();
  EXPECT_EQ(stop->cause()->signum, SIGUSR2);
}

TEST(StopOnSignal, KeepsHowItWasStoppedFirst) {
  FakeSignals signals;
  {
    CancelScope outer;
    NewThreads listener;
    auto stop = StopOnSignal::Start(signals.service()).value();
    outer.Cancel();
    EXPECT_TRUE(stop->stop_token().stop_requested());
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    listener.AwaitEnd();
    EXPECT_FALSE(stop->cause().has_value()) << "the scope was first";
  }
  {
    CancelScope outer;
    NewThreads listener;
    auto stop = StopOnSignal::Start(signals.service()).value();
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    listener.AwaitEnd();
    outer.Cancel();
    ASSERT_TRUE(stop->cause().has_value()) << "the signal was first";
    EXPECT_EQ(stop->cause()->signum, SIGTERM);
  }
}

// Else they would hang.
TEST(StopOnSignal, CanBeAskedByWhatTheStopRuns) {
  FakeSignals signals;
  auto stop = StopOnSignal::Start(signals.service()).value();
  CancelScope scope(stop->stop_token());
  std::latch over(2);
  auto ask = [&] {
    EXPECT_EQ(stop->cause()->signum, SIGTERM);
    CancelScope late(stop->stop_token());
    EXPECT_TRUE(late.cancelled());
    over.count_down();
  };
  std::stop_callback on_token(stop->stop_token(), ask);
  std::stop_callback on_scope(scope.stop_token(), ask);
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  over.wait();
}

TEST(StopOnSignal, GivesTheSignalsBackBeforeItsCallbacksRun) {
  auto service = StartService();
  auto stop = StopOnSignal::Start(*service, {SIGTERM, SIGINT}).value();
  EXPECT_NE(Disposition(SIGINT).sa_handler, SIG_DFL);
  std::latch over(1);
  std::stop_callback look(stop->stop_token(), [&] {
    EXPECT_EQ(Disposition(SIGINT).sa_handler, SIG_DFL);
    EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
    over.count_down();
  });
  SendSelf(SIGTERM);
  over.wait();
}

TEST(StopOnSignal, WaitsInItsEndForACallbackThatRuns) {
  FakeSignals signals;
  for (const bool by_signal : {true, false}) {
    SCOPED_TRACE(by_signal);
    CancelScope outer;
    auto stop = StopOnSignal::Start(signals.service()).value();
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
        auto stop = StopOnSignal::Start(*service).value();
        SendSelf(SIGTERM);
        while (!stop->cause().has_value()) sched_yield();
        SendSelf(SIGINT);
        _exit(0);
      },
      KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace tocsin
