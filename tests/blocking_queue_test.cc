#include "tocsin/concurrency/blocking_queue.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

static_assert(std::input_iterator<BlockingQueue<int>::Iterator>);

// The item that TryPop() gives; nothing if it gives none, whatever the reason.
template <typename T>
std::optional<T> ItemIn(absl::StatusOr<T> popped) {
  if (!popped.ok()) return std::nullopt;
  return *std::move(popped);
}

// AnyIO channel: send then receive without waiting. Trio channels: infinite
// capacity
TEST(BlockingQueue, GivesItemsInTheOrderTheyCame) {
  BlockingQueue<int> queue(kUnbounded);
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(queue.Push(i).ok());
  EXPECT_EQ(queue.size(), 10'000u);
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(queue.Pop().value(), i);
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
}

// Trio channels: buffer of two, would-block
TEST(BlockingQueue, TakesNoMoreThanItsCapacity) {
  BlockingQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)).ok());
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(2)).ok());
  auto third = std::make_unique<int>(3);
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPush(std::move(third))));
  ASSERT_NE(third, nullptr);  // left as it was
  EXPECT_EQ(*queue.TryPop().value(), 1);
  EXPECT_TRUE(queue.TryPush(std::move(third)).ok());
  EXPECT_EQ(queue.size(), 2u);
}

// AnyIO channel: receive then send
TEST(BlockingQueue, PopWaitsForAnItem) {
  BlockingQueue<std::unique_ptr<int>> queue(kUnbounded);
  ScopedThread popper([&] { EXPECT_EQ(**queue.Pop(), 7); });
  popper.AwaitAsleep();
  EXPECT_TRUE(queue.Push(std::make_unique<int>(7)).ok());
}

// AnyIO channel: send unblocked by a non-waiting receive
TEST(BlockingQueue, PushWaitsForRoom) {
  BlockingQueue<std::string> queue(1);
  ASSERT_TRUE(queue.Push("first").ok());
  ScopedThread pusher([&] { EXPECT_TRUE(queue.Push("second").ok()); });
  pusher.AwaitAsleep();
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(ItemIn(queue.TryPop()), "first");
  EXPECT_EQ(ItemIn(queue.TryPop()), "second");  // moved in by the pop before
  pusher.Join();
}

TEST(BlockingQueue, AWaitingPushGoesOnWhenOnePopMakesRoom) {
  for (bool wait : {false, true}) {
    BlockingQueue<int> queue(1);
    ASSERT_TRUE(queue.Push(1).ok());
    absl::Status pushed = absl::UnknownError("not back");
    ScopedThread pusher([&] { pushed = queue.Push(2); });
    pusher.AwaitAsleep();
    EXPECT_EQ(wait ? queue.Pop().value() : queue.TryPop().value(), 1);
    EXPECT_EQ(queue.size(), 1u);
    queue.Close();
    pusher.Join();
    EXPECT_EQ(pushed, absl::OkStatus());
    EXPECT_EQ(ItemIn(queue.TryPop()), 2);
  }
}

TEST(BlockingQueue, WithoutCapacityAPushWaitsForItsPop) {
  BlockingQueue<std::unique_ptr<int>> queue(kRendezvous);
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPush(std::make_unique<int>(0))));
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
  {
    ScopedThread pusher(
        [&] { EXPECT_TRUE(queue.Push(std::make_unique<int>(1)).ok()); });
    EXPECT_EQ(*queue.Pop().value(), 1);
  }
  ScopedThread popper([&] { EXPECT_EQ(*queue.Pop().value(), 2); });
  popper.AwaitAsleep();
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(2)).ok());
}

// Trio channels: a waiting receiver owns the item that woke it
TEST(BlockingQueue, AnItemGivenToAWaitingPopCannotBeTakenByAnother) {
  BlockingQueue<int> queue(kUnbounded);
  int item = 0;
  ScopedThread popper([&] { item = queue.Pop().value(); });
  popper.AwaitAsleep();
  ASSERT_TRUE(queue.Push(1).ok());
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
  popper.Join();
  EXPECT_EQ(item, 1);
}

TEST(BlockingQueue, ServesThoseWhoWaitInTheOrderTheyCame) {
  BlockingQueue<int> queue(kUnbounded);
  std::vector<int> got(4);
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 4; ++i) {
    threads.push_back(std::make_unique<ScopedThread>(
        [&, i] { got[i] = queue.Pop().value(); }));
    threads.back()->AwaitAsleep();
  }
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(queue.Push(i).ok());
  threads.clear();
  EXPECT_EQ(got, (std::vector<int>{0, 1, 2, 3}));

  BlockingQueue<int> full(1);
  ASSERT_TRUE(full.Push(0).ok());
  for (int i = 1; i < 4; ++i) {
    threads.push_back(std::make_unique<ScopedThread>(
        [&, i] { EXPECT_TRUE(full.Push(i).ok()); }));
    threads.back()->AwaitAsleep();
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ItemIn(full.TryPop()), i);
  threads.clear();
}

// AnyIO channel: receive after close drains then ends. Trio channels: close,
// end after drain, double close harmless
TEST(BlockingQueue, AClosedQueueDrainsThenEnds) {
  BlockingQueue<int> queue(kUnbounded);
  ASSERT_TRUE(queue.Push(1).ok());
  ASSERT_TRUE(queue.Push(2).ok());
  queue.Close();
  queue.Close();
  EXPECT_TRUE(absl::IsOutOfRange(queue.Push(3)));
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPush(3)));
  EXPECT_EQ(queue.Pop().value(), 1);
  EXPECT_EQ(ItemIn(queue.TryPop()), 2);
  EXPECT_TRUE(absl::IsOutOfRange(queue.Pop().status()));
  EXPECT_TRUE(absl::IsOutOfRange(queue.Pop().status()));
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPop().status()));
}

TEST(BlockingQueue, PushOnAClosedQueueIsRefusedAndKeepsItsItem) {
  for (size_t capacity : {kRendezvous, size_t{1}, kUnbounded}) {
    BlockingQueue<std::unique_ptr<int>> queue(capacity);
    queue.Close();
    auto item = std::make_unique<int>(1);
    absl::Status pushed = queue.Push(std::move(item));
    EXPECT_TRUE(absl::IsOutOfRange(pushed)) << pushed;
    EXPECT_NE(item, nullptr);
    EXPECT_EQ(queue.size(), 0u);
  }
}

TEST(BlockingQueue, TryPopTellsNotNowFromClosed) {
  BlockingQueue<int> queue(kUnbounded);
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
  ASSERT_TRUE(queue.Push(1).ok());
  queue.Close();
  EXPECT_EQ(ItemIn(queue.TryPop()), 1);
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPop().status()));
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPop().status()));

  BlockingQueue<int> rendezvous(kRendezvous);
  EXPECT_TRUE(absl::IsUnavailable(rendezvous.TryPop().status()));
  rendezvous.Close();
  EXPECT_TRUE(absl::IsOutOfRange(rendezvous.TryPop().status()));
}

TEST(BlockingQueue, TryPushTellsNotNowFromClosed) {
  for (size_t capacity : {kRendezvous, size_t{1}}) {
    BlockingQueue<std::unique_ptr<int>> queue(capacity);
    if (capacity > 0) {
      ASSERT_TRUE(queue.TryPush(std::make_unique<int>(0)).ok());
    }
    auto item = std::make_unique<int>(1);
    absl::Status full = queue.TryPush(std::move(item));
    EXPECT_TRUE(absl::IsUnavailable(full)) << full;
    ASSERT_NE(item, nullptr);
    queue.Close();
    absl::Status closed = queue.TryPush(std::move(item));
    EXPECT_TRUE(absl::IsOutOfRange(closed)) << closed;  // though it is full
    ASSERT_NE(item, nullptr);
    EXPECT_EQ(ItemIn(queue.TryPop()).has_value(), capacity > 0);
    closed = queue.TryPush(std::move(item));
    EXPECT_TRUE(absl::IsOutOfRange(closed)) << closed;  // though there is room
    ASSERT_NE(item, nullptr);
    EXPECT_EQ(*item, 1);
  }
}

TEST(BlockingQueue, TellsWhetherItIsClosed) {
  BlockingQueue<int> queue(1);
  const BlockingQueue<int>& view = queue;
  EXPECT_FALSE(view.closed());
  {
    ScopedThread popper([&] { EXPECT_EQ(queue.Pop().value(), 1); });
    popper.AwaitAsleep();
    EXPECT_FALSE(view.closed());
    ASSERT_TRUE(queue.Push(1).ok());
  }
  ASSERT_TRUE(queue.Push(2).ok());
  EXPECT_FALSE(view.closed());
  queue.Close();
  EXPECT_TRUE(view.closed());  // though an item is left
  EXPECT_EQ(queue.Pop().value(), 2);
  EXPECT_TRUE(view.closed());
}

// AnyIO channel: close under a blocked receiver and sender. Trio channels: all
// close states latched
TEST(BlockingQueue, CloseEndsThoseWhoWait) {
  BlockingQueue<int> empty(kUnbounded);
  absl::Status popped[2];
  ScopedThread first([&] { popped[0] = empty.Pop().status(); });
  ScopedThread second([&] { popped[1] = empty.Pop().status(); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  empty.Close();
  first.Join();
  second.Join();
  EXPECT_TRUE(absl::IsOutOfRange(popped[0]));
  EXPECT_TRUE(absl::IsOutOfRange(popped[1]));

  BlockingQueue<std::unique_ptr<int>> full(1);
  ASSERT_TRUE(full.Push(std::make_unique<int>(1)).ok());
  auto item = std::make_unique<int>(2);
  absl::Status pushed;
  ScopedThread pusher([&] { pushed = full.Push(std::move(item)); });
  pusher.AwaitAsleep();
  full.Close();
  pusher.Join();
  EXPECT_TRUE(absl::IsOutOfRange(pushed));
  EXPECT_NE(item, nullptr);
  EXPECT_EQ(*full.Pop().value(), 1);
  EXPECT_TRUE(absl::IsOutOfRange(full.Pop().status()));
}

TEST(BlockingQueue, CloseEndsAllWhoWaitForRoom) {
  for (size_t capacity : {kRendezvous, size_t{1}}) {
    BlockingQueue<std::unique_ptr<int>> queue(capacity);
    if (capacity > 0) {
      ASSERT_TRUE(queue.Push(std::make_unique<int>(0)).ok());
    }
    std::vector<absl::Status> pushed(3);
    std::vector<std::unique_ptr<ScopedThread>> threads;
    for (int i = 0; i < 3; ++i) {
      threads.push_back(std::make_unique<ScopedThread>([&, i] {
        auto item = std::make_unique<int>(i);
        pushed[i] = queue.Push(std::move(item));
        EXPECT_NE(item, nullptr);
      }));
      threads.back()->AwaitAsleep();
    }
    queue.Close();
    threads.clear();
    for (const absl::Status& status : pushed) {
      EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
    }
    EXPECT_EQ(queue.size(), capacity);
  }
}

// AnyIO channel: iterate
TEST(BlockingQueue, IteratesUntilClosed) {
  BlockingQueue<std::unique_ptr<int>> queue(1);
  std::vector<int> got;
  ScopedThread consumer([&] {
    for (std::unique_ptr<int>& item : queue) got.push_back(*item);
  });
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(queue.Push(std::make_unique<int>(i)).ok());
  }
  queue.Close();
  consumer.Join();
  ASSERT_EQ(got.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(got[i], i);
}

TEST(BlockingQueue, IterationEndsWithTheScope) {
  BlockingQueue<int> queue(kUnbounded);
  absl::Status after;
  ScopedThread consumer([&] {
    for (int item : queue) ADD_FAILURE() << item;
    after = CheckCancelled();
  });
  consumer.AwaitAsleep();
  consumer.scope().Cancel();
  consumer.Join();
  EXPECT_TRUE(absl::IsCancelled(after));
}

// An iterator that waits for the next item has let go of the last.
TEST(BlockingQueue, IterationKeepsNoItemWhileItWaits) {
  BlockingQueue<std::shared_ptr<int>> queue(kUnbounded);
  auto item = std::make_shared<int>(1);
  ASSERT_TRUE(queue.Push(item).ok());
  ScopedThread consumer([&] {
    for (std::shared_ptr<int>& popped : queue) EXPECT_EQ(*popped, 1);
  });
  while (item.use_count() > 1) std::this_thread::yield();
  queue.Close();
}

// AnyIO channel: receive or send in a cancelled scope loses and delivers
// nothing
TEST(BlockingQueue, InACancelledScopeNothingIsPushedOrPopped) {
  BlockingQueue<std::unique_ptr<int>> queue(2);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(1)).ok());
  {
    CancelScope scope;
    scope.Cancel();
    auto item = std::make_unique<int>(2);
    EXPECT_TRUE(absl::IsCancelled(queue.Push(std::move(item))));
    EXPECT_NE(item, nullptr);
    EXPECT_TRUE(absl::IsCancelled(queue.Pop().status()));
    EXPECT_EQ(queue.size(), 1u);
  }
  EXPECT_EQ(*queue.Pop().value(), 1);
}

TEST(BlockingQueue, WhatDoesNotBlockWorksInACancelledScopeToo) {
  BlockingQueue<int> queue(1);
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(queue.TryPush(1).ok());
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPush(2)));
  EXPECT_EQ(ItemIn(queue.TryPop()), 1);
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
  queue.Close();
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPush(3)));
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPop().status()));
}

// AnyIO channel: cancel of receive and of send
TEST(BlockingQueue, CancelEndsThoseWhoWaitAndLeavesNoTrace) {
  BlockingQueue<std::unique_ptr<int>> queue(1);
  absl::Status popped;
  ScopedThread popper([&] { popped = queue.Pop().status(); });
  popper.AwaitAsleep();
  popper.scope().Cancel(absl::CancelledError("enough"));
  popper.Join();
  EXPECT_TRUE(absl::IsCancelled(popped)) << popped;
  EXPECT_EQ(popped.message(), "enough");

  ASSERT_TRUE(queue.Push(std::make_unique<int>(1)).ok());
  auto item = std::make_unique<int>(2);
  absl::Status pushed;
  ScopedThread pusher([&] { pushed = queue.Push(std::move(item)); });
  pusher.AwaitAsleep();
  pusher.scope().Cancel();
  pusher.Join();
  EXPECT_TRUE(absl::IsCancelled(pushed));
  EXPECT_NE(item, nullptr);
  EXPECT_EQ(*queue.Pop().value(), 1);
  EXPECT_EQ(queue.size(), 0u);
}

// Whoever waits in vain, the first, the last or one between, and somebody comes
// after that.
TEST(BlockingQueue, WhoGivesUpLeavesTheOthersInTheirOrder) {
  for (int leaver = 0; leaver < 3; ++leaver) {
    BlockingQueue<int> empty(kUnbounded);
    BlockingQueue<int> full(kRendezvous);
    std::vector<int> popped(4, -1);
    std::vector<std::unique_ptr<ScopedThread>> poppers;
    std::vector<std::unique_ptr<ScopedThread>> pushers;
    auto come = [&](int i) {
      poppers.push_back(std::make_unique<ScopedThread>([&, i] {
        absl::StatusOr<int> item = empty.Pop();
        if (item.ok()) popped[i] = *item;
      }));
      pushers.push_back(std::make_unique<ScopedThread>(
          [&, i] { full.Push(i).IgnoreError(); }));
      poppers.back()->AwaitAsleep();
      pushers.back()->AwaitAsleep();
    };
    for (int i = 0; i < 3; ++i) come(i);
    for (auto* threads : {&poppers, &pushers}) {
      ScopedThread& thread = *threads->at(leaver);
      thread.scope().Cancel();
      thread.Join();
    }
    come(3);
    std::vector<int> order = {0, 1, 2, 3};
    order.erase(order.begin() + leaver);
    for (int i : order) {
      EXPECT_TRUE(empty.TryPush(i).ok());
      EXPECT_EQ(ItemIn(full.TryPop()), i);
    }
    EXPECT_TRUE(absl::IsUnavailable(full.TryPop().status()));
    empty.Close();  // for one that was forgotten
    full.Close();
    poppers.clear();
    pushers.clear();
    for (int i : order) EXPECT_EQ(popped[i], i);
    EXPECT_EQ(popped[leaver], -1);
  }
}

TEST(BlockingQueue, ADeadlineGivesPopATimeout) {
  BlockingQueue<int> queue(kUnbounded);
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(queue.Pop().status()));
}

// AnyIO channel: cancel while an item is being handed over keeps the item
TEST(BlockingQueue, APopThatRacesWithCancelLosesNothing) {
  BlockingQueue<int> queue(kUnbounded);
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<int> item;
    ScopedThread popper([&] { item = queue.Pop(); });
    if (i % 2 == 0) popper.AwaitAsleep();
    std::thread pusher([&] { EXPECT_TRUE(queue.Push(i).ok()); });
    popper.scope().Cancel();
    popper.Join();
    pusher.join();
    if (item.ok()) {
      EXPECT_EQ(*item, i);
      EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
    } else {
      EXPECT_EQ(ItemIn(queue.TryPop()), i);
    }
  }
}

// Cancels a scope in the midst of being handed over.
struct CancelsWhenMoved {
  explicit CancelsWhenMoved(CancelScope* target) : scope(target) {}
  CancelsWhenMoved(CancelsWhenMoved&& other) noexcept {
    if (other.scope != nullptr) other.scope->Cancel();
  }
  CancelScope* scope = nullptr;
};

// AnyIO channel: cancel while an item is being handed over keeps the item
TEST(BlockingQueue, AnItemHandedOverIsReturnedThoughTheScopeIsCancelled) {
  BlockingQueue<CancelsWhenMoved> queue(kUnbounded);
  absl::Status popped;
  absl::Status after;
  ScopedThread popper([&] {
    popped = queue.Pop().status();
    after = CheckCancelled();
  });
  popper.AwaitAsleep();
  ASSERT_TRUE(queue.Push(CancelsWhenMoved(&popper.scope())).ok());
  popper.Join();
  EXPECT_TRUE(popped.ok()) << popped;
  EXPECT_TRUE(absl::IsCancelled(after));
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
}

// Where an item stops in the midst of a move.
struct Gate {
  std::latch reached{1};
  std::latch open{1};
};

class StopsWhenMoved {
 public:
  explicit StopsWhenMoved(int number) : number_(number) {}
  // In the move after so many others.
  StopsWhenMoved(int number, Gate& gate, int moves_before)
      : number_(number), gate_(&gate), moves_before_(moves_before) {}
  StopsWhenMoved(StopsWhenMoved&& other) noexcept
      : number_(other.number_),
        gate_(std::exchange(other.gate_, nullptr)),
        moves_before_(other.moves_before_ - 1) {
    if (gate_ == nullptr || moves_before_ >= 0) return;
    Gate& gate = *std::exchange(gate_, nullptr);
    gate.reached.count_down();
    gate.open.wait();
  }

  int number() const { return number_; }

 private:
  const int number_;
  Gate* gate_ = nullptr;
  int moves_before_ = 0;
};

int NumberOf(const absl::StatusOr<StopsWhenMoved>& item) {
  return item.ok() ? item->number() : -1;
}

TEST(BlockingQueue, APushInTheMidstOfItsItemKeepsOthersAway) {
  BlockingQueue<StopsWhenMoved> queue(kUnbounded);
  Gate gate;
  ScopedThread first(
      [&] { EXPECT_TRUE(queue.TryPush(StopsWhenMoved(1, gate, 0)).ok()); });
  gate.reached.wait();
  ScopedThread second([&] { EXPECT_TRUE(queue.Push(StopsWhenMoved(2)).ok()); });
  second.AwaitAsleep();
  gate.open.count_down();
  first.Join();
  second.Join();
  EXPECT_EQ(NumberOf(queue.TryPop()), 1);
  EXPECT_EQ(NumberOf(queue.TryPop()), 2);
}

TEST(BlockingQueue, APopInTheMidstOfItsItemKeepsOthersAway) {
  for (bool wait : {false, true}) {
    BlockingQueue<StopsWhenMoved> queue(kUnbounded);
    Gate gate;
    ASSERT_TRUE(queue.TryPush(StopsWhenMoved(1, gate, 1)).ok());
    int got = -1;
    ScopedThread first([&] { got = NumberOf(queue.TryPop()); });
    gate.reached.wait();
    bool got_more = true;
    ScopedThread second(
        [&] { got_more = wait ? queue.Pop().ok() : queue.TryPop().ok(); });
    second.AwaitAsleep();
    size_t size = 9;
    ScopedThread third([&] { size = queue.size(); });
    third.AwaitAsleep();
    gate.open.count_down();
    first.Join();
    queue.Close();
    second.Join();
    third.Join();
    EXPECT_EQ(got, 1);
    EXPECT_FALSE(got_more);
    EXPECT_EQ(size, 0u);  // it was as good as gone
  }
}

// Nobody begins to wait while the other end is at work, unseen by it.
TEST(BlockingQueue, APopThatComesInTheMidstOfAPushGetsItsItem) {
  BlockingQueue<StopsWhenMoved> queue(kUnbounded);
  Gate gate;
  ScopedThread pusher(
      [&] { EXPECT_TRUE(queue.TryPush(StopsWhenMoved(1, gate, 0)).ok()); });
  gate.reached.wait();
  absl::Status popped = absl::UnknownError("not back");
  ScopedThread popper([&] { popped = queue.Pop().status(); });
  popper.AwaitAsleep();
  gate.open.count_down();
  pusher.Join();
  queue.Close();  // else one that has missed its item would wait for ever
  popper.Join();
  EXPECT_EQ(popped, absl::OkStatus());
}

TEST(BlockingQueue, APushThatComesInTheMidstOfAPopGetsItsRoom) {
  BlockingQueue<StopsWhenMoved> queue(1);
  Gate gate;
  ASSERT_TRUE(queue.TryPush(StopsWhenMoved(1, gate, 1)).ok());
  ScopedThread popper([&] { EXPECT_EQ(NumberOf(queue.TryPop()), 1); });
  gate.reached.wait();
  ScopedThread pusher([&] { EXPECT_TRUE(queue.Push(StopsWhenMoved(2)).ok()); });
  pusher.AwaitAsleep();
  gate.open.count_down();
  popper.Join();
  pusher.Join();
  EXPECT_EQ(NumberOf(queue.TryPop()), 2);
}

TEST(BlockingQueue, APushThatRacesWithCancelIsDoneOrNot) {
  BlockingQueue<std::unique_ptr<int>> queue(1);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(queue.Push(std::make_unique<int>(-1)).ok());
    auto item = std::make_unique<int>(i);
    absl::Status status;
    ScopedThread pusher([&] { status = queue.Push(std::move(item)); });
    if (i % 2 == 0) pusher.AwaitAsleep();
    std::thread popper([&] { EXPECT_EQ(*queue.Pop().value(), -1); });
    pusher.scope().Cancel();
    pusher.Join();
    popper.join();
    EXPECT_EQ(status.ok(), item == nullptr) << status;
    absl::StatusOr<std::unique_ptr<int>> left = queue.TryPop();
    ASSERT_EQ(left.ok(), status.ok());
    if (left.ok()) {
      EXPECT_EQ(**left, i);
    } else {
      EXPECT_TRUE(absl::IsUnavailable(left.status())) << left.status();
    }
  }
}

// Trio channels: several producers and consumers. Every item pushed comes out
// once, though consumers and producers are cancelled all the time.
TEST(BlockingQueue, AccountsForEveryItemWhileWaitsAreCancelled) {
  for (size_t capacity : {kRendezvous, size_t{1}, size_t{16}, kUnbounded}) {
    constexpr int kProducers = 3;
    constexpr int kConsumers = 3;
    constexpr int kEach = 1000;
    BlockingQueue<std::unique_ptr<int>> queue(capacity);
    std::vector<std::atomic<int>> seen(kProducers * kEach);
    std::atomic<int> popped{0};
    std::atomic<bool> over{false};

    // Each wait is in a scope that a third thread may cancel under it. The
    // mutex keeps the scope alive meanwhile.
    struct Cancellable {
      absl::Mutex mutex;
      CancelScope* scope = nullptr;
    };
    std::vector<Cancellable> targets(kProducers + kConsumers);
    auto in_scope = [](Cancellable& target, auto body) {
      CancelScope scope;
      {
        internal::MutexLock lock(target.mutex);
        target.scope = &scope;
      }
      body();
      internal::MutexLock lock(target.mutex);
      target.scope = nullptr;
    };

    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
      producers.emplace_back([&, p] {
        for (int i = 0; i < kEach; ++i) {
          auto item = std::make_unique<int>(p * kEach + i);
          while (item != nullptr) {
            in_scope(targets[p], [&] {
              absl::Status status = queue.Push(std::move(item));
              EXPECT_EQ(status.ok(), item == nullptr);
            });
          }
        }
      });
    }
    std::vector<std::thread> consumers;
    for (int c = 0; c < kConsumers; ++c) {
      consumers.emplace_back([&, c] {
        bool drained = false;
        while (!drained) {
          in_scope(targets[kProducers + c], [&] {
            absl::StatusOr<std::unique_ptr<int>> item = queue.Pop();
            if (item.ok()) {
              ++seen[**item];
              ++popped;
            } else {
              drained = absl::IsOutOfRange(item.status());
              EXPECT_TRUE(drained || absl::IsCancelled(item.status()));
            }
          });
        }
      });
    }
    std::thread canceller([&] {
      while (!over) {
        for (Cancellable& target : targets) {
          internal::MutexLock lock(target.mutex);
          if (target.scope != nullptr) target.scope->Cancel();
        }
        // Most often in the midst of a call, not before it begins.
        const int popped_so_far = popped;
        for (int i = 0; i < 10 && popped == popped_so_far; ++i) {
          std::this_thread::yield();
        }
      }
    });
    for (std::thread& thread : producers) thread.join();
    queue.Close();
    for (std::thread& thread : consumers) thread.join();
    over = true;
    canceller.join();
    for (std::atomic<int>& count : seen) ASSERT_EQ(count, 1);
  }
}

// A token goes round, so that each thread falls asleep while the others have
// it. A wake-up that is lost stops it for good.
TEST(BlockingQueue, WhoeverFallsAsleepIsWokenByTheNextItem) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 1000;
  std::deque<BlockingQueue<int>> queues;
  for (int t = 0; t < kThreads; ++t) queues.emplace_back(kUnbounded);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        EXPECT_EQ(queues[t].Pop().value(), round * kThreads + t);
        // The last one ends in the first queue.
        EXPECT_TRUE(
            queues[(t + 1) % kThreads].Push(round * kThreads + t + 1).ok());
      }
    });
  }
  ASSERT_TRUE(queues[0].Push(0).ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ItemIn(queues[0].TryPop()), kRounds * kThreads);
}

TEST(BlockingQueue, KeepsTheOrderOfEachProducer) {
  for (size_t capacity :
       {kRendezvous, size_t{1}, size_t{3}, size_t{1024}, kUnbounded}) {
    constexpr int kProducers = 3;
    constexpr int kConsumers = 3;
    constexpr int kEach = 10'000;
    BlockingQueue<int> queue(capacity);
    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
      producers.emplace_back([&, p] {
        for (int i = 0; i < kEach; ++i) {
          const int item = i * kProducers + p;
          if (i % 2 == 0) {
            absl::Status status = queue.TryPush(item);
            if (status.ok()) continue;
            ASSERT_TRUE(absl::IsUnavailable(status)) << status;
          }
          ASSERT_TRUE(queue.Push(item).ok());
        }
      });
    }
    std::atomic<int64_t> sum{0};
    std::vector<std::thread> consumers;
    for (int c = 0; c < kConsumers; ++c) {
      consumers.emplace_back([&] {
        std::vector<int> last(kProducers, -1);
        for (int item : queue) {
          ASSERT_LT(last[item % kProducers], item);
          last[item % kProducers] = item;
          sum += item;
          ASSERT_LE(queue.size(), capacity);
          if (absl::StatusOr<int> next = queue.TryPop(); next.ok()) {
            ASSERT_LT(last[*next % kProducers], *next);
            last[*next % kProducers] = *next;
            sum += *next;
          }
        }
      });
    }
    for (std::thread& thread : producers) thread.join();
    queue.Close();
    for (std::thread& thread : consumers) thread.join();
    constexpr int64_t kItems = kProducers * kEach;
    EXPECT_EQ(sum, kItems * (kItems - 1) / 2);
  }
}

// Close() comes while both ends are at work: what was pushed comes out, what
// was refused does not, and all who wait are woken.
TEST(BlockingQueue, CloseInTheMidstOfTheTrafficLosesNothing) {
  constexpr int kThreads = 2;
  for (int round = 0; round < 200; ++round) {
    const size_t capacity = size_t{1} << round % 8 >> 1;  // 0, 1, 2 to 64
    BlockingQueue<std::unique_ptr<int>> queue(capacity);
    std::atomic<int64_t> pushed{0};
    std::atomic<int64_t> popped{0};
    std::atomic<int> pops{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = t + 1;; i += kThreads) {
          auto item = std::make_unique<int>(i);
          absl::Status status = queue.Push(std::move(item));
          if (!status.ok()) {
            EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
            EXPECT_NE(item, nullptr);
            break;
          }
          pushed += i;
        }
      });
      threads.emplace_back([&] {
        for (std::unique_ptr<int>& item : queue) {
          popped += *item;
          ++pops;
        }
      });
    }
    while (pops < round) std::this_thread::yield();
    queue.Close();
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(pushed, popped);
    ASSERT_EQ(queue.size(), 0u);
  }
}

TEST(BlockingQueue, DestroysWhatIsLeft) {
  auto item = std::make_shared<int>(1);
  {
    BlockingQueue<std::shared_ptr<int>> queue(kUnbounded);
    ASSERT_TRUE(queue.Push(item).ok());
    EXPECT_EQ(item.use_count(), 2);
  }
  EXPECT_EQ(item.use_count(), 1);
}

}  // namespace
}  // namespace tocsin
