// The windows in events, queues, starts and handles, each held open at its
// step.
#include <sched.h>

#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "tests/steps.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

const absl::Status& NotBack() {
  static const absl::Status& status =
      *new absl::Status(absl::UnknownError("not back"));
  return status;
}

TEST(EventRaces, ASetAtTheMomentOfACancelCounts) {
  Event event;
  HeldAt cancelled("Event: wait is over");
  absl::Status status = NotBack();
  ScopedThread waiter([&] { status = event.Wait(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  cancelled.AwaitThread();
  event.Set();
  cancelled.Release();
  waiter.Join();
  EXPECT_EQ(status, absl::OkStatus());
}

TEST(EventRaces, ASetBetweenTheLookAndTheWaitIsSeen) {
  Event event;
  AtStep set("Event: about to wait", [&] { event.Set(); });
  EXPECT_EQ(event.Wait(), absl::OkStatus());
  EXPECT_TRUE(set.passed());
}

TEST(EventRaces, ASetMeetsAWaitOnlyBeforeOrAfterItsEntry) {
  Event event;
  HeldAt entering("Event: in the list");
  absl::Status status = NotBack();
  ScopedThread waiter([&] { status = event.Wait(); });
  entering.AwaitThread();
  ScopedThread setter([&] { event.Set(); });
  setter.AwaitAsleep();
  EXPECT_FALSE(event.is_set());
  entering.Release();
  setter.Join();
  waiter.Join();
  EXPECT_EQ(status, absl::OkStatus());
}

TEST(EventRaces, ItsDestructorLetsTheSetGetOut) {
  std::optional<Event> event(std::in_place);
  HeldAt setting("Event: is set");
  ScopedThread setter([set = &*event] { set->Set(); });
  setting.AwaitThread();
  EXPECT_TRUE(event->is_set());  // so it may be destroyed
  std::atomic<bool> destroyed{false};
  ScopedThread destroyer([&] {
    event.reset();
    destroyed = true;
  });
  destroyer.AwaitAsleep();
  EXPECT_FALSE(destroyed);
  setting.Release();
}

void ExpectItem(const absl::StatusOr<int>& popped, int item) {
  ASSERT_EQ(popped.status(), absl::OkStatus());
  EXPECT_EQ(*popped, item);
}

TEST(BlockingQueueRaces, AnItemThatComesBeforeAPopFallsAsleepIsTaken) {
  BlockingQueue<int> queue(kUnbounded);
  AtStep push("BlockingQueue: about to wait for an item",
              [&] { EXPECT_EQ(queue.TryPush(1), absl::OkStatus()); });
  EXPECT_EQ(*queue.Pop(), 1);
  EXPECT_TRUE(push.passed());
}

TEST(BlockingQueueRaces, RoomThatComesBeforeAPushFallsAsleepIsUsed) {
  BlockingQueue<int> queue(1);
  ASSERT_EQ(queue.TryPush(1), absl::OkStatus());
  AtStep pop("BlockingQueue: about to wait for room",
             [&] { ExpectItem(queue.TryPop(), 1); });
  EXPECT_EQ(queue.Push(2), absl::OkStatus());
  EXPECT_TRUE(pop.passed());
  ExpectItem(queue.TryPop(), 2);
}

TEST(BlockingQueueRaces, ACloseBeforeAPopFallsAsleepEndsIt) {
  BlockingQueue<int> queue(kUnbounded);
  AtStep close("BlockingQueue: about to wait for an item",
               [&] { queue.Close(); });
  EXPECT_TRUE(absl::IsOutOfRange(queue.Pop().status()));
  EXPECT_TRUE(close.passed());
}

TEST(BlockingQueueRaces, ACloseBeforeAPushFallsAsleepEndsIt) {
  BlockingQueue<int> queue(1);
  ASSERT_EQ(queue.TryPush(1), absl::OkStatus());
  AtStep close("BlockingQueue: about to wait for room", [&] { queue.Close(); });
  EXPECT_TRUE(absl::IsOutOfRange(queue.Push(2)));
  EXPECT_TRUE(close.passed());
  ExpectItem(queue.TryPop(), 1);
  EXPECT_TRUE(absl::IsOutOfRange(queue.TryPop().status()));
}

TEST(BlockingQueueRaces, AnItemGivenAtTheMomentOfACancelIsReturned) {
  BlockingQueue<int> queue(kUnbounded);
  HeldAt cancelled("BlockingQueue: wait is over");
  absl::StatusOr<int> item = NotBack();
  ScopedThread popper([&] { item = queue.Pop(); });
  popper.AwaitAsleep();
  popper.scope().Cancel();
  cancelled.AwaitThread();
  ASSERT_EQ(queue.TryPush(1), absl::OkStatus());
  cancelled.Release();
  popper.Join();
  EXPECT_EQ(item.status(), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnavailable(queue.TryPop().status()));
}

TEST(BlockingQueueRaces, AnItemTakenAtTheMomentOfACancelWasPushed) {
  for (size_t capacity : {0, 1}) {
    BlockingQueue<int> queue(capacity);
    if (capacity > 0) {
      ASSERT_EQ(queue.TryPush(1), absl::OkStatus());
    }
    HeldAt cancelled("BlockingQueue: wait is over");
    absl::Status status = NotBack();
    ScopedThread pusher([&] { status = queue.Push(2); });
    pusher.AwaitAsleep();
    pusher.scope().Cancel();
    cancelled.AwaitThread();
    EXPECT_EQ(queue.TryPop().status(), absl::OkStatus());
    cancelled.Release();
    pusher.Join();
    EXPECT_EQ(status, absl::OkStatus());
  }
}

// One that was refused is in no list that it could leave.
TEST(BlockingQueueRaces, ACloseAtTheMomentOfACancelSaysThatItIsClosed) {
  BlockingQueue<int> queue(1);
  HeldAt cancelled("BlockingQueue: wait is over");
  absl::Status status = NotBack();
  ScopedThread popper([&] { status = queue.Pop().status(); });
  popper.AwaitAsleep();
  popper.scope().Cancel();
  cancelled.AwaitThread();
  queue.Close();
  cancelled.Release();
  popper.Join();
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
}

class StartRaces : public testing::Test {
 protected:
  // Returns once no task of the group is left.
  void AwaitNoTask() const {
    while (!group_.running().empty()) sched_yield();
  }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.threads = 1, .max_threads = 3});
  TaskGroup group_{{.pool = pool_.get()}};
};

TEST_F(StartRaces, ATaskThatAnnouncedItselfAtTheMomentOfACancelHasStarted) {
  HeldAt cancelled("Start: wait is over");
  std::latch go(1);
  std::latch announced(1);
  std::latch returned(1);
  absl::Status seen = NotBack();
  absl::StatusOr<int> value = NotBack();
  ScopedThread starter([&] {
    value = group_.Start<int>([&](const Started<int>& started) {
      go.wait();
      EXPECT_EQ(started(7), absl::OkStatus());
      announced.count_down();
      returned.wait();
      seen = CheckCancelled();
    });
  });
  starter.AwaitAsleep();
  starter.scope().Cancel();
  cancelled.AwaitThread();
  go.count_down();
  announced.wait();
  cancelled.Release();
  starter.Join();
  returned.count_down();
  EXPECT_TRUE(group_.Wait().ok());
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(*value, 7);
  EXPECT_EQ(seen, absl::OkStatus());  // it is the group's alone
}

TEST_F(StartRaces, ATaskThatFailsAtTheMomentOfACancelSaysWhy) {
  HeldAt cancelled("Start: wait is over");
  std::latch go(1);
  absl::Status status = NotBack();
  ScopedThread starter([&] {
    status = group_.Start<void>([&](const Started<void>&) {
      go.wait();
      return absl::NotFoundError("no such port");
    });
  });
  starter.AwaitAsleep();
  starter.scope().Cancel();
  cancelled.AwaitThread();
  go.count_down();
  AwaitNoTask();
  cancelled.Release();
  starter.Join();
  EXPECT_EQ(status, absl::NotFoundError("no such port"));
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(StartRaces, ATaskMayEndWhileItsStartGivesUp) {
  HeldAt gives_up("Start: gives up");
  std::latch go(1);
  absl::Status announced = NotBack();
  absl::Status status = NotBack();
  ScopedThread starter([&] {
    status = group_.Start<void>([&](const Started<void>& started) {
      go.wait();
      announced = started();
    });
  });
  starter.AwaitAsleep();
  starter.scope().Cancel(absl::CancelledError("give up"));
  gives_up.AwaitThread();
  go.count_down();
  AwaitNoTask();
  gives_up.Release();
  starter.Join();
  EXPECT_TRUE(absl::IsCancelled(announced)) << announced;
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(status.message(), "give up");
  EXPECT_TRUE(group_.Wait().ok());
}

using TaskHandleRaces = StartRaces;

TEST_F(TaskHandleRaces, AResultThatComesAtTheMomentOfACancelIsReturned) {
  HeldAt cancelled("TaskHandle: wait is over");
  std::latch started(1);
  std::latch go(1);
  TaskHandle<int> handle = group_.SpawnWithResult([&] {
    started.count_down();
    go.wait();
    return 4;
  });
  started.wait();
  absl::StatusOr<int> result = NotBack();
  ScopedThread waiter([&] { result = handle.Take(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  cancelled.AwaitThread();
  go.count_down();
  AwaitNoTask();
  cancelled.Release();
  waiter.Join();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, 4);
  EXPECT_TRUE(group_.Wait().ok());
}

}  // namespace
}  // namespace tocsin
