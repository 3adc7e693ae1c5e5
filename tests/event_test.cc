#include "tocsin/concurrency/event.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// AnyIO synchronisation: event set before wait
TEST(Event, LetsThroughWhoComesAfterItWasSet) {
  Event event;
  EXPECT_FALSE(event.is_set());
  event.Set();
  event.Set();
  EXPECT_TRUE(event.is_set());
  EXPECT_TRUE(event.Wait().ok());
  EXPECT_TRUE(event.Wait().ok());
}

// AnyIO synchronisation: event set during wait
TEST(Event, WakesAllWhoWait) {
  Event event;
  int written = 0;
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 20; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&] {
      EXPECT_TRUE(event.Wait().ok());
      EXPECT_EQ(written, 1);
    }));
  }
  for (auto& thread : threads) thread->AwaitAsleep();
  written = 1;
  event.Set();
}

// AnyIO synchronisation: event wait cancelled; A071, A072
TEST(Event, ACancelledWaitLeavesTheOthersWaiting) {
  Event event;
  absl::Status cancelled;
  absl::Status other;
  ScopedThread first([&] { cancelled = event.Wait(); });
  ScopedThread second([&] { other = event.Wait(); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  first.scope().Cancel(absl::CancelledError("enough"));
  first.Join();
  EXPECT_THAT(cancelled, Says(absl::CancelledError("enough")));
  EXPECT_FALSE(event.is_set());
  event.Set();
  second.Join();
  EXPECT_TRUE(other.ok());
}

// An address on a stack that has been left is written to by nobody.
TEST(Event, AWaitThatWasCancelledLeavesNoTrace) {
  Event event;
  absl::Status status;
  int written = -1;
  ScopedThread waiter([&] {
    status = event.Wait();
    // Where the frame of the wait was.
    [&]() __attribute__((noinline)) {
      volatile char stack[4096] = {};
      event.Set();
      written = 0;
      for (const volatile char& byte : stack) written += byte != 0 ? 1 : 0;
    }
    ();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(written, 0);
}

TEST(Event, AWaitInACancelledScopeFailsThoughTheEventIsSet) {
  Event event;
  event.Set();
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(event.Wait()));
}

TEST(Event, ADeadlineEndsTheWait) {
  Event event;
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(event.Wait()));
}

TEST(Event, MayBeDestroyedBySomebodyItWoke) {
  for (int i = 0; i < 1000; ++i) {
    auto event = std::make_unique<Event>();
    std::thread setter([&event = *event] { event.Set(); });
    if (i % 2 == 0) {
      EXPECT_TRUE(event->Wait().ok());
    } else {
      while (!event->is_set()) std::this_thread::yield();
    }
    event.reset();
    setter.join();
  }
}

TEST(Event, SettingRacesWithCancelling) {
  for (int i = 0; i < 300; ++i) {
    Event event;
    absl::Status status;
    ScopedThread waiter([&] { status = event.Wait(); });
    std::thread setter([&] { event.Set(); });
    waiter.scope().Cancel();
    waiter.Join();
    setter.join();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
  }
}

}  // namespace
}  // namespace tocsin
