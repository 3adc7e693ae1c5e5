// The windows in the protocols by which tasks find threads, and threads tasks,
// each held open at its step: concurrency/thread_pool.cc tells of them, and
// concurrency/internal/task_queue.h.
//
// The monitor of a pool would after a while make up for what was overlooked. So
// where there is one, it is held.
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iterator>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/pool_testing.h"
#include "tests/steps.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

std::unique_ptr<ThreadPool> PoolOf(int threads, int max_threads) {
  auto pool = *ThreadPool::Create(
      {.name = "races", .threads = threads, .max_threads = max_threads});
  // The main thread is the first to ask for its shard.
  EXPECT_EQ(ShardOfThisThread(*pool), 1);
  return pool;
}

// A task that stands in its thread, unseen by the pool, until Release().
class Blocker {
 public:
  explicit Blocker(TaskGroup& group) {
    group.Spawn([this] {
      inside_.count_down();
      release_.wait();
    });
  }
  void AwaitThread() { inside_.wait(); }
  void Release() {
    if (!released_.exchange(true)) release_.count_down();
  }

 private:
  std::latch inside_{1};
  std::latch release_{1};
  std::atomic<bool> released_{false};
};

// A thread whose tasks lie at `shard`.
class ThreadAtShard {
 public:
  ThreadAtShard(ThreadPool& pool, uint32_t shard, std::function<void()> body)
      : body_(std::move(body)) {
    LetTheNextThreadHave(shard, pool);
    thread_.emplace([this, &pool] {
      ShardOfThisThread(pool);
      numbered_.count_down();
      body_();
    });
    numbered_.wait();
  }
  ScopedThread& operator*() { return *thread_; }
  ScopedThread* operator->() { return &*thread_; }

 private:
  const std::function<void()> body_;
  std::latch numbered_{1};
  std::optional<ScopedThread> thread_;
};

void SpawnElsewhere(ThreadPool& pool, TaskGroup& group,
                    const std::function<void()>& task) {
  LetTheNextThreadHave(ShardOfThisThread(pool) + 3, pool);
  std::thread([&] { group.Spawn(task); }).join();
}

// A thread about to fall asleep in Wait(). ---------------------------------

constexpr char kAboutToSleep[] = "GroupJoin: about to fall asleep";

// A group with a task that runs in the Wait() of one thread, and another thread
// that is about to fall asleep in its Wait().
class AboutToSleepTest : public testing::Test {
 protected:
  AboutToSleepTest() {
    runs_.emplace([this] { EXPECT_TRUE(group_.Wait().ok()); });
    blocker_.AwaitThread();
    sleeps_.emplace([this] { EXPECT_TRUE(group_.Wait().ok()); });
    held_.AwaitThread();
  }
  ~AboutToSleepTest() override { blocker_.Release(); }

  const std::unique_ptr<ThreadPool> pool_ = PoolOf(0, 0);
  HeldAt held_{kAboutToSleep};
  TaskGroup group_{TaskGroup::Options{.pool = pool_.get()}};
  Blocker blocker_{group_};
  std::optional<ScopedThread> runs_;
  std::optional<ScopedThread> sleeps_;
};

TEST_F(AboutToSleepTest, SeesATaskThatIsAddedWhereItLooksFirst) {
  std::latch ran(1);
  group_.Spawn([&] { ran.count_down(); });
  held_.Release();
  ran.wait();
}

TEST_F(AboutToSleepTest, SeesATaskThatIsAddedElsewhere) {
  std::latch ran(1);
  SpawnElsewhere(*pool_, group_, [&] { ran.count_down(); });
  held_.Release();
  ran.wait();
}

TEST_F(AboutToSleepTest, SeesTheEndOfTheLastTask) {
  blocker_.Release();
  runs_->Join();
  held_.Release();
  sleeps_->Join();
}

// Nobody else would cancel it.
TEST(AboutToSleep, SeesThatOnlyTheBackgroundIsLeft) {
  auto pool = PoolOf(1, 3);
  HeldAt held(kAboutToSleep);
  TaskGroup group({.pool = pool.get()});
  group.SpawnBackground([] { return Event().Wait(); });
  Blocker blocker(group);
  blocker.AwaitThread();
  ScopedThread sleeps([&] { EXPECT_TRUE(group.Wait().ok()); });
  held.AwaitThread();
  blocker.Release();
  // By a worker that has done with the task before.
  TaskGroup next({.pool = pool.get()});
  std::latch ran(1);
  next.Spawn([&] { ran.count_down(); });
  ran.wait();
  held.Release();
  sleeps.Join();
}

TEST(WaitRaces, AWaitAboutToSleepSeesTheEndOfTheLastAccount) {
  auto pool = PoolOf(0, 0);
  TaskGroup group({.pool = pool.get()});
  std::latch inside(1);
  std::latch release(1);
  SpawnElsewhere(*pool, group, [&] {
    inside.count_down();
    release.wait();
  });
  ScopedThread runs([&] { EXPECT_TRUE(group.Wait().ok()); });
  inside.wait();
  HeldAt held(kAboutToSleep);
  ScopedThread sleeps([&] { EXPECT_TRUE(group.Wait().ok()); });
  held.AwaitThread();
  release.count_down();
  runs.Join();
  held.Release();
  sleeps.Join();
}

TEST(WaitRaces, AWaitAboutToSleepSeesTheEndOfTheLastStartedTask) {
  auto pool = PoolOf(0, 1);
  TaskGroup group({.pool = pool.get()});
  std::latch release(1);
  ASSERT_TRUE(group
                  .Start<void>([&](auto& started) {
                    EXPECT_TRUE(started().ok());
                    release.wait();
                  })
                  .ok());
  HeldAt held(kAboutToSleep);
  ScopedThread sleeps([&] { EXPECT_TRUE(group.Wait().ok()); });
  held.AwaitThread();
  release.count_down();
  while (!group.running().empty()) sched_yield();
  held.Release();
  sleeps.Join();
}

// The first has been woken and not come yet.
TEST(WaitRaces, ASecondTaskWakesASecondWait) {
  for (bool here : {false, true}) {
    auto pool = PoolOf(0, 0);
    TaskGroup group({.pool = pool.get()});
    Blocker blocker(group);
    auto wait = [&] { EXPECT_TRUE(group.Wait().ok()); };
    ScopedThread runs(wait);
    blocker.AwaitThread();
    ScopedThread first(wait);
    ScopedThread second(wait);
    first.AwaitAsleep();
    second.AwaitAsleep();
    HeldAt woken("GroupJoin: has slept");
    std::latch ran(2);
    auto spawn = [&](TaskGroup& into) {
      if (here) {
        into.Spawn([&] { ran.count_down(); });
      } else {
        SpawnElsewhere(*pool, into, [&] { ran.count_down(); });
      }
    };
    spawn(group);
    woken.AwaitThread();
    spawn(group);
    ran.wait();
    woken.Release();
    blocker.Release();
  }
}

// The one that falls asleep looks at the shards one by one. A worker carries a
// task from one that it has yet to look at to one that it has passed.
TEST(WaitRaces, WhatIsCarriedPastAWaitThatFallsAsleepWakesIt) {
  auto pool = PoolOf(2, 2);
  TaskGroup group({.pool = pool.get()});
  TaskGroup host({.pool = pool.get()});
  // The carrier's shard is before that of the tasks, and the second worker
  // comes from there to that of the tasks first.
  LetTheNextThreadHave(0, *pool);
  Blocker carrier(host);
  carrier.AwaitThread();
  LetTheNextThreadHave(2, *pool);
  Blocker second(host);
  second.AwaitThread();

  HeldAt falls_asleep(kAboutToSleep);
  Blocker blocker(group);
  ScopedThread runs([&] { EXPECT_TRUE(group.Wait().ok()); });
  blocker.AwaitThread();
  ScopedThread sleeps([&] { EXPECT_TRUE(group.Wait().ok()); });
  falls_asleep.AwaitThread();

  // All but the last wait for that.
  std::latch first_begun(1);
  std::latch second_begun(1);
  std::latch last(1);
  std::atomic<int> count{0};
  auto task = [&] {
    const int number = ++count;
    if (number == 3) return last.count_down();
    (number == 1 ? first_begun : second_begun).count_down();
    last.wait();
  };
  ThreadAtShard spawns(*pool, 4, [&] {
    for (int i = 0; i < 3; ++i) group.Spawn(task);
  });
  spawns->Join();
  HeldAt looks("GroupJoin: a shard looked ready to who falls asleep");
  falls_asleep.Release();
  looks.AwaitThread();
  // It runs one and carries one over; the second worker takes the last that is
  // left there.
  carrier.Release();
  first_begun.wait();
  second.Release();
  second_begun.wait();
  looks.Release();
  last.wait();
  blocker.Release();
  EXPECT_TRUE(host.Wait().ok());
}

// The end of a group. -------------------------------------------------------

// Two threads of one shard bring the first tasks of a group there.
TEST(TaskQueueRaces, OfTwoAccountsOpenedForOneShardOneIsClosed) {
  auto pool = PoolOf(0, 0);
  TaskGroup group({.pool = pool.get()});
  int ran = 0;
  auto spawn = [&] { group.Spawn([&] { ++ran; }); };
  const uint32_t shard = ShardOfThisThread(*pool) + 3;
  HeldAt opened("TaskQueue: has opened an account");
  ThreadAtShard first(*pool, shard, spawn);
  opened.AwaitThread();
  ThreadAtShard second(*pool, shard, spawn);
  second->Join();
  opened.Release();
  first->Join();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 2);
}

// Then the group may be gone.
TEST(TaskQueueRaces, AGroupHasNotEndedBeforeWhoEndsItIsThroughWithIt) {
  auto pool = PoolOf(0, 0);
  TaskGroup group({.pool = pool.get()});
  std::atomic<bool> ran = false;
  SpawnElsewhere(*pool, group, [&] { ran = true; });
  HeldAt closes("TaskQueue: about to close the last account");
  ScopedThread runs([&] { EXPECT_TRUE(group.Wait().ok()); });
  closes.AwaitThread();
  EXPECT_TRUE(ran);
  std::atomic<bool> returned = false;
  ScopedThread waits([&] {
    EXPECT_TRUE(group.Wait().ok());
    returned = true;
  });
  waits.AwaitAsleep();
  EXPECT_FALSE(returned);
  closes.Release();
}

// Workers. -------------------------------------------------------------------

constexpr char kAboutToPark[] = "WorkerSlots: a worker is about to park";
constexpr char kStopsSearching[] = "Worker: about to stop searching";
constexpr char kMonitorLooks[] = "PoolMonitor: looks";
constexpr char kMonitorGoesDormant[] = "PoolMonitor: about to go dormant";

TEST(ThreadPoolRaces, ATaskAddedWhileAWorkerParksIsStarted) {
  auto pool = PoolOf(1, 1);
  HeldAt monitor(kMonitorLooks);
  HeldAt parks(kAboutToPark);
  TaskGroup group({.pool = pool.get()});
  std::latch ran(2);
  group.Spawn([&] { ran.count_down(); });
  parks.AwaitThread();
  group.Spawn([&] { ran.count_down(); });
  monitor.AwaitThread();  // no slot was free
  parks.Release();
  ran.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

// It was the one to come for it, but has found something else.
TEST(ThreadPoolRaces, ATaskAddedWhileAWorkerStopsSearchingIsStarted) {
  auto pool = PoolOf(2, 2);
  HeldAt stops(kStopsSearching);
  TaskGroup group({.pool = pool.get()});
  std::latch ran(1);
  group.Spawn([&] { ran.wait(); });
  stops.AwaitThread();
  group.Spawn([&] { ran.count_down(); });
  stops.Release();
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

// One worker looks at the shards one by one, before it stops searching. Another
// carries a task from one that it has yet to look at to one that it has passed.
TEST(ThreadPoolRaces, WhatIsCarriedPastAWorkerThatStopsSearchingIsStarted) {
  auto pool = PoolOf(3, 3);
  std::optional<TaskGroup> group;
  std::latch last(1);
  std::latch carrier_inside(1);
  std::latch carrier_goes_on(1);
  std::latch first_begun(1);
  std::latch second_begun(1);
  std::latch spawn_searched_for(1);
  std::latch spawn_rest(1);
  std::latch rest_spawned(1);
  std::latch wait(1);
  std::atomic<int> count{0};
  auto task = [&] {
    const int number = ++count;
    if (number == 3) return last.count_down();
    (number == 1 ? first_begun : second_begun).count_down();
    last.wait();
  };
  std::latch carrier_numbered(1);
  // The spawner has a shard behind that of the carrier, and all tasks lie
  // there.
  ThreadAtShard spawns(*pool, 9, [&] {
    group.emplace(TaskGroup::Options{.pool = pool.get()});
    carrier_numbered.wait();
    group->Spawn([&] {
      carrier_inside.count_down();
      carrier_goes_on.wait();
    });
    spawn_searched_for.wait();
    group->Spawn([&] { last.wait(); });
    spawn_rest.wait();
    for (int i = 0; i < 3; ++i) group->Spawn(task);
    rest_spawned.count_down();
    wait.wait();
    EXPECT_TRUE(group->Wait().ok());
    group.reset();
  });
  LetTheNextThreadHave(0, *pool);
  carrier_numbered.count_down();
  carrier_inside.wait();
  HeldAt searcher(kStopsSearching);
  spawn_searched_for.count_down();
  searcher.AwaitThread();
  spawn_rest.count_down();
  rest_spawned.wait();
  HeldAt looks("Shard: looked ready");
  searcher.Release();
  looks.AwaitThread();
  carrier_goes_on.count_down();
  first_begun.wait();
  wait.count_down();
  second_begun.wait();
  looks.Release();
  last.wait();
  spawns->Join();
}

// The same, but the one that carries is a thread in Wait().
TEST(ThreadPoolRaces, WhatAWaitCarriesPastAWorkerIsStarted) {
  auto pool = PoolOf(3, 3);
  std::optional<TaskGroup> group;
  std::latch made(1);
  std::latch wait(1);
  ThreadAtShard waits(*pool, 0, [&] {
    group.emplace(TaskGroup::Options{.pool = pool.get()});
    made.count_down();
    wait.wait();
    EXPECT_TRUE(group->Wait().ok());
    group.reset();
  });
  made.wait();
  std::latch last(1);
  std::latch first_begun(1);
  std::latch second_begun(1);
  std::atomic<int> count{0};
  auto task = [&] {
    const int number = ++count;
    if (number == 3) return last.count_down();
    (number == 1 ? first_begun : second_begun).count_down();
    last.wait();
  };
  // All three lie at the shard of a worker, which takes one of them itself.
  TaskGroup host({.pool = pool.get()});
  LetTheNextThreadHave(9, *pool);
  std::latch inside(1);
  std::latch spawn(1);
  std::latch spawned(1);
  std::latch go_on(1);
  host.Spawn([&] {
    inside.count_down();
    spawn.wait();
    for (int i = 0; i < 3; ++i) group->Spawn(task);
    spawned.count_down();
    go_on.wait();
  });
  inside.wait();
  HeldAt searcher(kStopsSearching);
  host.Spawn([&] { last.wait(); });
  searcher.AwaitThread();
  spawn.count_down();
  spawned.wait();
  HeldAt looks("Shard: looked ready");
  searcher.Release();
  looks.AwaitThread();
  wait.count_down();
  first_begun.wait();
  go_on.count_down();
  second_begun.wait();
  looks.Release();
  last.wait();
  waits->Join();
  EXPECT_TRUE(host.Wait().ok());
}

// A thread that has the same shard as the worker leaves it a task there.
TEST(ThreadPoolRaces, AWorkerThatFindsATaskOfItsOwnNoLongerSearches) {
  auto pool = PoolOf(2, 2);
  TaskGroup group({.pool = pool.get()});
  LetTheNextThreadHave(5, *pool);
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  AwaitSleepForGood("races-1");
  std::latch inside(1);
  std::latch release(1);
  ThreadAtShard spawns(*pool, 5, [&] {
    group.Spawn([&] {
      inside.count_down();
      release.wait();
    });
  });
  inside.wait();
  group.Spawn([&] { release.count_down(); });
  release.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(ThreadPoolRaces, ASlotGivenAwayGoesToATaskThatFoundNone) {
  auto pool = PoolOf(1, 2);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  std::latch inside(1);
  std::latch spawned(1);
  std::latch ran(1);
  group.Spawn([&] {
    inside.count_down();
    spawned.wait();
    BlockingRegion region;
    { BlockingRegion nested; }
    ran.wait();
  });
  inside.wait();
  group.Spawn([&] { ran.count_down(); });
  monitor.AwaitThread();
  spawned.count_down();
  ran.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

// The same where the slot is free when the task comes.
TEST(ThreadPoolRaces, ANestedRegionDoesNotTakeTheSlotBack) {
  auto pool = PoolOf(1, 2);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  std::latch inside(1);
  std::latch ran(1);
  group.Spawn([&] {
    BlockingRegion region;
    { BlockingRegion nested; }
    inside.count_down();
    ran.wait();
  });
  inside.wait();
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(ThreadPoolRaces, ATaskWithAThreadOfItsOwnTakesNoSlot) {
  auto pool = PoolOf(1, 3);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  std::latch release(1);
  ASSERT_TRUE(group
                  .Start<void>([&](auto& started) {
                    { BlockingRegion region; }
                    EXPECT_TRUE(started().ok());
                    release.wait();
                  })
                  .ok());
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  monitor.Release();
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

// Once the blocked are back, the first that ends its task makes room.
TEST(ThreadPoolRaces, NoMoreTasksRunThanThereAreSlots) {
  auto pool = PoolOf(1, 2);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  std::latch asleep(1);
  std::latch wake(1);
  std::latch back(1);
  std::latch go_on(1);
  group.Spawn([&] {
    {
      BlockingRegion region;
      asleep.count_down();
      wake.wait();
    }
    back.count_down();
    go_on.wait();
  });
  asleep.wait();
  Blocker second(group);
  second.AwaitThread();
  std::atomic<bool> third_ran = false;
  std::latch third_over(1);
  group.Spawn([&] {
    third_ran = true;
    third_over.count_down();
  });
  monitor.AwaitThread();
  wake.count_down();
  back.wait();
  HeldAt parks(kAboutToPark);
  second.Release();
  parks.AwaitThread();
  EXPECT_FALSE(third_ran);
  parks.Release();
  go_on.count_down();
  third_over.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(ThreadPoolRaces, ASlotForWhichNoThreadCouldBeHadIsFreeAgain) {
  auto pool = PoolOf(1, 3);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  // With its thread comes the monitor, so that it is a worker that is refused.
  group.SpawnBackground([] { Event().Wait().IgnoreError(); });
  std::latch ran(1);
  pthread_attr_t usual;
  ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
  pthread_attr_t too_large;
  pthread_attr_init(&too_large);
  pthread_attr_setstacksize(&too_large, size_t{1} << 47);
  ASSERT_EQ(pthread_setattr_default_np(&too_large), 0);
  group.Spawn([&] { ran.count_down(); });
  ASSERT_EQ(pthread_setattr_default_np(&usual), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(pool->status()));
  // Its thread has no slot, and looks for one when it is done.
  group.SpawnBackground([] {});
  ran.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

// It takes another slot when its task ends.
TEST(ThreadPoolRaces, AWorkerThatLostItsSlotToTheMonitorCountsAgain) {
  auto pool = PoolOf(1, 2);
  TaskGroup group({.pool = pool.get()});
  Blocker first(group);
  first.AwaitThread();
  Blocker second(group);
  second.AwaitThread();  // on a thread that the monitor has sent
  HeldAt monitor(kMonitorLooks);
  std::atomic<bool> third_ran = false;
  std::latch third_over(1);
  group.Spawn([&] {
    third_ran = true;
    third_over.count_down();
  });
  monitor.AwaitThread();
  HeldAt parks(kAboutToPark);
  first.Release();
  parks.AwaitThread();
  EXPECT_FALSE(third_ran);
  parks.Release();
  second.Release();
  third_over.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

// A slot for which there was no thread is given back.
TEST(ThreadPoolRaces, ASlotIsFreeAgainWhereNoMoreThreadsAreMade) {
  auto pool = PoolOf(1, 1);
  HeldAt monitor(kMonitorLooks);
  TaskGroup group({.pool = pool.get()});
  std::latch asleep(1);
  std::latch wake(1);
  group.Spawn([&] {
    BlockingRegion region;
    asleep.count_down();
    wake.wait();
  });
  asleep.wait();
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  monitor.AwaitThread();
  wake.count_down();
  ran.wait();
  AwaitSleepForGood("races-1");
  std::latch ran_too(1);
  group.Spawn([&] { ran_too.count_down(); });
  ran_too.wait();
  monitor.Release();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(ThreadPoolRaces, ASpareThreadThatIsSentAtTheLastMomentStays) {
  auto pool = PoolOf(0, 1);
  TaskGroup group({.pool = pool.get()});
  HeldAt ends("WorkerSlots: a spare thread has had its time");
  auto answer = [](const Started<int>& started) { return started(1); };
  EXPECT_EQ(*group.Start<int>(answer), 1);
  ends.AwaitThread();
  // At the cap, so that no other thread is made.
  absl::StatusOr<int> late = absl::UnknownError("not back");
  ScopedThread starts([&] { late = group.Start<int>(answer); });
  starts.AwaitAsleep();
  ends.Release();
  starts.Join();
  EXPECT_EQ(*late, 1);
  EXPECT_TRUE(group.Wait().ok());
}

// The monitor. ----------------------------------------------------------------

TEST(MonitorRaces, ATaskAddedWhileTheMonitorGoesDormantIsStarted) {
  auto pool = PoolOf(1, 2);
  TaskGroup busy({.pool = pool.get()});
  Blocker blocker(busy);
  blocker.AwaitThread();
  HeldAt dormant(kMonitorGoesDormant);
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});  // has no slot
    EXPECT_TRUE(group.Wait().ok());
  }
  dormant.AwaitThread();
  TaskGroup group({.pool = pool.get()});
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  dormant.Release();
  ran.wait();
  blocker.Release();
  EXPECT_TRUE(busy.Wait().ok());
  EXPECT_TRUE(group.Wait().ok());
}

TEST(MonitorRaces, ATaskAddedWhenTheMonitorIsDormantIsStarted) {
  auto pool = PoolOf(1, 2);
  TaskGroup busy({.pool = pool.get()});
  Blocker blocker(busy);
  blocker.AwaitThread();
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});  // has no slot
    EXPECT_TRUE(group.Wait().ok());
  }
  AwaitSleepForGood("races-monitor");
  TaskGroup group({.pool = pool.get()});
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  blocker.Release();
  EXPECT_TRUE(busy.Wait().ok());
  EXPECT_TRUE(group.Wait().ok());
}

// The end of a pool. ----------------------------------------------------------

// A thread that destroys a pool. Members that a thread sleeps in lie in the
// pool, but the word that pthread_join(3) sleeps in does not.
class Destroyer {
 public:
  explicit Destroyer(std::unique_ptr<ThreadPool> pool)
      : pool_(std::move(pool)),
        begin_(reinterpret_cast<uintptr_t>(pool_.get())),
        thread_([this] {
          pthread_setname_np(pthread_self(), "destroyer");
          pool_.reset();
          over_ = true;
        }) {}
  ~Destroyer() { thread_.Join(); }

  bool over() const { return over_; }
  bool Joins(const std::filesystem::path& thread) const {
    const uintptr_t word = FutexOfSleep(thread);
    return word != 0 && (word < begin_ || word >= begin_ + sizeof(ThreadPool));
  }
  // Returns once it waits for the end of a thread, or is over.
  void AwaitJoin() const {
    while (!over_) {
      for (const std::filesystem::path& thread : ThreadsNamed("destroyer")) {
        if (Joins(thread)) return;
      }
      sched_yield();
    }
  }
  void AwaitAsleep() { thread_.AwaitAsleep(); }

 private:
  std::unique_ptr<ThreadPool> pool_;
  const uintptr_t begin_;
  std::atomic<bool> over_{false};
  ScopedThread thread_;
};

// Stands in its destructor, as that of a thread_local variable, until told.
struct AtThreadEnd {
  ~AtThreadEnd() {
    if (inside == nullptr) return;
    inside->count_down();
    release->wait();
  }
  std::latch* inside = nullptr;
  std::latch* release = nullptr;
};
thread_local AtThreadEnd at_thread_end;

TEST(ThreadPoolRaces, APoolThatIsDestroyedEndsAWorkerThatIsAboutToPark) {
  auto pool = PoolOf(1, 1);
  HeldAt parks(kAboutToPark);
  {
    TaskGroup group({.pool = pool.get()});
    std::latch ran(1);
    group.Spawn([&] { ran.count_down(); });
    ran.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
  parks.AwaitThread();
  Destroyer destroyer(std::move(pool));
  destroyer.AwaitAsleep();
  parks.Release();
}

TEST(ThreadPoolRaces, APoolIsNotDestroyedBeforeItsLastThreadHasEnded) {
  auto pool = PoolOf(1, 1);
  std::latch inside(1);
  std::latch release(1);
  {
    TaskGroup group({.pool = pool.get()});
    std::latch ran(1);
    group.Spawn([&] {
      at_thread_end.inside = &inside;
      at_thread_end.release = &release;
      ran.count_down();
    });
    ran.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
  AwaitSleepForGood("races-1");
  Destroyer destroyer(std::move(pool));
  inside.wait();
  destroyer.AwaitJoin();
  EXPECT_FALSE(destroyer.over());
  release.count_down();
}

TEST(ThreadPoolRaces, APoolIsNotDestroyedBeforeAnyOfItsThreadsHasEnded) {
  auto pool = PoolOf(2, 2);
  std::latch inside(1);
  std::latch release(1);
  std::optional<HeldAt> parks;
  {
    TaskGroup group({.pool = pool.get()});
    std::atomic<bool> go_on = false;
    std::latch begun(1);
    group.Spawn([&] {
      at_thread_end.inside = &inside;
      at_thread_end.release = &release;
      begun.count_down();
      while (!go_on) sched_yield();
    });
    begun.wait();
    Blocker second(group);
    second.AwaitThread();
    go_on = true;
    AwaitSleepForGood("races-1");
    parks.emplace(kAboutToPark);
    second.Release();
    parks->AwaitThread();
    EXPECT_TRUE(group.Wait().ok());
  }
  // The first ends first, and stands there.
  Destroyer destroyer(std::move(pool));
  inside.wait();
  parks->Release();
  // The second waits for it, and the destructor for the second.
  destroyer.AwaitJoin();
  std::vector<std::filesystem::path> second;
  while (second = ThreadsNamed("races-2"),
         !second.empty() && !destroyer.Joins(second.front())) {
    sched_yield();
  }
  EXPECT_FALSE(second.empty());
  EXPECT_FALSE(destroyer.over());
  release.count_down();
}

TEST(ThreadPoolRaces, APoolIsNotDestroyedBeforeItsMonitorHasEnded) {
  auto pool = PoolOf(0, 1);
  HeldAt monitor(kMonitorLooks);
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});
    EXPECT_TRUE(group.Wait().ok());
  }
  monitor.AwaitThread();
  Destroyer destroyer(std::move(pool));
  destroyer.AwaitJoin();
  EXPECT_FALSE(destroyer.over());
  monitor.Release();
}

TEST(ThreadPoolRaces, APoolIsDestroyedWhileItsMonitorGoesDormant) {
  auto pool = PoolOf(0, 1);
  HeldAt monitor(kMonitorGoesDormant);
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});
    EXPECT_TRUE(group.Wait().ok());
  }
  monitor.AwaitThread();
  Destroyer destroyer(std::move(pool));
  destroyer.AwaitJoin();
  EXPECT_FALSE(destroyer.over());
  monitor.Release();
}

TEST(ThreadPoolRaces, APoolIsDestroyedWhileItsMonitorIsDormant) {
  auto pool = PoolOf(0, 1);
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});
    EXPECT_TRUE(group.Wait().ok());
  }
  AwaitSleepForGood("races-monitor");
  Destroyer destroyer(std::move(pool));
}

// A child that a task forks. --------------------------------------------

int ThreadsOfThisProcess() {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return static_cast<int>(std::distance(begin(threads), end(threads)));
}

// Where it sleeps, a worker lets another take its slot, which runs what is
// queued. The child has all of that in its memory, and is no worker.
TEST(ForkRaces, WhereAChildForkedByATaskSleepsItRunsNothingOfItsParent) {
  HeldAt monitor("PoolMonitor: looks");  // it would send a worker in the parent
  auto pool = *ThreadPool::Create({.name = "races", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  TaskSet other({.pool = pool.get()});
  TaskHandle<int> over = group.SpawnWithResult([] { return 1; });
  EXPECT_TRUE(over.Wait().ok());
  std::latch inside(1);
  std::latch queued(1);
  std::latch child_is_over(1);
  std::vector<TaskHandle<int>> waiting;
  int status = -1;
  group.Spawn([&] {
    inside.count_down();
    queued.wait();
    Child child(Fork([&] {
      alarm(30);
      const auto dead = absl::StatusCode::kFailedPrecondition;
      CancelScope scope({.timeout = absl::Milliseconds(1)});
      EXPECT_FALSE(Sleep(absl::InfiniteDuration()).ok());
      EXPECT_EQ(ThreadsOfThisProcess(), 1);
      CancelScope unlimited({.shield = true});
      EXPECT_TRUE(Sleep(absl::Nanoseconds(1)).ok());
      auto in_1_ms = [](auto wait) {
        CancelScope timed({.timeout = absl::Milliseconds(1)});
        EXPECT_FALSE(wait().ok());
        EXPECT_EQ(ThreadsOfThisProcess(), 1);
      };
      BlockingQueue<int> queue(1);
      in_1_ms([&] { return queue.Pop(); });
      EXPECT_TRUE(queue.Push(0).ok());
      in_1_ms([&] { return queue.Push(1); });
      in_1_ms([] { return Event().Wait(); });
      Semaphore semaphore(1);
      const auto permit = semaphore.TryAcquire();
      in_1_ms([&] { return semaphore.Acquire(); });
      { const BlockingRegion region; }
      EXPECT_EQ(ThreadsOfThisProcess(), 1);
      for (TaskHandle<int>& handle : waiting) {
        handle.Cancel();
        EXPECT_EQ(handle.Wait().code(), dead);
        EXPECT_EQ(handle.Take().status().code(), dead);
      }
      EXPECT_EQ(*over.Take(), 1);
      EXPECT_EQ(group.Wait().code(), dead);
      EXPECT_EQ(other.Wait().code(), dead);
      EXPECT_EQ(pool->status().code(), dead);
      EXPECT_EQ(ThreadsOfThisProcess(), 1);
    }));
    status = child.Wait();
    child_is_over.count_down();
  });
  inside.wait();
  for (int i = 0; i < 10; ++i) {
    waiting.push_back(group.SpawnWithResult([] { return 2; }));
  }
  other.Spawn([] {});
  monitor.AwaitThread();
  queued.count_down();
  child_is_over.wait();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(other.Wait().ok());
  EXPECT_EQ(ExitStatus(status), 0);
  monitor.Release();
  for (TaskHandle<int>& handle : waiting) EXPECT_EQ(*handle.Take(), 2);
}

// The memory of tasks.
// -----------------------------------------------------------

// Makes tasks until the common store has been asked for some, and gives them
// back until it got some.
void UseTaskStore() {
  constexpr int kMany = 4 * internal::BlockCache::kBatch;
  std::vector<internal::Task*> tasks;
  for (int i = 0; i < kMany; ++i) {
    tasks.push_back(internal::Task::New([] { return absl::OkStatus(); }));
  }
  for (internal::Task* task : tasks) {
    task->Discard();
    internal::Task::Free(task);
  }
}

TEST(TaskRaces, AChildForkedWhileAnotherThreadUsesTheStoreHasTasksToo) {
  HeldAt locked("Task: the store is locked");
  ScopedThread uses(UseTaskStore);
  locked.AwaitThread();
  int status = -1;
  ScopedThread forks([&] {
    Child child(Fork([] {
      alarm(3);
      UseTaskStore();
    }));
    status = child.Wait();
  });
  forks.AwaitAsleep();
  locked.Release();
  forks.Join();
  EXPECT_EQ(ExitStatus(status), 0);
}

}  // namespace
}  // namespace tocsin
