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

// E: a limit of 42 admits 42 and refuses the 43rd, limit 1, limit 0 refuses all
TEST(Semaphore, AdmitsAsManyAsItsLimit) {
  for (int limit : {0, 1, 42}) {
    Semaphore semaphore(limit);
    for (int i = 0; i < limit; ++i) EXPECT_TRUE(semaphore.TryAcquire());
    EXPECT_FALSE(semaphore.TryAcquire());
    EXPECT_EQ(semaphore.in_use(), limit);
    EXPECT_EQ(semaphore.limit(), limit);
  }
}

// AnyIO synchronisation: borrow, limit
TEST(Semaphore, APermitIsGivenBackByItsDestructor) {
  Semaphore semaphore(3);
  {
    absl::StatusOr<Semaphore::Permit> permit = semaphore.Borrow(2);
    ASSERT_TRUE(permit.ok());
    EXPECT_EQ(semaphore.in_use(), 2);
    EXPECT_FALSE(semaphore.TryBorrow(2).has_value());
    std::optional<Semaphore::Permit> last = semaphore.TryBorrow();
    ASSERT_TRUE(last.has_value());
    EXPECT_EQ(semaphore.in_use(), 3);
    *last = *std::move(permit);
    EXPECT_EQ(semaphore.in_use(), 2);
  }
  EXPECT_EQ(semaphore.in_use(), 0);
}

// AnyIO synchronisation: release by a stranger refused
TEST(Semaphore, RefusesTheReturnOfWhatWasNeverTaken) {
  Semaphore semaphore(2);
  EXPECT_EQ(semaphore.Release().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(semaphore.Acquire().ok());
  EXPECT_EQ(semaphore.Release(2).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(semaphore.in_use(), 1);
  EXPECT_TRUE(semaphore.Release().ok());
}

TEST(Semaphore, APermitMayTakeThePlaceOfAnotherSemaphoresPermit) {
  Semaphore a(2);
  Semaphore b(3);
  std::optional<Semaphore::Permit> first = a.TryBorrow(2);
  std::optional<Semaphore::Permit> second = b.TryBorrow(3);
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
  EXPECT_TRUE(semaphore.TryAcquire(kMost - 1));
  EXPECT_FALSE(semaphore.TryAcquire(kMost));
  EXPECT_TRUE(semaphore.TryAcquire());
  EXPECT_FALSE(semaphore.TryAcquire());
  EXPECT_EQ(semaphore.in_use(), kMost);
  ScopedThread waiter([&] { EXPECT_TRUE(semaphore.Acquire(kMost).ok()); });
  waiter.AwaitAsleep();
  EXPECT_TRUE(semaphore.Release(kMost - 1).ok());
  EXPECT_EQ(semaphore.in_use(), 1);
  EXPECT_TRUE(semaphore.Release().ok());
  waiter.Join();
  EXPECT_EQ(semaphore.in_use(), kMost);
}

TEST(Semaphore, ALimitBelowZeroCountsAsZero) {
  Semaphore semaphore(-1);
  EXPECT_EQ(semaphore.limit(), 0);
  EXPECT_FALSE(semaphore.TryAcquire());
  semaphore.set_limit(1);
  EXPECT_TRUE(semaphore.TryAcquire());
}

TEST(Semaphore, RefusesCountsBelowOne) {
  Semaphore semaphore(2);
  EXPECT_FALSE(semaphore.TryAcquire(0));
  EXPECT_FALSE(semaphore.TryBorrow(0).has_value());
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Borrow(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Release(-1)));
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Acquire(0)));
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Acquire(-1)));
  EXPECT_TRUE(absl::IsInvalidArgument(semaphore.Release(0)));
  EXPECT_FALSE(semaphore.TryAcquire(-1));
  EXPECT_EQ(semaphore.in_use(), 0);
}

// AnyIO synchronisation: zero tokens, tokens raised lets waiters in
TEST(Semaphore, ARaisedLimitLetsWaitersIn) {
  Semaphore semaphore(0);
  ScopedThread first([&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  ScopedThread second([&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  semaphore.set_limit(2);
  first.Join();
  second.Join();
  EXPECT_EQ(semaphore.in_use(), 2);
}

TEST(Semaphore, ALoweredLimitHoldsUntilEnoughIsGivenBack) {
  Semaphore semaphore(3);
  ASSERT_TRUE(semaphore.Acquire(3).ok());
  semaphore.set_limit(1);
  EXPECT_EQ(semaphore.in_use(), 3);
  std::atomic<bool> admitted{false};
  ScopedThread waiter([&] {
    EXPECT_TRUE(semaphore.Acquire().ok());
    admitted = true;
  });
  waiter.AwaitAsleep();
  EXPECT_TRUE(semaphore.Release(2).ok());
  EXPECT_FALSE(semaphore.TryAcquire());
  EXPECT_FALSE(admitted);
  EXPECT_TRUE(semaphore.Release().ok());
  waiter.Join();
  EXPECT_TRUE(admitted);
  semaphore.set_limit(-5);
  EXPECT_EQ(semaphore.limit(), 0);
}

// AnyIO synchronisation: order kept
TEST(Semaphore, AdmitsInTheOrderOfArrival) {
  Semaphore semaphore(1);
  ASSERT_TRUE(semaphore.Acquire().ok());
  std::vector<int> order;
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 5; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&, i] {
      absl::StatusOr<Semaphore::Permit> permit = semaphore.Borrow();
      ASSERT_TRUE(permit.ok());
      order.push_back(i);
    }));
    threads.back()->AwaitAsleep();
  }
  EXPECT_TRUE(semaphore.Release().ok());
  threads.clear();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

// E: a large acquire is not starved by small ones
TEST(Semaphore, SmallOnesDoNotOvertakeALargeOne) {
  Semaphore semaphore(3);
  ASSERT_TRUE(semaphore.Acquire(2).ok());
  ScopedThread large([&] { EXPECT_TRUE(semaphore.Acquire(3).ok()); });
  large.AwaitAsleep();
  EXPECT_FALSE(semaphore.TryAcquire());  // though one is free
  std::atomic<bool> small_admitted{false};
  ScopedThread small([&] {
    EXPECT_TRUE(semaphore.Acquire().ok());
    small_admitted = true;
  });
  small.AwaitAsleep();
  EXPECT_TRUE(semaphore.Release(2).ok());
  large.Join();
  EXPECT_EQ(semaphore.in_use(), 3);
  EXPECT_FALSE(small_admitted);
  EXPECT_TRUE(semaphore.Release(3).ok());
  small.Join();
  EXPECT_EQ(semaphore.in_use(), 1);
}

TEST(Semaphore, WhatIsGivenBackDoesNotLetASmallOneOvertakeEither) {
  Semaphore semaphore(3);
  ASSERT_TRUE(semaphore.Acquire(3).ok());
  ScopedThread large([&] { EXPECT_TRUE(semaphore.Acquire(3).ok()); });
  large.AwaitAsleep();
  ScopedThread small([&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  small.AwaitAsleep();
  EXPECT_TRUE(semaphore.Release().ok());
  EXPECT_EQ(semaphore.in_use(), 2);  // neither was let in
  EXPECT_TRUE(semaphore.Release(2).ok());
  EXPECT_EQ(semaphore.in_use(), 3);
  large.Join();
  EXPECT_TRUE(semaphore.Release(3).ok());
  small.Join();
  EXPECT_EQ(semaphore.in_use(), 1);
}

// E: a cancelled acquire keeps no token. AnyIO: a cancelled waiter leaves no
// trace
TEST(Semaphore, ACancelledWaiterMakesRoomForThoseItKeptBack) {
  Semaphore semaphore(3);
  ASSERT_TRUE(semaphore.Acquire(2).ok());
  absl::Status status;
  ScopedThread large([&] { status = semaphore.Acquire(2); });
  large.AwaitAsleep();
  ScopedThread small([&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  small.AwaitAsleep();
  EXPECT_EQ(semaphore.in_use(), 2);
  large.scope().Cancel();
  small.Join();
  large.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(semaphore.in_use(), 3);
  EXPECT_TRUE(semaphore.Release(3).ok());
  EXPECT_TRUE(semaphore.TryAcquire(3));
}

TEST(Semaphore, WhoWantsMoreThanTheLimitHoldsUpNobody) {
  Semaphore semaphore(2);
  ScopedThread greedy([&] { EXPECT_TRUE(semaphore.Acquire(3).ok()); });
  greedy.AwaitAsleep();
  ASSERT_TRUE(semaphore.Acquire(2).ok());
  ScopedThread modest([&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  modest.AwaitAsleep();
  EXPECT_TRUE(semaphore.Release(2).ok());
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
  EXPECT_TRUE(absl::IsCancelled(semaphore.Acquire()));
  EXPECT_TRUE(absl::IsCancelled(semaphore.Borrow().status()));
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
        if (!semaphore.Acquire(count).ok()) return;
        const int64_t now = held.fetch_add(count) + count;
        int64_t seen = most.load();
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        ++admissions;
        held.fetch_sub(count);
        EXPECT_TRUE(semaphore.Release(count).ok());
      }
    }));
  }
  int cancelled = 0;
  int granted = 0;
  for (int i = 0; i < 300; ++i) {
    bool got = false;
    ScopedThread waiter([&] { got = semaphore.Acquire(kLimit).ok(); });
    std::thread canceller([&] { waiter.scope().Cancel(); });
    canceller.join();
    waiter.Join();
    if (got) {
      EXPECT_EQ(held, 0);
      EXPECT_TRUE(semaphore.Release(kLimit).ok());
    }
    ++(got ? granted : cancelled);
  }
  stop = true;
  threads.clear();
  EXPECT_EQ(granted + cancelled, 300);
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(semaphore.in_use(), 0);
  EXPECT_TRUE(semaphore.TryAcquire(kLimit));
}

}  // namespace
}  // namespace tocsin
