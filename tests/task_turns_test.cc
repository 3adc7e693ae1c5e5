// How many other tasks a ready task has to let past: the bound of
// concurrency/thread_pool.h. Tasks are counted, never time.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {
namespace {

// What the header promises, where the tasks of so many threads and groups are
// ready.
constexpr int Bound(int threads, int groups) { return 1025 * threads * groups; }

// How many tasks each thread has started.
class Starts {
 public:
  void Count() {
    internal::MutexLock lock(mutex_);
    ++of_thread_[std::this_thread::get_id()];
  }
  // Of the thread that has started the most.
  int most() const {
    internal::MutexLock lock(mutex_);
    int most = 0;
    for (const auto& [thread, count] : of_thread_) most = std::max(most, count);
    return most;
  }

 private:
  mutable absl::Mutex mutex_;
  std::map<std::thread::id, int> of_thread_ ABSL_GUARDED_BY(mutex_);
};

// A task that is spawned again as soon as it has started, until a task that
// waits has started, or until it is certain that it starts too late.
class Flood {
 public:
  Flood(ThreadPool& pool, int enough)
      : group_(TaskSet::Options{.pool = &pool}), enough_(enough) {}

  // In the shard of this thread.
  void Spawn() {
    group_.Spawn([this] {
      starts_.Count();
      if (!over() && ++spawned_ <= enough_) Spawn();
      if (spawned_ > enough_) End();
    });
  }
  // Call it in the task that waits.
  void End() {
    if (over_.exchange(true)) return;
    most_ = starts_.most();
    ended_.count_down();
  }
  bool over() const { return over_; }
  // How many tasks of the flood one thread had started by then.
  int MostBeforeEnd() {
    ended_.wait();
    group_.Cancel();
    EXPECT_TRUE(group_.Wait().ok());
    return most_;
  }

 private:
  TaskSet group_;
  const int enough_;
  Starts starts_;
  std::atomic<int> spawned_ = 0;
  std::atomic<bool> over_ = false;
  int most_ = 0;
  std::latch ended_{1};
};

// Keeps all threads of a pool inside of tasks until GoOn().
class AllOccupied {
 public:
  AllOccupied(ThreadPool& pool, int threads)
      : group_(TaskSet::Options{.pool = &pool}), inside_(threads) {
    for (int i = 0; i < threads; ++i) {
      group_.Spawn([this] {
        inside_.count_down();
        go_on_.wait();
      });
    }
    inside_.wait();
  }
  void GoOn() {
    go_on_.count_down();
    EXPECT_TRUE(group_.Wait().ok());
  }

 private:
  TaskSet group_;
  std::latch inside_;
  std::latch go_on_{1};
};

std::unique_ptr<ThreadPool> PoolOf(int threads) {
  return *ThreadPool::Create(
      {.name = "turns", .threads = threads, .max_threads = threads});
}

void OnAnotherThread(const std::function<void()>& body) {
  std::thread(body).join();
}

class TaskTurnsTest : public testing::TestWithParam<int> {};

std::string PoolSize(const testing::TestParamInfo<int>& info) {
  return "PoolOf" + std::to_string(info.param);
}
INSTANTIATE_TEST_SUITE_P(, TaskTurnsTest, testing::Values(1, 2, 8), PoolSize);

// Each of a few threads has more tasks of one group ready than workers ever
// come for, and these fill the workers' own shards as well.
TEST_P(TaskTurnsTest, AGroupIsNotKeptWaitingByOneThatSeveralThreadsFlood) {
  constexpr int kGroups = 2;
  for (int flooders : {1, 3}) {
    for (bool same_thread : {true, false}) {
      SCOPED_TRACE(testing::Message() << flooders << " flood, the "
                                      << (same_thread ? "same" : "other"));
      const int bound = Bound(GetParam() + flooders + 1, kGroups);
      auto pool = PoolOf(GetParam());
      Flood flood(*pool, 2 * GetParam() * bound);
      TaskSet second({.pool = pool.get()});
      AllOccupied workers(*pool, GetParam());
      auto spawn_second = [&] { second.Spawn([&] { flood.End(); }); };
      for (int i = 0; i < flooders; ++i) {
        OnAnotherThread([&] {
          for (int task = 0; task < 3000; ++task) flood.Spawn();
          if (same_thread && i == 0) spawn_second();
        });
      }
      if (!same_thread) OnAnotherThread(spawn_second);
      workers.GoOn();
      EXPECT_LT(flood.MostBeforeEnd(), bound);
      EXPECT_TRUE(second.Wait().ok());
    }
  }
}

// The shards that have something ready come one after the other, from whichever
// the worker looks.
TEST(TaskTurns, AThreadIsNotKeptWaitingByThoseThatComeBeforeIt) {
  const int bound = Bound(3, 1);
  auto pool = PoolOf(1);
  Flood flood(*pool, 100 * bound);
  TaskSet host({.pool = pool.get()});
  TaskSet before({.pool = pool.get()});
  TaskSet waiting({.pool = pool.get()});
  LetTheNextThreadHave(2, *pool);
  std::latch inside(1);
  std::latch ready(1);
  host.Spawn([&] {
    inside.count_down();
    ready.wait();
    flood.Spawn();  // in the shard of the worker, which has something for ever
  });
  inside.wait();
  OnAnotherThread([&] {
    for (int i = 0; i < 300; ++i) before.Spawn([] {});
  });
  OnAnotherThread([&] { waiting.Spawn([&] { flood.End(); }); });
  ready.count_down();
  EXPECT_LT(flood.MostBeforeEnd(), bound);
  for (TaskSet* set : {&host, &before, &waiting}) EXPECT_TRUE(set->Wait().ok());
}

// A worker carries many over, and where they lie then, newer ones are added.
TEST(TaskTurns, ATaskThatWasCarriedOverIsNotOvertakenByNewerOnesOfItsGroup) {
  const int bound = Bound(2, 1);
  auto pool = PoolOf(1);
  TaskSet group({.pool = pool.get()});
  AllOccupied worker(*pool, 1);
  int newer = 0;
  int newer_before = 0;
  std::latch ran(1);
  std::function<void()> again = [&] {
    if (newer_before == 0 && ++newer < 10 * bound) group.Spawn(again);
  };
  OnAnotherThread([&] {
    group.Spawn([] {});
    group.Spawn(again);
    group.Spawn([&] {
      newer_before = newer;
      ran.count_down();
    });
    for (int i = 0; i < 400; ++i) group.Spawn([] {});
  });
  worker.GoOn();
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_LT(newer_before, bound);
}

// One worker takes from a group at its shard each time before another comes
// there, which always finds the turn of the same other group.
TEST(TaskTurns, AThiefThatFindsTheSameGroupEachTimeKeepsNoOtherWaiting) {
  auto pool = PoolOf(2);
  TaskSet hosts({.pool = pool.get()});
  TaskSet stolen({.pool = pool.get()});
  TaskSet waiting({.pool = pool.get()});
  TaskSet of_thief({.pool = pool.get()});
  std::atomic<int> stolen_begun = 0;
  std::atomic<int> taken_begun = 0;
  std::atomic<int> stolen_before = -1;
  auto over = [&] { return stolen_before >= 0; };
  std::latch inside(2);
  std::latch ready(1);
  hosts.Spawn([&] {
    inside.arrive_and_wait();
    waiting.Spawn([&] { stolen_before = stolen_begun.load(); });
    for (int i = 0; i < 1100; ++i) {
      waiting.Spawn([&] {
        ++taken_begun;
        while (stolen_begun < taken_begun && !over()) sched_yield();
      });
    }
    for (int i = 0; i < 1100; ++i) stolen.Spawn([&] { ++stolen_begun; });
    ready.count_down();
  });
  std::function<void()> again = [&] {
    while (taken_begun <= stolen_begun && !over()) sched_yield();
    if (!over()) of_thief.Spawn(again);
  };
  hosts.Spawn([&] {
    inside.arrive_and_wait();
    ready.wait();
    of_thief.Spawn(again);
  });
  while (!over()) sched_yield();
  for (TaskSet* set : {&hosts, &stolen, &waiting, &of_thief}) {
    EXPECT_TRUE(set->Wait().ok());
  }
  EXPECT_LT(stolen_before, 4);
}

// Where no thread of the pool comes, a wait runs the tasks of its group.
TEST(TaskTurns, AWaitThatAlwaysHasTasksComesForThoseOfEveryThread) {
  const int bound = Bound(3, 1);
  auto pool = PoolOf(0);
  TaskGroup group({.pool = pool.get()});
  int ran = 0;
  int ran_before = 0;
  std::function<void()> again = [&] {
    if (ran_before == 0 && ++ran < 10 * bound) group.Spawn(again);
  };
  group.Spawn(again);
  const uint32_t here = ShardOfThisThread(*pool);
  LetTheNextThreadHave(here + 1, *pool);
  OnAnotherThread([&] {
    for (int i = 0; i < 100; ++i) group.Spawn([] {});
  });
  LetTheNextThreadHave(here + 2, *pool);
  OnAnotherThread([&] { group.Spawn([&] { ran_before = ran; }); });
  LetTheNextThreadHave(here + 3, *pool);
  OnAnotherThread([&] {
    for (int i = 0; i < 100; ++i) group.Spawn([] {});
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_LT(ran_before, bound);
}

// Its thread is there for one task at a time.
TEST(TaskTurns, AThreadOfAPoolOfNoneComesForItsOwnTasksAndThoseOfOthers) {
  constexpr int kFew = 4;
  for (bool waits_at_own_shard : {true, false}) {
    auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 1});
    Flood flood(*pool, 5 * kFew);
    TaskSet host({.pool = pool.get()});
    TaskSet waiting({.pool = pool.get()});
    std::latch begun(1);
    auto spawn_waiting = [&] { waiting.Spawn([&] { flood.End(); }); };
    host.Spawn([&] {
      if (waits_at_own_shard) {
        begun.wait();
        spawn_waiting();
      } else {
        flood.Spawn();
        begun.count_down();
      }
    });
    if (waits_at_own_shard) {
      for (int i = 0; i < 5 * kFew; ++i) flood.Spawn();
      begun.count_down();
    } else {
      begun.wait();
      spawn_waiting();
    }
    EXPECT_LE(flood.MostBeforeEnd(), kFew);
    EXPECT_TRUE(host.Wait().ok());
    EXPECT_TRUE(waiting.Wait().ok());
  }
}

}  // namespace
}  // namespace tocsin
