// What a receiver keeps, merges and drops, and what it gives back in the end,
// with signals of the test.
#include <csignal>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/testing/fake_signals.h"

namespace tocsin {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

void SendQueued(FakeSignals& signals, int signum, int value) {
  SignalEvent event;
  event.signum = signum;
  event.origin = SignalEvent::Origin::kQueue;
  event.value = sigval{.sival_int = value};
  ASSERT_TRUE(signals.Send(event).ok());
}

// The numbers of all that is queued.
std::vector<int> TakeAll(SignalReceiver& receiver) {
  std::vector<int> signums;
  for (auto event = receiver.TryReceive(); event.ok();
       event = receiver.TryReceive()) {
    signums.push_back(event->signum);
  }
  return signums;
}

std::vector<int> TakeValues(SignalReceiver& receiver) {
  std::vector<int> values;
  for (auto event = receiver.TryReceive(); event.ok();
       event = receiver.TryReceive()) {
    values.push_back(event->value->sival_int);
  }
  return values;
}

constexpr ReceiverOptions kDiscard = {.on_close =
                                          ReceiverOptions::OnClose::kDiscard};

TEST(Queue, IsInTheOrderOfArrival) {
  FakeSignals signals;
  SignalReceiver receiver =
      OpenReceiver(signals.service(), {SIGHUP, SIGUSR1, SIGTERM, SIGRTMIN});
  for (int signum : {SIGTERM, SIGRTMIN, SIGHUP, SIGRTMIN, SIGUSR1}) {
    ASSERT_TRUE(signals.Send(signum).ok());
  }
  EXPECT_THAT(TakeAll(receiver),
              ElementsAre(SIGTERM, SIGRTMIN, SIGHUP, SIGRTMIN, SIGUSR1));
}

TEST(Queue, KeepsOfMergedSignalsTheFirst) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGUSR1, SIGUSR2});
  const absl::Time first = signals.now();
  SendQueued(signals, SIGUSR1, 1);
  signals.Advance(absl::Seconds(1));
  SendQueued(signals, SIGUSR2, 2);
  SendQueued(signals, SIGUSR1, 3);
  SendQueued(signals, SIGUSR1, 4);
  SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, SIGUSR1);
  EXPECT_EQ(event.count, 3);
  EXPECT_EQ(event.value->sival_int, 1);
  EXPECT_EQ(event.received_at, first);
  event = Next(receiver);
  EXPECT_EQ(event.signum, SIGUSR2);
  EXPECT_EQ(event.count, 1);
  EXPECT_EQ(event.received_at, first + absl::Seconds(1));
  // One that was taken is merged with no more.
  for (int value : {5, 6}) {
    SendQueued(signals, SIGUSR1, value);
    const absl::StatusOr<SignalEvent> single = receiver.TryReceive();
    ASSERT_TRUE(single.ok());
    EXPECT_EQ(single->count, 1);
    EXPECT_EQ(single->value->sival_int, value);
  }
  EXPECT_FALSE(receiver.TryReceive().ok());
}

TEST(Queue, MergesNoRealTimeSignals) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGRTMIN});
  for (int value : {1, 2, 3}) SendQueued(signals, SIGRTMIN, value);
  EXPECT_THAT(TakeValues(receiver), ElementsAre(1, 2, 3));
  EXPECT_EQ(signals.service().stats().merged, 0u);
}

TEST(Queue, HasRoomForAsManyRealTimeSignalsAsWasAsked) {
  for (int capacity : {1, 2, 5}) {
    FakeSignals signals;
    SignalReceiver receiver = OpenReceiver(
        signals.service(), {SIGRTMIN, SIGRTMIN + 1}, {.capacity = capacity});
    std::vector<int> values;
    for (int value = 0; value < capacity; ++value) {
      SendQueued(signals, SIGRTMIN + value % 2, value);
      values.push_back(value);
    }
    EXPECT_EQ(receiver.dropped(), 0u);
    for (int value : {-1, -2, -3}) SendQueued(signals, SIGRTMIN, value);
    EXPECT_EQ(receiver.dropped(), 3u);
    EXPECT_EQ(TakeValues(receiver), values);
    // With room again it drops none.
    for (int value : values) SendQueued(signals, SIGRTMIN, value);
    EXPECT_EQ(receiver.dropped(), 3u);
    EXPECT_EQ(TakeValues(receiver), values);
  }
}

TEST(Queue, ThatIsFullDropsForItselfOnly) {
  FakeSignals signals;
  SignalReceiver narrow =
      OpenReceiver(signals.service(), {SIGRTMIN}, {.capacity = 1});
  SignalReceiver wide =
      OpenReceiver(signals.service(), {SIGRTMIN}, {.capacity = 3});
  for (int value : {1, 2, 3, 4}) SendQueued(signals, SIGRTMIN, value);
  EXPECT_EQ(narrow.dropped(), 3u);
  EXPECT_EQ(wide.dropped(), 1u);
  EXPECT_EQ(signals.service().stats().dropped, 4u);
  EXPECT_EQ(signals.service().stats().delivered, 4u);
  EXPECT_EQ(signals.service().stats().received, 4u);
  EXPECT_THAT(TakeValues(narrow), ElementsAre(1));
  EXPECT_THAT(TakeValues(wide), ElementsAre(1, 2, 3));
}

// All of them at once, beside a full queue of the others, and over its ring
// many times.
TEST(Queue, DropsNoStandardSignalEver) {
  SignalSet all;
  std::vector<int> standard;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (!CheckReceivable({signum}).ok()) continue;
    all.insert(signum);
    if (signum < SIGRTMIN) standard.push_back(signum);
  }
  FakeSignals signals;
  SignalReceiver receiver =
      OpenReceiver(signals.service(), all, {.capacity = 3});
  for (int round = 0; round < 100; ++round) {
    // Something is left of the last round each time, so that it begins
    // anywhere.
    std::vector<int> expected;
    for (int signum : {SIGRTMIN, SIGRTMIN + 1, SIGRTMAX}) {
      ASSERT_TRUE(signals.Send(signum).ok());
      expected.push_back(signum);
    }
    ASSERT_TRUE(signals.Send(SIGRTMIN).ok());
    for (int signum : standard) {
      ASSERT_TRUE(signals.Send(signum).ok());
      expected.push_back(signum);
    }
    ASSERT_TRUE(signals.Send(SIGRTMIN).ok());
    ASSERT_TRUE(signals.Send(standard[round % standard.size()]).ok());
    ASSERT_EQ(TakeAll(receiver), expected);
  }
  EXPECT_EQ(receiver.dropped(), 200u);
  EXPECT_EQ(signals.service().stats().merged, 100u);
}

// However full it is meanwhile: the places are used again.
TEST(Queue, IsARingWithoutAnEnd) {
  FakeSignals signals;
  SignalReceiver receiver =
      OpenReceiver(signals.service(), {SIGUSR1, SIGRTMIN}, {.capacity = 4});
  int sent = 0;
  int next = 0;
  const auto send = [&] { SendQueued(signals, SIGRTMIN, sent++); };
  for (int i = 0; i < 3; ++i) send();
  for (int round = 0; round < 500; ++round) {
    send();
    SendQueued(signals, SIGUSR1, round);
    ASSERT_EQ(Next(receiver).value->sival_int, next++);
    SendQueued(signals, SIGUSR1, -1);
    // Behind those that were there before it.
    for (int i = 0; i < 3; ++i) {
      ASSERT_EQ(Next(receiver).value->sival_int, next++);
    }
    for (int i = 0; i < 3; ++i) send();
    const SignalEvent merged = Next(receiver);
    ASSERT_EQ(merged.signum, SIGUSR1);
    ASSERT_EQ(merged.count, 2);
    ASSERT_EQ(merged.value->sival_int, round);
  }
  EXPECT_EQ(receiver.dropped(), 0u);
}

TEST(Queue, IsTakenFromWhateverTheScope) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGUSR1});
  ASSERT_TRUE(signals.Send(SIGUSR1).ok());
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(receiver.Receive().status()));
  EXPECT_TRUE(
      absl::IsCancelled(receiver.ReceiveFor(absl::ZeroDuration()).status()));
  EXPECT_EQ(receiver.TryReceive()->signum, SIGUSR1);
}

TEST(Queue, EndsWithWhatWasInItAtTheClose) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGUSR1, SIGUSR2});
  SignalReceiver other = OpenReceiver(signals.service(), {SIGUSR1, SIGUSR2});
  ASSERT_TRUE(signals.Send(SIGUSR1).ok());
  receiver.Close();
  for (int signum : {SIGUSR1, SIGUSR2}) {
    ASSERT_TRUE(signals.Send(signum).ok());
  }
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, SIGUSR1);
  EXPECT_EQ(event.count, 1);
  EXPECT_EQ(receiver.Receive().status(),
            absl::OutOfRangeError("the receiver is closed"));
  EXPECT_EQ(receiver.ReceiveFor(-absl::Seconds(1)).status(),
            absl::OutOfRangeError("the receiver is closed"));
}

// Issue 18: an empty queue and the end of all looked the same.
TEST(Queue, TryReceiveTellsEmptyFromClosed) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGUSR1});
  EXPECT_EQ(receiver.TryReceive().status(), absl::UnavailableError(""));
  ASSERT_TRUE(signals.Send(SIGUSR1).ok());
  receiver.Close();
  EXPECT_EQ(receiver.TryReceive()->signum, SIGUSR1);
  EXPECT_EQ(receiver.TryReceive().status(),
            absl::OutOfRangeError("the receiver is closed"));
}

// Issue 18: an orderly end by Close() was told as an error.
TEST(Iteration, EndsWithTheScopeOrTheClose) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGRTMIN});
  for (int value : {1, 2, 3, 4}) SendQueued(signals, SIGRTMIN, value);
  SignalReceiver::iterator it = receiver.begin();
  EXPECT_EQ(it->value->sival_int, 1);
  it++;
  EXPECT_EQ((*it).value->sival_int, 2);
  EXPECT_FALSE(it == receiver.end());
  {
    CancelScope scope;
    scope.Cancel(absl::CancelledError("enough"));
    for ([[maybe_unused]] const SignalEvent& event : receiver) ADD_FAILURE();
    EXPECT_EQ(CheckCancelled().message(), "enough");
    EXPECT_FALSE(receiver.closed());
  }
  receiver.Close();
  EXPECT_TRUE(receiver.closed()) << "though events are queued";
  std::vector<int> values;
  for (const SignalEvent& event : receiver) {
    values.push_back(event.value->sival_int);
  }
  EXPECT_THAT(values, ElementsAre(3, 4));
  EXPECT_EQ(CheckCancelled(), absl::OkStatus());
  EXPECT_TRUE(receiver.closed());
}

// What was sent to it and received by nobody, in one queue or several. The
// counts tell what is given back: a signal of a test has nowhere to go to.
class GivenBack : public testing::Test {
 protected:
  GivenBack() {
    for (int i = 0; i < 3; ++i) {
      receivers_.emplace_back(OpenReceiver(
          signals_.service(), {SIGUSR1, SIGUSR2, SIGRTMIN}, {.capacity = 1}));
    }
  }

  void Send(int signum) { ASSERT_TRUE(signals_.Send(signum).ok()); }
  SignalReceiver& Receiver(int i) { return *receivers_[i]; }
  void Destroy(int i) { receivers_[i].reset(); }
  uint64_t Redelivered() { return signals_.service().stats().redelivered; }
  uint64_t Discarded() { return signals_.service().stats().discarded; }

  FakeSignals signals_;
  std::vector<std::optional<SignalReceiver>> receivers_;
};

TEST_F(GivenBack, IsWhatTheLastOneHas) {
  Send(SIGUSR1);
  Send(SIGRTMIN);
  Destroy(1);
  EXPECT_EQ(Redelivered(), 0u);
  Destroy(0);
  EXPECT_EQ(Redelivered(), 0u);
  Destroy(2);
  EXPECT_EQ(Redelivered(), 2u);
  EXPECT_EQ(Discarded(), 0u);
}

TEST_F(GivenBack, IsNotWhatAnotherOneHadBefore) {
  Send(SIGUSR1);
  EXPECT_EQ(Next(Receiver(1)).signum, SIGUSR1);
  for (int i : {0, 1, 2}) Destroy(i);
  EXPECT_EQ(Redelivered(), 0u);
}

TEST_F(GivenBack, IsNotWhatItsThreadsReceived) {
  Destroy(0);
  Destroy(1);
  Send(SIGUSR1);
  Send(SIGUSR2);
  EXPECT_EQ(Next(Receiver(2)).signum, SIGUSR1);
  Destroy(2);
  EXPECT_EQ(Redelivered(), 1u);
}

TEST_F(GivenBack, IsWhatTheOthersHadNoRoomFor) {
  Destroy(1);
  Send(SIGRTMIN);
  EXPECT_EQ(Next(Receiver(2)).signum, SIGRTMIN);
  Send(SIGRTMIN);  // to one of them: the other is full
  EXPECT_EQ(Receiver(0).dropped(), 1u);
  Destroy(2);
  EXPECT_EQ(Redelivered(), 1u);
  Destroy(0);
  EXPECT_EQ(Redelivered(), 1u);
}

// Of those that were merged, the last one counts.
TEST_F(GivenBack, IsAMergedOneWhoseLastNobodyHad) {
  Destroy(2);
  Send(SIGUSR1);
  EXPECT_EQ(Next(Receiver(1)).signum, SIGUSR1);
  Destroy(1);
  Send(SIGUSR1);
  Destroy(0);
  EXPECT_EQ(Redelivered(), 1u);
}

TEST_F(GivenBack, IsNoMergedOneWhoseLastAnotherHas) {
  Destroy(2);
  Send(SIGUSR1);
  EXPECT_EQ(Next(Receiver(1)).signum, SIGUSR1);
  Send(SIGUSR1);
  Destroy(0);
  EXPECT_EQ(Redelivered(), 0u);
  Destroy(1);
  EXPECT_EQ(Redelivered(), 1u);
}

TEST_F(GivenBack, IsNoMergedOneWhoseLastAnotherReceived) {
  Destroy(2);
  Send(SIGUSR1);
  Send(SIGUSR1);
  EXPECT_EQ(Next(Receiver(1)).count, 2);
  Destroy(0);
  Destroy(1);
  EXPECT_EQ(Redelivered(), 0u);
}

// Also after a close.
TEST_F(GivenBack, IsWhatIsLeftAfterTheClose) {
  Destroy(1);
  Destroy(2);
  Send(SIGUSR1);
  Receiver(0).Close();
  EXPECT_EQ(Redelivered(), 0u);
  Destroy(0);
  EXPECT_EQ(Redelivered(), 1u);
}

TEST_F(GivenBack, IsDiscardedByOneThatSaysSo) {
  SignalReceiver other = OpenReceiver(signals_.service(), {SIGHUP}, kDiscard);
  {
    SignalReceiver receiver = OpenReceiver(
        signals_.service(), {SIGHUP, SIGTERM, SIGRTMIN + 1}, kDiscard);
    for (int signum : {SIGHUP, SIGTERM, SIGRTMIN + 1, SIGRTMIN + 1}) {
      Send(signum);
    }
  }
  EXPECT_EQ(Discarded(), 3u);
  EXPECT_EQ(Redelivered(), 0u);
}

TEST_F(GivenBack, IsByWhatTheReceiverSaysThatWasAssignedOver) {
  Destroy(1);
  Destroy(2);
  Send(SIGUSR1);
  Receiver(0) = OpenReceiver(signals_.service(), {SIGUSR2}, kDiscard);
  EXPECT_EQ(Redelivered(), 1u);
  EXPECT_EQ(Receiver(0).signals(), SignalSet({SIGUSR2}));
  Send(SIGUSR2);
  Destroy(0);
  EXPECT_EQ(Discarded(), 1u);
}

// However many signals came and went, in whatever way, the books are right.
TEST_F(GivenBack, IsRightAfterAnyNumberOfSignals) {
  for (int i = 0; i < 2000; ++i) {
    EXPECT_TRUE(absl::IsNotFound(signals_.Send(SIGHUP)));
    Send(SIGUSR1);
    Send(SIGUSR1);
    Send(SIGRTMIN);
    Send(SIGRTMIN);
    SignalReceiver passing = OpenReceiver(signals_.service(), {SIGUSR2});
    Send(SIGUSR2);
    for (auto& receiver : receivers_) {
      EXPECT_THAT(TakeAll(*receiver), ElementsAre(SIGUSR1, SIGRTMIN, SIGUSR2));
    }
  }
  EXPECT_EQ(Redelivered(), 0u);
  EXPECT_EQ(Discarded(), 0u);
  Send(SIGUSR1);
  Destroy(0);
  EXPECT_EQ(Next(Receiver(1)).count, 1);
  Destroy(1);
  Send(SIGUSR2);
  Destroy(2);
  EXPECT_EQ(Redelivered(), 1u);
}

// There are books enough for all that fits into all the queues.
TEST(Queues, MayAllBeFull) {
  constexpr int kCapacity = 100;
  FakeSignals signals;
  std::vector<SignalReceiver> receivers;
  for (int i = 0; i < 5; ++i) {
    receivers.push_back(OpenReceiver(signals.service(), {SIGRTMIN + i},
                                     {.capacity = kCapacity}));
  }
  for (int value = 0; value <= kCapacity; ++value) {
    for (int i = 0; i < 5; ++i) SendQueued(signals, SIGRTMIN + i, value);
  }
  EXPECT_EQ(signals.service().stats().delivered, 5u * kCapacity);
  EXPECT_EQ(signals.service().stats().dropped, 5u);
  for (SignalReceiver& receiver : receivers) {
    for (int value = 0; value < kCapacity / 2; ++value) {
      ASSERT_EQ(receiver.TryReceive()->value->sival_int, value);
    }
  }
  receivers.clear();
  EXPECT_EQ(signals.service().stats().redelivered, 5u * kCapacity / 2);
}

}  // namespace
}  // namespace tocsin
