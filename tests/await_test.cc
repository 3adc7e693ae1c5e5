#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using internal::MutexLock;

class AwaitTest : public ::testing::Test {
 protected:
  absl::Status AwaitReady() {
    MutexLock lock(mutex_);
    absl::Status status = Await(mutex_, absl::Condition(&ready_));
    mutex_.AssertHeld();
    EXPECT_TRUE(ready_ || !status.ok());
    return status;
  }
  void SetReady() {
    MutexLock lock(mutex_);
    ready_ = true;
  }

  absl::Mutex mutex_;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST_F(AwaitTest, ReturnsWhenTheConditionIsTrue) {
  SetReady();
  EXPECT_TRUE(AwaitReady().ok());
}

TEST_F(AwaitTest, WaitsForTheConditionInAScopeAndOutside) {
  absl::Status inside;
  absl::Status outside;
  ScopedThread waiter([&] { inside = AwaitReady(); });
  std::thread no_scope([&] { outside = AwaitReady(); });
  waiter.AwaitAsleep();
  SetReady();
  waiter.Join();
  no_scope.join();
  EXPECT_TRUE(inside.ok());
  EXPECT_TRUE(outside.ok());
}

TEST_F(AwaitTest, FailsInACancelledScopeThoughTheConditionIsTrue) {
  SetReady();
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(AwaitReady()));
}

// A024, A026
TEST_F(AwaitTest, CancelEndsIt) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel(absl::CancelledError("enough"));
  waiter.Join();
  EXPECT_EQ(status, absl::CancelledError("enough"));
}

TEST_F(AwaitTest, WhoCancelsMayHoldTheMutex) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  {
    MutexLock lock(mutex_);
    waiter.scope().Cancel();
    ready_ = true;  // in the same breath: it is there, so it counts
  }
  waiter.Join();
  EXPECT_TRUE(status.ok());
}

TEST_F(AwaitTest, CancelEndsAWaitWithTheMutexHeldShared) {
  absl::Status status;
  ScopedThread waiter([&] {
    absl::ReaderMutexLock lock(&mutex_);
    status = Await(mutex_, absl::Condition(&ready_));
    mutex_.AssertReaderHeld();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
}

TEST_F(AwaitTest, ADeadlineEndsIt) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(AwaitReady()));
}

// A063
TEST_F(AwaitTest, ADeadlineMovedNearerEndsIt) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  waiter.scope().set_deadline(absl::Now());
  waiter.Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

// A048, A056
TEST_F(AwaitTest, ALiftedShieldEndsIt) {
  absl::Status status;
  std::atomic<CancelScope*> shield{nullptr};
  ScopedThread waiter([&] {
    CancelScope inner({.shield = true});
    shield = &inner;
    status = AwaitReady();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.AwaitAsleep();
  shield.load()->set_shield(false);
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
}

// The holder of one mutex waits for a thread that awaits another: the thread
// that wakes them must not be stuck in the first.
TEST(Await, AMutexThatIsHeldDelaysNobodyWhoAwaitsAnother) {
  absl::Mutex held;
  absl::Mutex other;
  bool never = false;
  auto await = [&](absl::Mutex& mutex) {
    MutexLock lock(mutex);
    EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&never))));
  };
  ScopedThread first([&] { await(held); });
  ScopedThread second([&] { await(other); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  {
    MutexLock lock(held);
    first.scope().Cancel();
    second.scope().Cancel();
    second.Join();
  }
  first.Join();
}

TEST(Await, ManyWaitersOfOneMutexEndWithOneCancel) {
  absl::Mutex mutex;
  bool never = false;
  CancelScope all;
  std::atomic<int> cancelled{0};
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 50; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&] {
      MutexLock lock(mutex);
      if (absl::IsCancelled(Await(mutex, absl::Condition(&never)))) ++cancelled;
    }));
  }
  for (auto& thread : threads) thread->AwaitAsleep();
  {
    MutexLock lock(mutex);
    for (auto& thread : threads) thread->scope().Cancel();
  }
  threads.clear();
  EXPECT_EQ(cancelled, 50);
}

// The mutex is gone as soon as the only one who awaited it has returned, be it
// cancelled or not.
TEST(Await, TheMutexMayBeDestroyedRightAfter) {
  for (int i = 0; i < 500; ++i) {
    struct Guarded {
      absl::Mutex mutex;
      bool ready = false;
    };
    absl::Mutex setting;
    auto guarded = std::make_unique<Guarded>();
    absl::Status status;
    ScopedThread waiter([&] {
      {
        MutexLock lock(guarded->mutex);
        status = Await(guarded->mutex, absl::Condition(&guarded->ready));
        EXPECT_TRUE(guarded->ready || !status.ok());
      }
      MutexLock lock(setting);
      guarded.reset();
    });
    if (i % 2 == 0) waiter.AwaitAsleep();
    std::thread canceller([&] { waiter.scope().Cancel(); });
    if (i % 3 == 0) {
      MutexLock lock(setting);
      if (guarded != nullptr) {
        MutexLock inner(guarded->mutex);
        guarded->ready = true;
      }
    }
    canceller.join();
    waiter.Join();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
  }
}

TEST(AwaitDeathTest, TheMutexMustBeHeld) {
  absl::Mutex mutex;
  bool never = false;
  EXPECT_DEATH(
      [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        Await(mutex, absl::Condition(&never)).IgnoreError();
      }(),
      "should hold");
}

}  // namespace
}  // namespace tocsin
