// A receiver's queue of events and the ledger that several share, without any
// thread: the order, what merges, what is dropped, and what has been heard of.
#include "tocsin/signals/internal/event_queue.h"

#include <csignal>
#include <cstdint>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {
namespace {

using internal::Arrivals;
using internal::EventQueue;
using internal::RawSiginfo;
using Pushed = EventQueue::Pushed;

const absl::Time kStart = absl::FromUnixSeconds(1000);

RawSiginfo Siginfo(int signum, int value) {
  siginfo_t info{};
  info.si_signo = signum;
  info.si_code = SI_QUEUE;
  info.si_value.sival_int = value;
  return RawSiginfo::From(info);
}

int ValueOf(const RawSiginfo& info) { return info.Full().si_value.sival_int; }

class EventQueueTest : public testing::Test {
 protected:
  // As a dispatcher does: a signal that comes is held while it is handed out.
  template <typename... Queues>
  void Send(int signum, int value, Queues&... queues) {
    const uint32_t arrival = arrivals_.Add();
    (queues.Push(Siginfo(signum, value), arrival, kStart), ...);
    arrivals_.Release(arrival);
  }
  Pushed Push(EventQueue& queue, int signum, int value,
              absl::Time now = kStart) {
    const uint32_t arrival = arrivals_.Add();
    const Pushed pushed = queue.Push(Siginfo(signum, value), arrival, now);
    arrivals_.Release(arrival);
    return pushed;
  }
  // What a receiver that goes would send again.
  bool IsOnlyIn(EventQueue& queue) {
    RawSiginfo info;
    return queue.Remove(info);
  }

  Arrivals arrivals_;
};

class Queue : public EventQueue {
 public:
  Queue(const SignalSet& signals, int capacity, Arrivals& arrivals)
      : EventQueue(signals, capacity, arrivals) {
    arrivals.AddPlaces(places());
  }
};

TEST_F(EventQueueTest, HandsOutInOrderOfArrival) {
  Queue queue({SIGTERM, SIGUSR1, SIGRTMIN}, 10, arrivals_);
  Push(queue, SIGTERM, 1);
  Push(queue, SIGRTMIN, 2);
  Push(queue, SIGUSR1, 3);
  Push(queue, SIGRTMIN, 4);
  ASSERT_EQ(queue.size(), 4u);
  for (int value : {1, 2, 3, 4}) EXPECT_EQ(ValueOf(queue.Pop().info), value);
  EXPECT_TRUE(queue.empty());
}

TEST_F(EventQueueTest, MergesAStandardSignalIntoTheOneThatWaits) {
  Queue queue({SIGTERM, SIGUSR1}, 1, arrivals_);
  EXPECT_EQ(Push(queue, SIGTERM, 1), Pushed::kQueued);
  EXPECT_EQ(Push(queue, SIGUSR1, 2), Pushed::kQueued);
  EXPECT_EQ(Push(queue, SIGTERM, 3, kStart + absl::Seconds(1)),
            Pushed::kMerged);
  const EventQueue::Queued first = queue.Pop();
  EXPECT_EQ(first.info.signum(), SIGTERM);
  EXPECT_EQ(ValueOf(first.info), 1);
  EXPECT_EQ(first.count, 2);
  EXPECT_EQ(first.received_at, kStart);
  // It was taken: the next is an event of its own.
  EXPECT_EQ(Push(queue, SIGTERM, 4), Pushed::kQueued);
  EXPECT_EQ(ValueOf(queue.Pop().info), 2);
  EXPECT_EQ(queue.Pop().count, 1);
}

TEST_F(EventQueueTest, DropsRealTimeSignalsBeyondItsCapacityAndNoOthers) {
  Queue queue({SIGTERM, SIGRTMIN}, 2, arrivals_);
  EXPECT_EQ(Push(queue, SIGRTMIN, 1), Pushed::kQueued);
  EXPECT_EQ(Push(queue, SIGRTMIN, 2), Pushed::kQueued);
  EXPECT_EQ(Push(queue, SIGRTMIN, 3), Pushed::kDropped);
  EXPECT_EQ(Push(queue, SIGTERM, 4), Pushed::kQueued);
  EXPECT_EQ(queue.dropped(), 1u);
  EXPECT_EQ(ValueOf(queue.Pop().info), 1);
  EXPECT_EQ(Push(queue, SIGRTMIN, 5), Pushed::kQueued);
  for (int value : {2, 4, 5}) EXPECT_EQ(ValueOf(queue.Pop().info), value);
}

// Also after its positions have gone round the ring many times.
TEST_F(EventQueueTest, KeepsItsOrderForEver) {
  Queue queue({SIGTERM, SIGRTMIN}, 3, arrivals_);
  for (int i = 0; i < 1000; ++i) {
    Push(queue, SIGRTMIN, 2 * i);
    Push(queue, i % 2 == 0 ? SIGTERM : SIGRTMIN, 2 * i + 1);
    ASSERT_EQ(ValueOf(queue.Pop().info), 2 * i);
    ASSERT_EQ(ValueOf(queue.Pop().info), 2 * i + 1);
  }
}

TEST_F(EventQueueTest, ASignalThatNobodyReceivedIsLeftToTheLastThatHasIt) {
  Queue one({SIGTERM}, 1, arrivals_);
  Queue other({SIGTERM}, 1, arrivals_);
  Send(SIGTERM, 1, one, other);
  EXPECT_FALSE(IsOnlyIn(one));
  EXPECT_TRUE(IsOnlyIn(other));
}

TEST_F(EventQueueTest, ASignalThatOneReceivedIsLeftToNobody) {
  Queue one({SIGTERM}, 1, arrivals_);
  Queue other({SIGTERM}, 1, arrivals_);
  Send(SIGTERM, 1, one, other);
  one.Pop();
  EXPECT_FALSE(IsOnlyIn(other));
}

// It is the last of the merged that counts.
TEST_F(EventQueueTest, OfMergedSignalsTheLastDecides) {
  Queue one({SIGTERM}, 1, arrivals_);
  Queue other({SIGTERM}, 1, arrivals_);
  Send(SIGTERM, 1, one, other);
  one.Pop();
  Send(SIGTERM, 2, other);
  EXPECT_TRUE(IsOnlyIn(other));
}

TEST_F(EventQueueTest, WhatAQueueDroppedIsNotHeldByIt) {
  Queue full({SIGRTMIN}, 1, arrivals_);
  Queue other({SIGRTMIN}, 2, arrivals_);
  Send(SIGRTMIN, 1, full, other);
  Send(SIGRTMIN, 2, full, other);
  EXPECT_FALSE(IsOnlyIn(other));
  EXPECT_TRUE(IsOnlyIn(other));
}

// The ledger has room for all, and gives back what it has given out.
TEST_F(EventQueueTest, AllQueuesMayBeFullAgainAndAgain) {
  Queue one({SIGRTMIN}, 50, arrivals_);
  Queue other({SIGRTMIN}, 50, arrivals_);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(Push(one, SIGRTMIN, i), Pushed::kQueued);
      ASSERT_EQ(Push(other, SIGRTMIN, i), Pushed::kQueued);
    }
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(ValueOf(one.Pop().info), i);
      ASSERT_TRUE(IsOnlyIn(other));
    }
  }
}

}  // namespace
}  // namespace tocsin
