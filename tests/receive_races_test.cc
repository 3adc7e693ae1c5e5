// The windows in Receive(), each held open at its step: what comes between the
// look at the queue and the sleep, and between the sleep and the next look.
#include <csignal>
#include <ctime>
#include <latch>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscription.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

constexpr char kFoundNothing[] = "Receive: found nothing";
constexpr char kAboutToSleep[] = "Receive: about to sleep";
constexpr char kInTheRoom[] = "WaitingRoom: about to sleep";
constexpr char kWaitIsOver[] = "Receive: wait is over";

// A thread in Receive(), or ReceiveFor().
class Reader {
 public:
  explicit Reader(SignalReceiver& receiver,
                  absl::Duration timeout = absl::InfiniteDuration())
      : thread_([this, &receiver, timeout] {
          task_ = TaskOfThisThread();
          started_.count_down();
          result_ = timeout == absl::InfiniteDuration()
                        ? receiver.Receive()
                        : receiver.ReceiveFor(timeout);
        }) {}

  void AwaitAsleep() { thread_.AwaitAsleep(); }
  void Cancel() { thread_.scope().Cancel(); }
  // Its thread, as a task.
  const std::string& task() const {
    started_.wait();
    return task_;
  }

  // Waits until it is back.
  const absl::StatusOr<SignalEvent>& Result() {
    thread_.Join();
    return result_;
  }
  absl::StatusCode Code() { return Result().status().code(); }
  // 0 if it got none.
  int Signum() { return Result().ok() ? result_->signum : 0; }
  int Value() { return Result().ok() ? result_->value->sival_int : -1; }

 private:
  absl::StatusOr<SignalEvent> result_ = absl::UnknownError("not back");
  std::string task_;
  std::latch started_{1};
  ScopedThread thread_;
};

void SendQueued(FakeSignals& signals, int signum, int value) {
  SignalEvent event;
  event.signum = signum;
  event.origin = SignalEvent::Origin::kQueue;
  event.value = sigval{.sival_int = value};
  ASSERT_TRUE(signals.Send(event).ok());
}

class ReceiveRaces : public testing::TestWithParam<const char*> {
 protected:
  FakeSignals signals_;
  SignalReceiver receiver_ =
      OpenReceiver(signals_.service(), {SIGUSR1, SIGUSR2, SIGRTMIN});
};

// On the way into the sleep.
class BeforeTheSleep : public ReceiveRaces {};

TEST_P(BeforeTheSleep, ASignalIsReceived) {
  HeldAt held(GetParam());
  Reader reader(receiver_);
  held.AwaitThread();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  held.Release();
  EXPECT_EQ(reader.Signum(), SIGUSR1);
}

TEST_P(BeforeTheSleep, ACloseEndsTheWait) {
  HeldAt held(GetParam());
  Reader reader(receiver_);
  held.AwaitThread();
  receiver_.Close();
  held.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kOutOfRange);
}

TEST_P(BeforeTheSleep, ACancelEndsTheWait) {
  HeldAt held(GetParam());
  Reader reader(receiver_);
  held.AwaitThread();
  reader.Cancel();
  held.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kCancelled);
}

TEST_P(BeforeTheSleep, TheClockMayPassTheTimeout) {
  HeldAt held(GetParam());
  Reader reader(receiver_, absl::Hours(1));
  held.AwaitThread();
  signals_.Advance(absl::Hours(1));
  held.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kDeadlineExceeded);
}

// One for each that waits, though the first has not got to sleep yet.
TEST_P(BeforeTheSleep, SeveralSignalsAreReceivedByAsMany) {
  HeldAt held(GetParam());
  Reader first(receiver_);
  held.AwaitThread();
  Reader second(receiver_);
  second.AwaitAsleep();
  SendQueued(signals_, SIGRTMIN, 1);
  SendQueued(signals_, SIGRTMIN, 2);
  // The second was picked for one of them, and finds the older one.
  EXPECT_EQ(second.Value(), 1);
  held.Release();
  EXPECT_EQ(first.Value(), 2);
}

INSTANTIATE_TEST_SUITE_P(, BeforeTheSleep,
                         testing::Values(kFoundNothing, kAboutToSleep,
                                         kInTheRoom),
                         [](const auto& tested) {
                           const std::string step = tested.param;
                           return step == kFoundNothing   ? "OutOfTheLine"
                                  : step == kAboutToSleep ? "InTheLine"
                                                          : "InTheRoom";
                         });

// On the way out of it: the thread is still in the line, or was picked.
class AfterTheSleep : public ReceiveRaces {
 protected:
  HeldAt over_{kWaitIsOver};
};

// A reader that stands in the line, or offers its slot, and whose wait a cancel
// has ended, but for the last look.
class CancelledReader {
 public:
  explicit CancelledReader(SignalReceiver& receiver) : reader_(receiver) {
    about_to_sleep_.AwaitThread();
    reader_.Cancel();
    about_to_sleep_.Release();
    over_.AwaitThread();
  }

  Reader& Release() {
    over_.Release();
    return reader_;
  }

 private:
  HeldAt about_to_sleep_{kAboutToSleep};
  HeldAt over_{kWaitIsOver};
  Reader reader_;
};

using CancelledAfterTheSleep = ReceiveRaces;

TEST_F(CancelledAfterTheSleep, AThreadReturnsWhatItWasPickedFor) {
  CancelledReader reader(receiver_);
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  EXPECT_EQ(reader.Release().Signum(), SIGUSR1);
  EXPECT_FALSE(receiver_.TryReceive().ok());
}

TEST_F(CancelledAfterTheSleep, AThreadLeavesTheLineToTheOthers) {
  CancelledReader cancelled(receiver_);
  Reader other(receiver_);
  other.AwaitAsleep();
  EXPECT_EQ(cancelled.Release().Code(), absl::StatusCode::kCancelled);
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  EXPECT_EQ(other.Signum(), SIGUSR1);
}

TEST_F(CancelledAfterTheSleep, AThreadWhoseEventWasTakenIsCancelled) {
  CancelledReader reader(receiver_);
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  EXPECT_TRUE(receiver_.TryReceive().ok());
  EXPECT_EQ(reader.Release().Code(), absl::StatusCode::kCancelled);
}

TEST_F(CancelledAfterTheSleep, AThreadIsCancelledThoughTheReceiverWasClosed) {
  CancelledReader reader(receiver_);
  receiver_.Close();
  EXPECT_EQ(reader.Release().Code(), absl::StatusCode::kCancelled);
}

TEST_F(AfterTheSleep, AThreadWhoseEventWasTakenGetsBackIntoTheLine) {
  Reader reader(receiver_);
  reader.AwaitAsleep();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.AwaitThread();
  EXPECT_TRUE(receiver_.TryReceive().ok());
  HeldAt again(kAboutToSleep);
  over_.Release();
  again.AwaitThread();
  ASSERT_TRUE(signals_.Send(SIGUSR2).ok());
  again.Release();
  EXPECT_EQ(reader.Signum(), SIGUSR2);
}

TEST_F(AfterTheSleep, AThreadWhoseEventWasTakenWaitsBehindTheOthers) {
  Reader first(receiver_);
  first.AwaitAsleep();
  Reader second(receiver_);
  second.AwaitAsleep();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.AwaitThread();
  EXPECT_TRUE(receiver_.TryReceive().ok());
  HeldAt again(kAboutToSleep);
  over_.Release();
  again.AwaitThread();
  SendQueued(signals_, SIGRTMIN, 1);
  SendQueued(signals_, SIGRTMIN, 2);
  EXPECT_EQ(second.Value(), 1);
  again.Release();
  EXPECT_EQ(first.Value(), 2);
}

// It is picked once more, for the close.
TEST_F(AfterTheSleep, AThreadWhoseEventWasTakenIsToldOfTheEnd) {
  Reader reader(receiver_);
  reader.AwaitAsleep();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.AwaitThread();
  EXPECT_TRUE(receiver_.TryReceive().ok());
  HeldAt again(kAboutToSleep);
  over_.Release();
  again.AwaitThread();
  receiver_.Close();
  again.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kOutOfRange);
}

TEST_F(AfterTheSleep, OneThreadIsPickedForEachEvent) {
  Reader first(receiver_);
  first.AwaitAsleep();
  Reader second(receiver_);
  second.AwaitAsleep();
  SendQueued(signals_, SIGRTMIN, 1);
  over_.AwaitThread();
  SendQueued(signals_, SIGRTMIN, 2);
  EXPECT_EQ(second.Value(), 1);
  over_.Release();
  EXPECT_EQ(first.Value(), 2);
}

TEST_F(AfterTheSleep, WhatMergesIsForTheThreadThatWasPicked) {
  Reader first(receiver_);
  first.AwaitAsleep();
  Reader second(receiver_);
  second.AwaitAsleep();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.AwaitThread();
  over_.Release();
  ASSERT_EQ(first.Signum(), SIGUSR1);
  ASSERT_TRUE(signals_.Send(SIGUSR2).ok());
  EXPECT_EQ(second.Signum(), SIGUSR2);
}

TEST_F(AfterTheSleep, ACloseDoesNotTakeTheEventAway) {
  Reader reader(receiver_);
  reader.AwaitAsleep();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.AwaitThread();
  receiver_.Close();
  over_.Release();
  EXPECT_EQ(reader.Signum(), SIGUSR1);
  EXPECT_TRUE(absl::IsOutOfRange(receiver_.Receive().status()));
}

TEST_F(AfterTheSleep, ASignalComesBeforeTheTimeoutThatIsOver) {
  Reader reader(receiver_, absl::Hours(1));
  reader.AwaitAsleep();
  signals_.Advance(absl::Hours(1));
  over_.AwaitThread();
  ASSERT_TRUE(signals_.Send(SIGUSR1).ok());
  over_.Release();
  EXPECT_EQ(reader.Signum(), SIGUSR1);
}

// Threads stand in the line in the order of their coming. Whoever leaves it,
// the others and those who come later are in it.
TEST(Line, IsWholeWhenAThreadLeavesItAnywhere) {
  for (int count = 1; count <= 3; ++count) {
    for (int leaver = 0; leaver < count; ++leaver) {
      FakeSignals signals;
      SignalReceiver receiver = OpenReceiver(signals.service(), {SIGRTMIN});
      std::vector<std::unique_ptr<Reader>> line;
      const auto join = [&] {
        line.push_back(std::make_unique<Reader>(receiver));
        line.back()->AwaitAsleep();
      };
      for (int i = 0; i < count; ++i) join();
      line[leaver]->Cancel();
      EXPECT_EQ(line[leaver]->Code(), absl::StatusCode::kCancelled);
      line.erase(line.begin() + leaver);
      join();
      join();
      for (size_t i = 0; i < line.size(); ++i) {
        SendQueued(signals, SIGRTMIN, static_cast<int>(i));
        EXPECT_EQ(line[i]->Value(), static_cast<int>(i));
      }
    }
  }
}

TEST(Line, EndsWithTheReceiver) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGRTMIN});
  Reader first(receiver);
  first.AwaitAsleep();
  Reader second(receiver);
  second.AwaitAsleep();
  receiver.Close();
  EXPECT_EQ(first.Code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(second.Code(), absl::StatusCode::kOutOfRange);
}

// With real signals.

TEST(RealReceiveRaces, ATimeoutThatIsOverLeavesNoEventToNobody) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  HeldAt over(kWaitIsOver);
  Reader reader(receiver, absl::Nanoseconds(1));
  over.AwaitThread();
  QueueSelf(SIGRTMIN, 7);
  while (service->stats().delivered == 0) sched_yield();
  over.Release();
  EXPECT_EQ(reader.Value(), 7);
}

// The handler leaves it in the slot of a thread that was cancelled, while
// another waits in the same receiver.
TEST(RealReceiveRaces, ACancelledThreadReturnsWhatIsLeftInItsSlot) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  CancelledReader cancelled(receiver);
  ASSERT_TRUE(internal::IsWaitedFor(SIGUSR1));
  Reader other(receiver);
  other.AwaitAsleep();
  QueueSelf(SIGUSR1, 1);
  ASSERT_FALSE(internal::IsWaitedFor(SIGUSR1));
  EXPECT_EQ(cancelled.Release().Value(), 1);
  QueueSelf(SIGUSR1, 2);
  EXPECT_EQ(other.Value(), 2);
}

// The value of the signal that is pending on this process; -1 if none is.
int TakePendingValue(int signum) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signum);
  siginfo_t info;
  const timespec now = {};
  if (sigtimedwait(&mask, &info, &now) != signum) return -1;
  return info.si_value.sival_int;
}

TEST(RealReceiveRaces, WhatALeaderTookIsSentAgainWhenItsReceiverWasClosed) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt over(kWaitIsOver);
  Reader reader(receiver);
  AwaitLeader(reader.task(), SIGUSR1);
  QueueSelf(SIGUSR1, 7);
  over.AwaitThread();
  receiver.Close();
  EXPECT_EQ(TakePendingValue(SIGUSR1), -1);
  over.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(TakePendingValue(SIGUSR1), 7);
  EXPECT_EQ(service->stats().redelivered, 1u);
}

TEST(RealReceiveRaces, WhatALeaderTookIsDiscardedIfItsReceiverSaysSo) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(
      *service, {SIGUSR1}, {.on_close = ReceiverOptions::OnClose::kDiscard});
  HeldAt over(kWaitIsOver);
  Reader reader(receiver);
  AwaitLeader(reader.task(), SIGUSR1);
  QueueSelf(SIGUSR1, 7);
  over.AwaitThread();
  receiver.Close();
  over.Release();
  EXPECT_EQ(reader.Code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(TakePendingValue(SIGUSR1), -1);
  EXPECT_EQ(service->stats().discarded, 1u);
  EXPECT_EQ(service->stats().redelivered, 0u);
}

TEST(RealReceiveRaces, ACancelledLeaderReturnsWhatItTook) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt over(kWaitIsOver);
  Reader reader(receiver);
  AwaitLeader(reader.task(), SIGUSR1);
  QueueSelf(SIGUSR1, 7);
  over.AwaitThread();
  reader.Cancel();
  over.Release();
  EXPECT_EQ(reader.Value(), 7);
  EXPECT_EQ(TakePendingValue(SIGUSR1), -1);
}

// The watch.

class UntoldWatch final : public internal::SynchronousObserver {
 public:
  void OnSignal(const SignalEvent& event) override { ADD_FAILURE() << event; }
  internal::Instant alarm() const override { return internal::kNever; }
  void OnAlarm() override { ADD_FAILURE() << "no alarm is set"; }
};

class QuietDispatcher final : public internal::Dispatcher {
 public:
  void Die(int, absl::string_view report, const internal::LastWords&) override {
    ADD_FAILURE() << report;
  }
};

TEST(WatchRaces, ASignalOnItsWayToTheWatchIsNotShownOnceThatHasGone) {
  const auto dispatcher = std::make_shared<QuietDispatcher>();
  internal::Subscription subscription(dispatcher, {SIGUSR1}, {},
                                      /*watched=*/true);
  ASSERT_TRUE(subscription.Enter().ok());
  UntoldWatch watch;
  ASSERT_TRUE(dispatcher->Observe(watch).ok());
  AtStep unwatched("Dispatcher: about to show the observer a signal",
                   [&] { dispatcher->StopObserving(); });
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  EXPECT_TRUE(dispatcher->Dispatch(internal::RawSiginfo::From(info),
                                   /*redirected=*/false));
  EXPECT_TRUE(unwatched.passed());
  EXPECT_EQ(subscription.TryReceive()->signum, SIGUSR1);
}

}  // namespace
}  // namespace tocsin
