#include "tocsin/concurrency/semaphore.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using Permit = Semaphore::Permit;

// What Acquire() takes, which does not fail. Given back by reset().
std::optional<Permit> Acquired(Semaphore& semaphore, int64_t count = 1) {
  absl::StatusOr<Permit> permit = semaphore.Acquire(count);
  EXPECT_TRUE(permit.ok()) << permit.status();
  if (!permit.ok()) return std::nullopt;
  return *std::move(permit);
}

// E: a limit of 42 admits 42 and refuses the 43rd, limit 1, limit 0 refuses all
TEST(Semaphore, AdmitsAsManyAsItsLimit) {
  for (int limit : {0, 1, 42}) {
    Semaphore semaphore(limit);
    std::vector<std::optional<Permit>> permits;
    for (int i = 0; i < limit; ++i) {
      permits.push_back(semaphore.TryAcquire());
      EXPECT_TRUE(permits.back().has_value());
    }
    EXPECT_FALSE(semaphore.TryAcquire().has_value());
    EXPECT_EQ(semaphore.in_use(), limit);
    EXPECT_EQ(semaphore.limit(), limit);
  }
}

// AnyIO synchronisation: borrow, limit
TEST(Semaphore, APermitIsGivenBackByItsDestructor) {
  Semaphore semaphore(3);
  {
    absl::StatusOr<Permit> permit = semaphore.Acquire(2);
    ASSERT_TRUE(permit.ok());
    EXPECT_EQ(semaphore.in_use(), 2);
    EXPECT_FALSE(semaphore.TryAcquire(2).has_value());
    std::optional<Permit> last = semaphore.TryAcquire();
    ASSERT_TRUE(last.has_value());
    EXPECT_EQ(semaphore.in_use(), 3);
    *last = *std::move(permit);
    EXPECT_EQ(semaphore.in_use(), 2);
  }
  EXPECT_EQ(semaphore.in_use(), 0);
}

TEST(Semaphore, APermitMayTakeThePlaceOfAnotherSemaphoresPermit) {
  Semaphore a(2);
  Semaphore b(3);
  std::optional<Permit> first = a.TryAcquire(2);
  std::optional<Permit> second = b.TryAcquire(3);
  ASSERT_TRUE(first.has_value() && second.has_value());
  *first = *std::move(second);
  EXPECT_EQ(a.in_use(), 0);
  EXPECT_EQ(b.in_use(), 3);
  second.reset();  // it holds nothing any more
  EXPECT_EQ(b.in_use(), 3);
  first.reset();
  EXPECT_EQ(b.in_use(), 0);
}

TEST(Semaphore, CountsUpToTheLargestNumber) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  Semaphore semaphore(kMost);
  std::optional<Permit> most = semaphore.TryAcquire(kMost - 1);
  EXPECT_TRUE(most.has_value());
  EXPECT_FALSE(semaphore.TryAcquire(kMost).has_value());
  std::optional<Permit> last = semaphore.TryAcquire();
  EXPECT_TRUE(last.has_value());
  EXPECT_FALSE(semaphore.TryAcquire().has_value());
  EXPECT_EQ(semaphore.in_use(), kMost);
  std::optional<Permit> all;
  ScopedThread waiter([&] { all = Acquired(semaphore, kMost); });
  waiter.AwaitAsleep();
  most.reset();
  EXPECT_EQ(semaphore.in_use(), 1);
  last.reset();
  waiter.Join();
  EXPECT_EQ(semaphore.in_use(), kMost);
}

TEST(Semaphore, ALimitBelowZeroCountsAsZero) {
  Semaphore semaphore(-1);
  EXPECT_EQ(semaphore.limit(), 0);
  EXPECT_FALSE(semaphore.TryAcquire().has_value());
  semaphore.set_limit(1);
  EXPECT_TRUE(semaphore.TryAcquire().has_value());
}

TEST(Semaphore, RefusesCountsBelowOne) {
  Semaphore semaphore(2);
  EXPECT_FALSE(semaphore.TryAcquire(0).has_value());
  EXPECT_FALSE(semaphore.TryAcquire(-1).has_value());
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Acquire(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Acquire(-1).status()));
  EXPECT_EQ(semaphore.in_use(), 0);
}

// AnyIO synchronisation: zero tokens, tokens raised lets waiters in
TEST(Semaphore, ARaisedLimitLetsWaitersIn) {
  Semaphore semaphore(0);
  std::optional<Permit> permits[2];
  ScopedThread first([&] { permits[0] = Acquired(semaphore); });
  ScopedThread second([&] { permits[1] = Acquired(semaphore); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  semaphore.set_limit(2);
  first.Join();
  second.Join();
  EXPECT_EQ(semaphore.in_use(), 2);
}

TEST(Semaphore, ALoweredLimitHoldsUntilEnoughIsGivenBack) {
  Semaphore semaphore(3);
  std::optional<Permit> two = Acquired(semaphore, 2);
  std::optional<Permit> one = Acquired(semaphore);
  semaphore.set_limit(1);
  EXPECT_EQ(semaphore.in_use(), 3);
  std::atomic<bool> admitted{false};
  ScopedThread waiter([&] {
    std::optional<Permit> permit = Acquired(semaphore);
    admitted = true;
  });
  waiter.AwaitAsleep();
  two.reset();
  EXPECT_FALSE(semaphore.TryAcquire().has_value());
  EXPECT_FALSE(admitted);
  one.reset();
  waiter.Join();
  EXPECT_TRUE(admitted);
  semaphore.set_limit(-5);
  EXPECT_EQ(semaphore.limit(), 0);
}

// AnyIO synchronisation: order kept
TEST(Semaphore, AdmitsInTheOrderOfArrival) {
  Semaphore semaphore(1);
  std::optional<Permit> first = Acquired(semaphore);
  std::vector<int> order;
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 5; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&, i] {
      std::optional<Permit> permit = Acquired(semaphore);
      ASSERT_TRUE(permit.has_value());
      order.push_back(i);
    }));
    threads.back()->AwaitAsleep();
  }
  first.reset();
  threads.clear();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

// E: a large acquire is not starved by small ones
TEST(Semaphore, SmallOnesDoNotOvertakeALargeOne) {
  Semaphore semaphore(3);
  std::optional<Permit> two = Acquired(semaphore, 2);
  std::optional<Permit> all;
  ScopedThread large([&] { all = Acquired(semaphore, 3); });
  large.AwaitAsleep();
  EXPECT_FALSE(semaphore.TryAcquire().has_value());  // though one is free
  std::optional<Permit> one;
  std::atomic<bool> small_admitted{false};
  ScopedThread small([&] {
    one = Acquired(semaphore);
    small_admitted = true;
  });
  small.AwaitAsleep();
  two.reset();
  large.Join();
  EXPECT_EQ(semaphore.in_use(), 3);
  EXPECT_FALSE(small_admitted);
  all.reset();
  small.Join();
  EXPECT_EQ(semaphore.in_use(), 1);
}

TEST(Semaphore, WhatIsGivenBackDoesNotLetASmallOneOvertakeEither) {
  Semaphore semaphore(3);
  std::optional<Permit> first = Acquired(semaphore);
  std::optional<Permit> others = Acquired(semaphore, 2);
  std::optional<Permit> all;
  ScopedThread large([&] { all = Acquired(semaphore, 3); });
  large.AwaitAsleep();
  std::optional<Permit> one;
  ScopedThread small([&] { one = Acquired(semaphore); });
  small.AwaitAsleep();
  first.reset();
  EXPECT_EQ(semaphore.in_use(), 2);  // neither was let in
  others.reset();
  EXPECT_EQ(semaphore.in_use(), 3);
  large.Join();
  all.reset();
  small.Join();
  EXPECT_EQ(semaphore.in_use(), 1);
}

// E: a cancelled acquire keeps no token. AnyIO: a cancelled waiter leaves no
// trace
TEST(Semaphore, ACancelledWaiterMakesRoomForThoseItKeptBack) {
  Semaphore semaphore(3);
  std::optional<Permit> two = Acquired(semaphore, 2);
  absl::Status status;
  ScopedThread large([&] { status = semaphore.Acquire(2).status(); });
  large.AwaitAsleep();
  std::optional<Permit> one;
  ScopedThread small([&] { one = Acquired(semaphore); });
  small.AwaitAsleep();
  EXPECT_EQ(semaphore.in_use(), 2);
  large.scope().Cancel();
  small.Join();
  large.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(semaphore.in_use(), 3);
  two.reset();
  one.reset();
  EXPECT_TRUE(semaphore.TryAcquire(3).has_value());
}

TEST(Semaphore, WhoWantsMoreThanTheLimitHoldsUpNobody) {
  Semaphore semaphore(2);
  std::optional<Permit> three;
  ScopedThread greedy([&] { three = Acquired(semaphore, 3); });
  greedy.AwaitAsleep();
  std::optional<Permit> two = Acquired(semaphore, 2);
  std::optional<Permit> one;
  ScopedThread modest([&] { one = Acquired(semaphore); });
  modest.AwaitAsleep();
  two.reset();
  modest.Join();
  EXPECT_EQ(semaphore.in_use(), 1);
  semaphore.set_limit(4);
  greedy.Join();
  EXPECT_EQ(semaphore.in_use(), 4);
}

TEST(Semaphore, AnAcquireInACancelledScopeTakesNothing) {
  Semaphore semaphore(1);
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(semaphore.Acquire().status()));
  EXPECT_EQ(semaphore.in_use(), 0);
}

// AnyIO: semaphore maximum, race, cancel while acquiring; a released token is
// not oversubscribed
TEST(Semaphore, HoldsItsLimitAndLosesNothingWhileWaitersAreCancelled) {
  constexpr int kLimit = 3;
  Semaphore semaphore(kLimit);
  std::atomic<int64_t> held{0};
  std::atomic<int64_t> most{0};
  std::atomic<bool> stop{false};
  std::atomic<int> admissions{0};
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 4; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&, i] {
      const int64_t count = 1 + i % 2;
      while (!stop) {
        absl::StatusOr<Permit> permit = semaphore.Acquire(count);
        if (!permit.ok()) return;
        const int64_t now = held.fetch_add(count) + count;
        int64_t seen = most.load();
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        ++admissions;
        held.fetch_sub(count);
      }
    }));
  }
  int cancelled = 0;
  int granted = 0;
  for (int i = 0; i < 300; ++i) {
    absl::StatusOr<Permit> permit = absl::UnknownError("not back");
    ScopedThread waiter([&] { permit = semaphore.Acquire(kLimit); });
    std::thread canceller([&] { waiter.scope().Cancel(); });
    canceller.join();
    waiter.Join();
    if (permit.ok()) {
      EXPECT_EQ(held, 0);
      ++granted;
    } else {
      EXPECT_TRUE(absl::IsCancelled(permit.status())) << permit.status();
      ++cancelled;
    }
  }
  stop = true;
  threads.clear();
  EXPECT_EQ(granted + cancelled, 300);
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(semaphore.in_use(), 0);
  EXPECT_TRUE(semaphore.TryAcquire(kLimit).has_value());
}

}  // namespace
}  // namespace tocsin
