// What a receiver gives its reader, with real signals.
#include "tocsin/signals/signal_receiver.h"

#include <csignal>
#include <latch>
#include <optional>
#include <sstream>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::ElementsAre;

// G01, S1
TEST(SignalReceiver, ReceivesASignalWithItsSender) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  const absl::Time before = absl::Now();
  SendSelf(SIGTERM);
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, SIGTERM);
  EXPECT_EQ(event.count, 1);
  EXPECT_EQ(event.origin, SignalEvent::Origin::kUser);
  ASSERT_TRUE(event.sender.has_value());
  EXPECT_EQ(event.sender->pid, getpid());
  EXPECT_EQ(event.sender->uid, getuid());
  EXPECT_GE(event.received_at, before);
}

// G02, T5: directed at a thread, the main one and another.
TEST(SignalReceiver, ReceivesASignalThatIsDirectedAtAThread) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  ASSERT_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  std::latch received(1);
  std::thread thread([&] { received.wait(); });
  ASSERT_EQ(pthread_kill(thread.native_handle(), SIGUSR1), 0);
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  received.count_down();
  thread.join();
}

// T4
TEST(SignalReceiver, ReceivesWhatAWorkerRaises) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGUSR2});
  std::thread([] {
    EXPECT_TRUE(Raise(SIGUSR1).ok());
    EXPECT_EQ(raise(SIGUSR2), 0);  // to this thread, which does not block it
  }).join();
  std::vector<int> received = {Next(receiver).signum, Next(receiver).signum};
  EXPECT_THAT(received, testing::UnorderedElementsAre(SIGUSR1, SIGUSR2));
}

// R1
TEST(SignalReceiver, KeepsSignalsThatComeBeforeTheFirstReceive) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  QueueSelf(SIGRTMIN, 7);
  QueueSelf(SIGRTMIN, 8);
  const SignalEvent first = Next(receiver);
  EXPECT_EQ(first.signum, SIGRTMIN);
  EXPECT_EQ(first.origin, SignalEvent::Origin::kQueue);
  EXPECT_EQ(first.value->sival_int, 7);
  EXPECT_EQ(Next(receiver).value->sival_int, 8);
}

// R2
TEST(SignalReceiver, IterationCanBeLeftAndTakenUpAgain) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  for (int value = 1; value <= 4; ++value) QueueSelf(SIGRTMIN, value);
  std::vector<int> values;
  for (const SignalEvent& event : receiver) {
    values.push_back(event.value->sival_int);
    if (values.size() == 2) break;
  }
  EXPECT_FALSE(receiver.closed());
  for (const SignalEvent& event : receiver) {
    values.push_back(event.value->sival_int);
    if (values.size() == 4) break;
  }
  EXPECT_THAT(values, ElementsAre(1, 2, 3, 4));
}

// R3
TEST(SignalReceiver, TryReceiveTakesWhatIsQueuedAndNeverWaits) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  EXPECT_FALSE(receiver.TryReceive().ok());
  SendSelf(SIGUSR1);
  Next(witness);  // opened later, so it is served after `receiver`
  const absl::StatusOr<SignalEvent> event = receiver.TryReceive();
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(event->signum, SIGUSR1);
  EXPECT_FALSE(receiver.TryReceive().ok());
}

// R4
TEST(SignalReceiver, ReceiveForEndsWithTheTimeoutOrTheSignal) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  for (absl::Duration over : {absl::Milliseconds(1), absl::ZeroDuration(),
                              -absl::Seconds(1), -absl::InfiniteDuration()}) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(receiver.ReceiveFor(over).status()));
  }
  std::thread sender([] { SendSelf(SIGUSR1); });
  EXPECT_EQ(receiver.ReceiveFor(absl::InfiniteDuration())->signum, SIGUSR1);
  sender.join();
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  Next(witness);
  EXPECT_EQ(receiver.ReceiveFor(absl::ZeroDuration())->signum, SIGUSR1);
}

// Whether its thread has offered a slot, as for a standard signal, or not.
TEST(SignalReceiver, ATimeoutEndsAWaitForAnySignal) {
  auto service = StartService();
  for (int signum : {SIGUSR1, SIGRTMIN}) {
    SignalReceiver receiver = OpenReceiver(*service, {signum});
    EXPECT_EQ(receiver.ReceiveFor(absl::Milliseconds(1)).status(),
              absl::DeadlineExceededError("the timeout of the call passed"));
    CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(receiver.ReceiveFor(absl::Hours(1)).status()));
  }
}

TEST(SignalReceiver, AWaitEndsWithTheScopeAroundIt) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  {
    CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
    EXPECT_TRUE(absl::IsDeadlineExceeded(receiver.Receive().status()));
  }
  CancelScope* scope = nullptr;
  std::latch entered(1);
  std::thread reader([&] {
    CancelScope inner;
    scope = &inner;
    entered.count_down();
    for ([[maybe_unused]] const SignalEvent& event : receiver) ADD_FAILURE();
    EXPECT_EQ(CheckCancelled().message(), "enough");
    EXPECT_FALSE(receiver.closed());
  });
  entered.wait();
  scope->Cancel(absl::CancelledError("enough"));
  reader.join();
}

TEST(SignalReceiver, AJthreadJoinsInWithOneLine) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGHUP});
  std::latch reloaded(1);
  std::jthread reloader([&](std::stop_token stop) {
    CancelScope scope(stop);
    for ([[maybe_unused]] const SignalEvent& event : receiver) {
      reloaded.count_down();
    }
  });
  SendSelf(SIGHUP);
  reloaded.wait();
}  // asks the thread to stop and joins it

TEST(SignalReceiver, NothingIsTakenInACancelledScope) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  Next(witness);
  {
    CancelScope scope;
    scope.Cancel();
    EXPECT_TRUE(absl::IsCancelled(receiver.Receive().status()));
  }
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
}

// R6
TEST(SignalReceiver, CloseWakesAllWhoWait) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      for ([[maybe_unused]] const SignalEvent& event : receiver) ADD_FAILURE();
      EXPECT_TRUE(receiver.closed());
    });
  }
  receiver.Close();
  for (std::thread& reader : readers) reader.join();
}

// R7, R8
TEST(SignalReceiver, AfterCloseTheQueueDrainsAndThenEnds) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  SignalReceiver witness = OpenReceiver(*service, {SIGRTMIN});
  for (int value = 1; value <= 3; ++value) QueueSelf(SIGRTMIN, value);
  for (int i = 0; i < 3; ++i) Next(witness);
  receiver.Close();
  receiver.Close();
  std::vector<int> values;
  for (const SignalEvent& event : receiver) {
    values.push_back(event.value->sival_int);
  }
  EXPECT_THAT(values, ElementsAre(1, 2, 3));
  EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));
  EXPECT_TRUE(
      absl::IsOutOfRange(receiver.ReceiveFor(absl::ZeroDuration()).status()));
}

// R9
TEST(SignalReceiver, ASignalOpenedWhileTheServiceWaitsIsReceived) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  Next(first);
  SignalReceiver second = OpenReceiver(*service, {SIGUSR2});
  SendSelf(SIGUSR2);
  EXPECT_EQ(Next(second).signum, SIGUSR2);
}

// G06, F1, F2
TEST(SignalReceiver, EveryReceiverOfASignalGetsIt) {
  auto service = StartService();
  SignalReceiver outer = OpenReceiver(*service, {SIGTERM, SIGUSR1});
  {
    SignalReceiver inner = OpenReceiver(*service, {SIGTERM});
    SendSelf(SIGTERM);
    EXPECT_EQ(Next(inner).signum, SIGTERM);
    EXPECT_EQ(Next(outer).signum, SIGTERM);
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(outer).signum, SIGUSR1);
    EXPECT_FALSE(inner.TryReceive().ok());
  }
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(outer).signum, SIGTERM);
}

// F3
TEST(SignalReceiver, OneThatNobodyReadsDelaysNobody) {
  auto service = StartService();
  ReceiverOptions discard;
  discard.on_close = ReceiverOptions::OnClose::kDiscard;
  SignalReceiver unread = OpenReceiver(*service, {SIGRTMIN, SIGUSR1}, discard);
  SignalReceiver read = OpenReceiver(*service, {SIGRTMIN});
  for (int value = 0; value < 3000; ++value) {
    QueueSelf(SIGRTMIN, value);
    EXPECT_EQ(Next(read).value->sival_int, value);
  }
  EXPECT_EQ(unread.dropped(), 3000u - 1024u);
  EXPECT_EQ(service->stats().dropped, 3000u - 1024u);
}

// F4
TEST(SignalReceiver, ClosingOneOfThreeLeavesTheOthersAlone) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  std::optional<SignalReceiver> second(OpenReceiver(*service, {SIGUSR1}));
  SignalReceiver third = OpenReceiver(*service, {SIGUSR1});
  second.reset();
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(first).signum, SIGUSR1);
  EXPECT_EQ(Next(third).signum, SIGUSR1);
}

// O1, O4
TEST(SignalReceiver, StandardSignalsMergeAndAreCounted) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGUSR2});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1, SIGUSR2});
  for (int signum : {SIGUSR1, SIGUSR2, SIGUSR1, SIGUSR1}) {
    SendSelf(signum);
    EXPECT_EQ(Next(witness).signum, signum);
  }
  const SignalEvent merged = Next(receiver);
  EXPECT_EQ(merged.signum, SIGUSR1);
  EXPECT_EQ(merged.count, 3);
  const SignalEvent single = Next(receiver);
  EXPECT_EQ(single.signum, SIGUSR2);
  EXPECT_EQ(single.count, 1);
  EXPECT_EQ(service->stats().merged, 2u);
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(receiver).count, 1);
}

TEST(SignalReceiver, EachEventGoesToOneOfSeveralReaders) {
  constexpr int kEvents = 500;
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGRTMIN}, {.capacity = kEvents});
  std::vector<std::atomic<int>> seen(kEvents);
  std::vector<std::thread> readers;
  std::latch all(kEvents);
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      for (const SignalEvent& event : receiver) {
        ++seen[static_cast<size_t>(event.value->sival_int)];
        all.count_down();
      }
    });
  }
  for (int value = 0; value < kEvents; ++value) QueueSelf(SIGRTMIN, value);
  all.wait();
  receiver.Close();
  for (std::thread& reader : readers) reader.join();
  for (const std::atomic<int>& times : seen) EXPECT_EQ(times, 1);
}

TEST(SignalReceiver, AMovedReceiverGoesOnReceiving) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  SignalReceiver second = std::move(first);
  EXPECT_EQ(Next(second).signum, SIGUSR1);
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(second).signum, SIGUSR1);
}

}  // namespace
}  // namespace tocsin
