// Where the tasks of a group lie, who is woken for them, and when the group has
// ended: the promises of concurrency/internal/task_queue.h.
//
// Most pools here have no threads. Then a task that nobody is woken for stays
// where it is.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// A group with a task that runs in the Wait() of a thread, until Release().
class HeldOpen {
 public:
  explicit HeldOpen(TaskGroup& group) : group_(group) {
    group.Spawn([this] {
      inside_.count_down();
      release_.wait();
    });
    thread_.emplace([this] { EXPECT_TRUE(group_.Wait().ok()); });
    inside_.wait();
  }
  void Release() {
    release_.count_down();
    thread_->Join();
  }

 private:
  TaskGroup& group_;
  std::latch inside_{1};
  std::latch release_{1};
  std::optional<ScopedThread> thread_;
};

// For a closure to own: acts when the closure is destroyed.
std::shared_ptr<void> AtEnd(std::function<void()> act) {
  return {nullptr, [act = std::move(act)](void*) { act(); }};
}

class TaskQueueTest : public testing::Test {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  // Runs `body` on a thread whose tasks do not lie where those of this one do.
  void Elsewhere(const std::function<void()>& body) {
    LetTheNextThreadHave(ShardOfThisThread(*pool_) + 3, *pool_);
    std::thread(body).join();
  }
  // By as many threads as there are shards.
  void AtEveryShard(const std::function<void()>& body) {
    for (uint32_t i = 0; i < kShards; ++i) std::thread(body).join();
  }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.threads = 0, .max_threads = 0});
};

using Spawner = std::function<void(const std::function<void()>&)>;

TEST_F(TaskQueueTest, AnAddedTaskWakesAWaitThatSleeps) {
  TaskGroup group(InPool());
  HeldOpen open(group);
  ScopedThread sleeper([&] { EXPECT_TRUE(group.Wait().ok()); });
  // Again and again: it must count as asleep as often as it is. Who spawns
  // elsewhere goes by the count, so that comes twice in a row.
  for (int round = 0; round < 2; ++round) {
    for (bool here : {false, false, true}) {
      sleeper.AwaitAsleep();
      std::latch ran(1);
      auto spawn = [&] { group.Spawn([&] { ran.count_down(); }); };
      if (here) {
        spawn();
      } else {
        Elsewhere(spawn);
      }
      ran.wait();
    }
  }
  open.Release();
}

TEST_F(TaskQueueTest, ASecondTaskWakesASecondWaitThatSleeps) {
  for (bool here : {true, false}) {
    TaskGroup group(InPool());
    HeldOpen open(group);
    auto wait = [&] { EXPECT_TRUE(group.Wait().ok()); };
    ScopedThread first(wait);
    ScopedThread second(wait);
    first.AwaitAsleep();
    second.AwaitAsleep();
    std::latch met(2);
    auto spawn = [&] {
      for (int i = 0; i < 2; ++i) group.Spawn([&] { met.arrive_and_wait(); });
    };
    if (here) {
      spawn();
    } else {
      Elsewhere(spawn);
    }
    met.wait();
    open.Release();
  }
}

TEST_F(TaskQueueTest, TheLastTaskToEndWakesAllWaitsThatSleep) {
  for (bool here : {true, false}) {
    TaskGroup group(InPool());
    std::latch inside(1);
    std::latch release(1);
    auto spawn = [&] {
      group.Spawn([&] {
        inside.count_down();
        release.wait();
      });
    };
    if (here) {
      spawn();
    } else {
      Elsewhere(spawn);
    }
    auto wait = [&] { EXPECT_TRUE(group.Wait().ok()); };
    ScopedThread runs(wait);
    inside.wait();
    ScopedThread sleeps(wait);
    ScopedThread sleeps_too(wait);
    sleeps.AwaitAsleep();
    sleeps_too.AwaitAsleep();
    release.count_down();
  }
}

TEST_F(TaskQueueTest, AWaitForATaskThatWasSpawnedElsewhereSleeps) {
  TaskGroup group(InPool());
  std::latch inside(1);
  std::latch release(1);
  Elsewhere([&] {
    group.Spawn([&] {
      inside.count_down();
      release.wait();
    });
  });
  ScopedThread runs([&] { EXPECT_TRUE(group.Wait().ok()); });
  inside.wait();
  ScopedThread sleeps([&] {
    pthread_setname_np(pthread_self(), "sleeps");
    EXPECT_TRUE(group.Wait().ok());
  });
  AwaitSleepForGood("sleeps");
  release.count_down();
}

TEST_F(TaskQueueTest, TasksThatOneThreadSpawnsIntoTwoGroupsAreKeptApart) {
  TaskGroup one(InPool());
  TaskGroup other(InPool());
  int ran_of_one = 0;
  int ran_of_other = 0;
  Elsewhere([&] {
    for (int i = 0; i < 2; ++i) {
      one.Spawn([&] { ++ran_of_one; });
      other.Spawn([&] { ++ran_of_other; });
    }
  });
  EXPECT_TRUE(other.Wait().ok());
  EXPECT_EQ(ran_of_one, 0);
  EXPECT_EQ(ran_of_other, 2);
  EXPECT_TRUE(one.Wait().ok());
  EXPECT_EQ(ran_of_one, 2);
}

TEST_F(TaskQueueTest, TasksAreFoundWhereverTheyWereSpawned) {
  TaskGroup group(InPool());
  int ran = 0;
  AtEveryShard([&] { group.Spawn([&] { ++ran; }); });
  EXPECT_EQ(group.running().size(), kShards);
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, kShards);
}

TEST_F(TaskQueueTest, AWorkerFindsTasksWhereverTheyWereSpawned) {
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch ran(kShards);
  AtEveryShard([&] { group.Spawn([&] { ran.count_down(); }); });
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_F(TaskQueueTest, CancelDestroysTasksWhereverTheyWereSpawned) {
  TaskGroup group(InPool());
  auto token = std::make_shared<int>();
  for (int i = 0; i < 2; ++i) {
    AtEveryShard(
        [&] { group.Spawn([token] { ADD_FAILURE() << *token << " ran"; }); });
  }
  group.Cancel();
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_TRUE(group.running().empty());
  EXPECT_TRUE(group.Wait().ok());
}

TEST_F(TaskQueueTest, AClosedGroupTakesNoTaskOfAnyThread) {
  TaskGroup group(InPool());
  ASSERT_TRUE(group.Wait().ok());
  auto token = std::make_shared<int>();
  Elsewhere([&] { group.Spawn([token] {}); });
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(group.failure_count(), 1);
}

// An empty group does not say so.
TEST_F(TaskQueueTest, AGroupThatWasUsedInAnyWaySaysThatItsScopeWasCancelled) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 1});
  CancelScope outer;
  outer.Cancel();
  {
    TaskGroup group({.pool = pool.get()});
    group.Spawn([] {});
    EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  }
  {
    TaskGroup group({.pool = pool.get()});
    Elsewhere([&] { group.Spawn([] {}); });
    EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  }
  {
    TaskGroup group({.pool = pool.get()});
    group.SpawnBackground([] {});
    EXPECT_TRUE(absl::IsCancelled(group.Wait()));
  }
}

TEST_F(TaskQueueTest, EachTaskWithoutANameHasANameOfItsOwn) {
  // The second group gets what the first has left at the shards.
  for (int round = 0; round < 2; ++round) {
    TaskGroup group(InPool());
    for (int i = 0; i < 2; ++i) {
      AtEveryShard([&] { group.Spawn([] {}); });
    }
    for (int i = 0; i < 70; ++i) group.Spawn([] {});
    const std::vector<std::string> names = group.running();
    EXPECT_EQ(names.size(), 2 * kShards + 70);
    const std::set<std::string> different(names.begin(), names.end());
    EXPECT_EQ(different.size(), names.size());
    EXPECT_TRUE(group.Wait().ok());
  }
}

// The thread of a pool that has but one, inside of a task until it may go on.
class Occupied {
 public:
  explicit Occupied(ThreadPool& pool)
      : group_(TaskGroup::Options{.pool = &pool}) {
    group_.Spawn([this] {
      inside_.count_down();
      go_on_.wait();
    });
    inside_.wait();
  }
  ~Occupied() { EXPECT_TRUE(group_.Wait().ok()); }
  void GoOn() { go_on_.count_down(); }

 private:
  TaskGroup group_;
  std::latch inside_{1};
  std::latch go_on_{1};
};

class OneWorkerTest : public testing::Test {
 protected:
  TaskGroup::Options InPool() { return {.pool = pool_.get()}; }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "single", .threads = 1, .max_threads = 1});
};

// Three groups of one thread are known as ready in a row. One of them is
// emptied by its own wait.
TEST_F(OneWorkerTest, AGroupThatHasNothingLeftDoesNotHideTheOthers) {
  for (int emptied = 0; emptied < 3; ++emptied) {
    Occupied worker(*pool_);
    std::latch others(2);
    std::vector<std::unique_ptr<TaskSet>> groups;
    for (int i = 0; i < 3; ++i) {
      groups.push_back(std::make_unique<TaskSet>(InPool()));
      groups[i]->Spawn([&, i] {
        if (i != emptied) others.count_down();
      });
    }
    EXPECT_TRUE(groups[emptied]->Wait().ok());
    worker.GoOn();
    others.wait();
  }
}

TEST_F(OneWorkerTest, AGroupThatHasHadItsTurnHasAnother) {
  Occupied worker(*pool_);
  TaskGroup host(InPool());
  TaskGroup one(InPool());
  TaskGroup other(InPool());
  std::latch ran(4);
  host.Spawn([&] {  // what it spawns lies at the shard of the worker
    for (TaskGroup* group : {&one, &other}) {
      for (int i = 0; i < 2; ++i) group->Spawn([&] { ran.count_down(); });
    }
  });
  worker.GoOn();
  ran.wait();
  EXPECT_TRUE(host.Wait().ok());
  EXPECT_TRUE(one.Wait().ok());
  EXPECT_TRUE(other.Wait().ok());
}

// Both of its tasks spawn themselves again, so that it always has some ready.
TEST_F(OneWorkerTest, AGroupThatAlwaysHasTasksLeavesOthersTheirTurn) {
  constexpr int kEnough = 5000;
  Occupied worker(*pool_);
  TaskGroup host(InPool());
  TaskGroup greedy(InPool());
  TaskGroup modest(InPool());
  int ran = 0;
  int greedy_ran_before = 0;
  bool modest_ran = false;
  std::latch over(1);
  std::function<void()> again = [&] {
    if (++ran == kEnough) over.count_down();
    if (ran < kEnough && !modest_ran) greedy.Spawn(again);
  };
  host.Spawn([&] {  // what it spawns lies at the shard of the worker
    greedy.Spawn(again);
    greedy.Spawn(again);
    modest.Spawn([&] {
      modest_ran = true;
      greedy_ran_before = ran;
      if (ran < kEnough) over.count_down();
    });
  });
  worker.GoOn();
  over.wait();
  EXPECT_TRUE(host.Wait().ok());
  EXPECT_TRUE(greedy.Wait().ok());
  EXPECT_TRUE(modest.Wait().ok());
  EXPECT_LT(greedy_ran_before, kEnough);
}

TEST_F(OneWorkerTest, AWorkerThatAlwaysHasTasksOfItsOwnComesForOthersToo) {
  constexpr int kEnough = 20'000;
  Occupied worker(*pool_);
  TaskGroup host(InPool());
  TaskGroup own(InPool());
  TaskGroup foreign(InPool());
  int ran = 0;
  int own_ran_before = 0;
  bool foreign_ran = false;
  std::latch over(1);
  std::latch spawned(1);
  std::latch waiting(1);
  std::function<void()> again = [&] {
    if (++ran == kEnough) over.count_down();
    if (ran < kEnough && !foreign_ran) own.Spawn(again);
  };
  host.Spawn([&] {
    waiting.count_down();
    spawned.wait();
    own.Spawn(again);
  });
  worker.GoOn();
  waiting.wait();
  foreign.Spawn([&] {
    foreign_ran = true;
    own_ran_before = ran;
    if (ran < kEnough) over.count_down();
  });
  spawned.count_down();
  over.wait();
  EXPECT_TRUE(host.Wait().ok());
  EXPECT_TRUE(own.Wait().ok());
  EXPECT_TRUE(foreign.Wait().ok());
  EXPECT_LT(own_ran_before, kEnough);
}

// A thread that waits for a result runs that task itself, which then counts as
// any other. Another that has to wait for the limit is told when it may.
TEST_F(OneWorkerTest, ATaskThatIsRunByTheWaitForItsResultCountsForTheLimit) {
  Occupied worker(*pool_);
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch inside(1);
  std::latch release(1);
  std::atomic<bool> second_ran = false;
  std::latch second_over(1);
  TaskHandle<void> first = group.SpawnWithResult([&] {
    inside.count_down();
    release.wait();
  });
  TaskHandle<void> second = group.SpawnWithResult([&] {
    second_ran = true;
    second_over.count_down();
  });
  std::thread waits_for_first([&] { EXPECT_TRUE(first.Wait().ok()); });
  inside.wait();
  std::thread waits_for_second([&] {
    pthread_setname_np(pthread_self(), "second");
    EXPECT_TRUE(second.Wait().ok());
  });
  AwaitSleepForGood("second");
  // The worker comes for what is ready, the oldest first.
  TaskGroup other(InPool());
  std::latch other_ran(1);
  other.Spawn([&] { other_ran.count_down(); });
  worker.GoOn();
  other_ran.wait();
  EXPECT_FALSE(second_ran);
  release.count_down();
  second_over.wait();
  waits_for_first.join();
  waits_for_second.join();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(other.Wait().ok());
}

// And a worker comes for what waited for the limit where nobody else does.
TEST_F(OneWorkerTest, WhatAWaitForAResultHeldBackIsStartedAtItsEnd) {
  Occupied worker(*pool_);
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch inside(1);
  std::latch release(1);
  std::latch ran(1);
  TaskHandle<void> first = group.SpawnWithResult([&] {
    inside.count_down();
    release.wait();
  });
  group.Spawn([&] { ran.count_down(); });
  std::thread waits([&] { EXPECT_TRUE(first.Wait().ok()); });
  inside.wait();
  worker.GoOn();
  AwaitSleepForGood("single-");
  release.count_down();
  ran.wait();
  waits.join();
  EXPECT_TRUE(group.Wait().ok());
}

// And none waits for its result: the worker alone comes for the second.
TEST_F(OneWorkerTest, ATaskThatTheLimitHeldBackIsStartedAtTheEndOfAnother) {
  Occupied worker(*pool_);
  TaskGroup group({.pool = pool_.get(), .max_running = 1});
  std::latch ran(3);
  for (int i = 0; i < 3; ++i) group.Spawn([&] { ran.count_down(); });
  worker.GoOn();
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_F(TaskQueueTest, TheEndOfAServiceOrStartedTaskDoesNotRaiseTheLimit) {
  auto pool = *ThreadPool::Create({.name = "limit", .threads = 2});
  TaskGroup group({.pool = pool.get(), .max_running = 1});
  ASSERT_TRUE(group.Start<void>([](auto& started) { return started(); }).ok());
  while (!group.running().empty()) sched_yield();
  std::latch inside(1);
  std::latch release(1);
  group.Spawn([&] {
    inside.count_down();
    release.wait();
  });
  inside.wait();
  std::atomic<bool> second_ran = false;
  group.Spawn([&] { second_ran = true; });
  TaskGroup later({.pool = pool.get()});
  std::latch later_ran(1);
  later.Spawn([&] { later_ran.count_down(); });
  later_ran.wait();
  EXPECT_FALSE(second_ran);
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(later.Wait().ok());
  EXPECT_TRUE(second_ran);
}

// What a Cancel() destroys it destroys with no lock held, and meanwhile those
// tasks are in no list.
class DiscardTest : public TaskQueueTest,
                    public testing::WithParamInterface<bool> {
 protected:
  // Here or elsewhere.
  void Spawning(const std::function<void()>& spawn) {
    if (GetParam()) {
      spawn();
    } else {
      Elsewhere(spawn);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Where, DiscardTest, testing::Bool(),
                         testing::PrintToStringParamName());

TEST_P(DiscardTest, ATaskThatIsKeptWakesAWaitThatFoundNone) {
  TaskGroup group(InPool());
  std::latch destroying(1);
  std::latch go_on(1);
  bool ran = false;
  Spawning([&] {
    group.Spawn([at_end = AtEnd([&] {
                   destroying.count_down();
                   go_on.wait();
                 })] { ADD_FAILURE() << "ran"; });
    group.Spawn([&] { ran = true; }, {.start_even_if_cancelled = true});
  });
  ScopedThread cancels([&] { group.Cancel(); });
  destroying.wait();
  ScopedThread waits([&] { EXPECT_TRUE(group.Wait().ok()); });
  waits.AwaitAsleep();
  go_on.count_down();
  cancels.Join();
  waits.Join();
  EXPECT_TRUE(ran);
}

TEST_P(DiscardTest, ATaskThatIsKeptIsStartedThoughNobodyWaits) {
  auto pool =
      *ThreadPool::Create({.name = "keeper", .threads = 1, .max_threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch inside(1);
  std::atomic<bool> release = false;
  group.Spawn([&] {
    inside.count_down();
    while (!release) sched_yield();  // so that it sleeps only when it is over
  });
  inside.wait();
  std::latch destroying(1);
  std::latch go_on(1);
  std::latch ran(1);
  Spawning([&] {
    group.Spawn([at_end = AtEnd([&] {
                   destroying.count_down();
                   go_on.wait();
                 })] { ADD_FAILURE() << "ran"; });
    group.Spawn([&] { ran.count_down(); }, {.start_even_if_cancelled = true});
  });
  ScopedThread cancels([&] { group.Cancel(); });
  destroying.wait();
  release = true;
  AwaitSleepForGood("keeper-");
  go_on.count_down();
  ran.wait();
  cancels.Join();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_P(DiscardTest, AClosureThatSpawnsAsItIsDestroyedLosesNothing) {
  TaskGroup group(InPool());
  int ran = 0;
  Spawning([&] {
    group.Spawn([&, at_end = AtEnd([&] {
                      for (int i = 0; i < 10; ++i) {
                        group.Spawn([&] { ++ran; },
                                    {.start_even_if_cancelled = true});
                      }
                    })] { ADD_FAILURE() << "ran"; });
    group.Spawn([&] { ++ran; }, {.start_even_if_cancelled = true});
    group.Cancel();
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 11);
}

TEST_P(DiscardTest, AGroupEndsNotBeforeTheLastClosureIsDestroyed) {
  TaskGroup group(InPool());
  std::latch destroying(1);
  std::latch go_on(1);
  std::atomic<bool> destroyed = false;
  Spawning([&] {
    group.Spawn([at_end = AtEnd([&] {
                   destroying.count_down();
                   go_on.wait();
                   destroyed = true;
                 })] { ADD_FAILURE() << "ran"; });
  });
  ScopedThread cancels([&] { group.Cancel(); });
  destroying.wait();
  std::atomic<bool> returned = false;
  ScopedThread waits([&] {
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_TRUE(destroyed);
    returned = true;
  });
  waits.AwaitAsleep();
  EXPECT_FALSE(returned);
  go_on.count_down();  // which wakes it
}

// Each on a thread of its own, so that nothing but who made which group tells
// who waits for whom.
TEST(TaskQueue, ATaskThatWouldWaitForItselfAcrossThreadsIsRefused) {
  auto pool = *ThreadPool::Create({.threads = 4});
  TaskGroup outer({.pool = pool.get()});
  absl::Status status;
  std::latch over(1);
  outer.Spawn([&] {
    TaskGroup middle({.pool = pool.get()});
    middle.Spawn([&] {
      TaskGroup inner({.pool = pool.get()});
      inner.Spawn([&] {
        status = outer.Wait();
        over.count_down();
      });
      over.wait();
      EXPECT_TRUE(inner.Wait().ok());
    });
    over.wait();
    EXPECT_TRUE(middle.Wait().ok());
  });
  over.wait();
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

// As before, on one stack.
TEST_F(TaskQueueTest, ATaskMayWaitForAGroupThatDoesNotWaitForIt) {
  TaskGroup other(InPool());
  bool ran = false;
  other.Spawn([&] { ran = true; });
  TaskGroup group(InPool());
  group.Spawn([&] {
    TaskGroup inner(InPool());
    inner.Spawn([&] { EXPECT_TRUE(other.Wait().ok()); });
    EXPECT_TRUE(inner.Wait().ok());
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(ran);
}

TEST(TaskQueueDeathTest, ATaskThatForksAndReturnsInTheChildIsToldOff) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
        TaskGroup group({.pool = pool.get()});
        int status = 0;
        group.Spawn([&] {
          const pid_t child = fork();
          if (child != 0) waitpid(child, &status, 0);
        });
        const bool joined = group.Wait().ok();
        _exit(joined && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? 0
                                                                           : 1);
      },
      testing::ExitedWithCode(0), "a task forked and returned in the child");
}

}  // namespace
}  // namespace tocsin
