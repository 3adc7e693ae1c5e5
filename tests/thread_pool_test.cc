// What the pool promises: progress, few threads, and none in vain. What it does
// to its process is tested on child processes, which a hang would end.
#include "tocsin/concurrency/thread_pool.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <latch>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/started.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/wait.h"

namespace tocsin {
namespace {

using testing::ExitedWithCode;
using testing::HasSubstr;

absl::Status SleepUntilCancelled() {
  internal::Sleeper sleeper("a test");
  while (true) {
    if (absl::Status status = sleeper.Sleep(); !status.ok()) return status;
  }
}

std::string ThreadName() {
  char name[16];
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

// ThreadSanitizer makes no threads in a forked child.
#ifdef ABSL_HAVE_THREAD_SANITIZER
constexpr bool kThreadsAfterFork = false;
#else
constexpr bool kThreadsAfterFork = true;
#endif

// For the body of a death test: ends the child if it hangs.
void WatchChild() { alarm(60); }

TEST(ThreadPool, RefusesNumbersThatMakeNoSense) {
  absl::Status status = ThreadPool::Create({.threads = -1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is 0 or more"));
  status = ThreadPool::Create({.max_threads = -1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is 0 or more"));
  status = ThreadPool::Create({.threads = 3, .max_threads = 2}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("raise it"));
  EXPECT_TRUE(ThreadPool::Create({.max_threads = 1}).ok());
}

// And UndefinedBehaviorSanitizer finds nothing to say.
TEST(ThreadPool, AsManyThreadsAsThereAreNumbersMayRun) {
  constexpr int kAll = std::numeric_limits<int>::max();
  auto pool = *ThreadPool::Create({.threads = kAll, .max_threads = kAll});
  TaskGroup group({.pool = pool.get()});
  std::latch all(100);
  for (int i = 0; i < 100; ++i) group.Spawn([&] { all.arrive_and_wait(); });
  EXPECT_TRUE(group.Wait().ok());
}

// Trio threads: names reach the OS thread, cut to 15 bytes.
TEST(ThreadPool, ItsThreadsBearItsName) {
  auto pool =
      *ThreadPool::Create({.name = "a-name-that-is-too-long", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::string name;
  std::latch ran(1);
  group.Spawn([&] {
    name = ThreadName();
    ran.count_down();
  });
  ran.wait();  // and not by Wait(), which may run it here
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(name, "a-name-that-i-1");
}

TEST(ThreadPool, AServiceGivesItsNameToItsThread) {
  auto pool = *ThreadPool::Create({.name = "pool", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::string name;
  group.SpawnBackground([&] { name = ThreadName(); },
                        {.name = "signal-dispatcher"});
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(name, "signal-dispatch");
}

class ThreadPoolTest : public testing::TestWithParam<int> {
 protected:
  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "test", .threads = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(Workers, ThreadPoolTest, testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

// More tasks than workers, all of which must run at once to get anywhere. They
// sleep in waits of the library, so no time passes before the next starts; with
// workers, nobody waits for the monitor.
TEST_P(ThreadPoolTest, AWorkerThatSleepsInAWaitGivesItsSlotAway) {
  TaskGroup group({.pool = pool_.get()});
  std::latch asleep(20);
  for (int i = 0; i < 20; ++i) {
    group.Spawn([&] {
      asleep.count_down();
      SleepUntilCancelled().IgnoreError();
    });
  }
  asleep.wait();
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(pool_->status().ok());
}

TEST_P(ThreadPoolTest, SoDoesOneInABlockingRegion) {
  TaskGroup group({.pool = pool_.get()});
  std::latch met(20);
  for (int i = 0; i < 20; ++i) {
    group.Spawn([&] {
      BlockingRegion region;
      BlockingRegion nested;
      met.arrive_and_wait();
    });
  }
  met.wait();
  EXPECT_TRUE(group.Wait().ok());
}

// The same by the fact that tells a slot given away from one that the monitor
// took: it is dormant, because there was always a slot.
TEST(ThreadPool, ASlotGivenAwayIsFreeAtOnce) {
  auto pool = *ThreadPool::Create({.name = "giver", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  group.Spawn([] { SleepUntilCancelled().IgnoreError(); });
  AwaitSleepForGood("giver-1");
  AwaitSleepForGood("giver-monitor");
  std::latch entered(1);
  std::latch release(1);
  group.Spawn([&] {
    BlockingRegion region;
    entered.count_down();
    release.wait();
  });
  entered.wait();
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  EXPECT_EQ(ThreadsNamed("giver-").size(), 3 + 1);
  EXPECT_TRUE(SleepForGood("giver-monitor"));
  release.count_down();
  group.Cancel();
  EXPECT_TRUE(group.Wait().ok());
}

// P: 8 tasks block for ever in foreign code, a ninth still runs; and others
// after it.
TEST_P(ThreadPoolTest, TasksThatBlockUnseenAreFoundOut) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  TaskGroup group({.pool = pool_.get()});
  for (int i = 0; i < 8; ++i) {
    group.Spawn([&] {
      char byte;
      while (read(pipe_ends[0], &byte, 1) < 0) {
      }
    });
  }
  std::latch others(3);
  for (int i = 0; i < 3; ++i) group.Spawn([&] { others.count_down(); });
  others.wait();
  group.Cancel();
  close(pipe_ends[1]);  // the end of file ends the reads
  EXPECT_TRUE(group.Wait().ok());
  close(pipe_ends[0]);
}

// performance.md: k blocking tasks on k workers all start while the spawner
// does nothing more. A lost wake-up is a hang here.
TEST_P(ThreadPoolTest, EveryBlockingTaskStartsWithoutHelp) {
  const int workers = GetParam();
  if (workers == 0) GTEST_SKIP() << "nobody but the monitor would start them";
  for (int round = 0; round < 200; ++round) {
    TaskGroup group({.pool = pool_.get()});
    std::latch met(workers);
    for (int i = 0; i < workers; ++i) {
      group.Spawn([&] { met.arrive_and_wait(); });
    }
    met.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
}

// A thread takes the newest of its own tasks first, but not always.
TEST(ThreadPool, ATaskIsNotOvertakenForEver) {
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch older_ran(1);
  std::atomic<bool> over{false};
  std::function<void()> again = [&] {
    if (!over) group.Spawn(again);
  };
  group.Spawn([&] {
    group.Spawn([&] { older_ran.count_down(); });
    group.Spawn(again);
  });
  older_ran.wait();
  over = true;
  EXPECT_TRUE(group.Wait().ok());
}

// A worker takes tasks over by the batch. Those behind one that blocks are for
// others.
TEST(ThreadPool, ABatchBehindATaskThatBlocksIsTakenByOthers) {
  auto pool = *ThreadPool::Create({.threads = 2});
  for (int round = 0; round < 50; ++round) {
    constexpr int kTasks = 64;
    TaskGroup group({.pool = pool.get()});
    std::atomic<bool> first{true};
    std::latch others(kTasks - 1);
    for (int i = 0; i < kTasks; ++i) {
      group.Spawn([&] {
        if (first.exchange(false)) {
          others.wait();
        } else {
          others.count_down();
        }
      });
    }
    others.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
}

// What a task spawns lies at the shard of its thread.
TEST(ThreadPool, TasksOfTasksAreNamedAndDiscardedLikeOthers) {
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch spawned(1);
  std::latch release(1);
  auto token = std::make_shared<int>();
  group.Spawn(
      [&] {
        for (int i = 0; i < 10; ++i) {
          group.Spawn([token] {}, {.name = "inner"});
        }
        spawned.count_down();
        release.wait();
      },
      {.name = "outer"});
  spawned.wait();
  std::vector<std::string> names(11, "inner");
  names[0] = "outer";
  EXPECT_EQ(group.running(), names);
  EXPECT_GT(token.use_count(), 1);
  group.Cancel();
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(group.running(), std::vector<std::string>{"outer"});
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

// The pool has no thread left but the one that waits; so that one must come for
// what a task elsewhere spawns.
TEST(ThreadPool, AWaitAtTheCapRunsWhatTasksOnOtherThreadsSpawn) {
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
  for (int round = 0; round < 200; ++round) {
    TaskGroup group({.pool = pool.get()});
    std::latch on_worker(1);
    group.Spawn([&] {
      on_worker.count_down();
      std::latch all(10);
      for (int i = 0; i < 10; ++i) group.Spawn([&all] { all.count_down(); });
      all.wait();  // unseen by the pool
    });
    on_worker.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
}

// AnyIO, Trio: idle workers are used again, not multiplied.
TEST(ThreadPool, NoMoreThreadsThanAskedForWhereNothingBlocks) {
  auto pool = *ThreadPool::Create({.threads = 2});
  std::set<pthread_t> seen;
  std::mutex mutex;
  for (int round = 0; round < 50; ++round) {
    TaskGroup group({.pool = pool.get()});
    std::latch all(2);
    for (int i = 0; i < 2; ++i) {
      group.Spawn([&] {
        {
          std::lock_guard lock(mutex);
          seen.insert(pthread_self());
        }
        all.arrive_and_wait();
      });
    }
    all.wait();
    EXPECT_TRUE(group.Wait().ok());
  }
  seen.erase(pthread_self());
  EXPECT_EQ(seen.size(), 2);
}

TEST(ThreadPool, AtTheCapATaskThatNeedsAThreadGetsAnIdleOneOrNone) {
  auto pool =
      *ThreadPool::Create({.name = "cap", .threads = 1, .max_threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch release(1);
  auto start_and_stay = [&](auto& started) {
    EXPECT_TRUE(started().ok());
    release.wait();
  };
  ASSERT_TRUE(group.Start<void>(start_and_stay, {.name = "guest"}).ok());
  const absl::Status refused = group.Start<void>(start_and_stay);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("the pool has 1, which is its max_threads"));
  EXPECT_EQ(ThreadsNamed("guest").size(), 1);
  release.count_down();
  AwaitSleepForGood("cap-1");  // it has its own name back
  EXPECT_TRUE(group.Start<void>([](auto& started) { return started(); }).ok());
  EXPECT_TRUE(group.Wait().ok());
}

TEST(ThreadPool, WithoutAnyThreadsWaitRunsAllTasksOnItsOwn) {
  const size_t threads_before = ThreadsNamed("").size();
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  std::set<std::thread::id> runners;
  for (int i = 0; i < 10; ++i) {
    group.Spawn([&] {
      runners.insert(std::this_thread::get_id());
      TaskGroup inner({.pool = pool.get()});
      for (int j = 0; j < 10; ++j) {
        inner.Spawn([&] { runners.insert(std::this_thread::get_id()); });
      }
      EXPECT_TRUE(inner.Wait().ok());
    });
  }
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(runners, std::set{std::this_thread::get_id()});
  EXPECT_LE(ThreadsNamed("").size(), threads_before);
}

// At the cap, with all threads blocked, the wait of a group still runs its own.
TEST(ThreadPool, AtTheCapWaitsRunTheirOwnTasks) {
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 2});
  TaskGroup blocked({.pool = pool.get()});
  std::latch asleep(2);
  for (int i = 0; i < 2; ++i) {
    blocked.Spawn([&] {
      asleep.count_down();
      SleepUntilCancelled().IgnoreError();
    });
  }
  asleep.wait();
  TaskGroup group({.pool = pool.get()});
  std::atomic<int> ran{0};
  for (int i = 0; i < 10; ++i) group.Spawn([&] { ++ran; });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 10);
  group.SpawnBackground([] {});
  blocked.Cancel();
  EXPECT_TRUE(blocked.Wait().ok());
}

// AnyIO: a group is as good as new to each of many threads that use one pool.
TEST_P(ThreadPoolTest, GroupsOfManyThreadsShareAPool) {
  std::vector<std::thread> threads;
  std::atomic<int> ran{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        TaskGroup group({.pool = pool_.get()});
        for (int i = 0; i < 10; ++i) group.Spawn([&] { ++ran; });
        EXPECT_TRUE(group.Wait().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran, 4000);
}

TEST(ThreadPool, APoolThatWasNeverUsedIsDestroyedWithoutAThread) {
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(ThreadPool::Create({}).ok());
}

// The context of a task is that of its group, not of the pool's threads.
TEST_P(ThreadPoolTest, ATaskIsCancelledWithItsGroupOnly) {
  TaskSet cancelled({.pool = pool_.get()});
  TaskSet other({.pool = pool_.get()});
  std::latch asleep(2);
  std::latch first_over(1);
  absl::Status status;
  other.Spawn([&] {
    CancelScope own;
    asleep.count_down();
    first_over.wait();
    status = CheckCancelled();
  });
  cancelled.Spawn([&] {
    asleep.count_down();
    SleepUntilCancelled().IgnoreError();
  });
  asleep.wait();
  cancelled.Cancel();
  EXPECT_TRUE(cancelled.Wait().ok());
  first_over.count_down();
  EXPECT_TRUE(other.Wait().ok());
  EXPECT_TRUE(status.ok());
}

using ThreadPoolDeathTest = testing::TestWithParam<int>;

INSTANTIATE_TEST_SUITE_P(Workers, ThreadPoolDeathTest,
                         testing::Values(0, 1, 2, 8),
                         testing::PrintToStringParamName());

// P: two tasks on two workers that each spawn and wait inside.
TEST_P(ThreadPoolDeathTest, TasksThatSpawnAndWaitInsideDoNotHang) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        WatchChild();
        auto pool = *ThreadPool::Create({.threads = GetParam()});
        TaskGroup group({.pool = pool.get()});
        for (int i = 0; i < 2; ++i) {
          group.Spawn([&] {
            TaskGroup inner({.pool = pool.get()});
            for (int j = 0; j < 2; ++j) inner.Spawn([] {});
            return inner.Wait();
          });
        }
        _exit(group.Wait().ok() ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

// P: a task throws: no abort, no silence.
#ifdef ABSL_HAVE_EXCEPTIONS
TEST_P(ThreadPoolDeathTest, ATaskThatThrowsDoesNotEndTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        WatchChild();
        auto pool = *ThreadPool::Create({.threads = GetParam()});
        TaskGroup group({.pool = pool.get()});
        group.Spawn([] { throw std::runtime_error("lost?"); });
        std::fprintf(stderr, "%s\n", group.Wait().ToString().c_str());
        _exit(0);
      },
      ExitedWithCode(0), "task 1 threw std::runtime_error: lost\\?");
}
#endif

// The destructor would wait for the thread that it runs on, or for a task that
// waits for it, or leave a group without its pool.
TEST(ThreadPoolDeathTest, DestroyedBeforeATaskHasEndedItEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr char kSays[] = "ThreadPool \"early\" was destroyed before a task";
  auto make = [](int threads) {
    WatchChild();
    return *ThreadPool::Create({.name = "early", .threads = threads});
  };
  for (int threads : {0, 1, 2}) {
    EXPECT_DEATH(
        {
          auto pool = make(threads);
          TaskGroup group({.pool = pool.get()});
          group.Spawn([&] { pool.reset(); });
          group.Wait().IgnoreError();
        },
        kSays);
    EXPECT_DEATH(
        {
          static auto pool = make(threads);
          TaskGroup group({.pool = pool.get()});
          group.Spawn([] { std::exit(0); });
          group.Wait().IgnoreError();
        },
        kSays);
  }
  EXPECT_DEATH(
      {
        auto pool = make(1);
        TaskGroup group({.pool = pool.get()});
        std::latch begun(1);
        group.Spawn([&] {
          begun.count_down();
          std::latch(1).wait();
        });
        begun.wait();
        pool.reset();
      },
      kSays);
  EXPECT_DEATH(
      {
        auto pool = *ThreadPool::Create(
            {.name = "early", .threads = 0, .max_threads = 0});
        TaskGroup group({.pool = pool.get()});
        group.Spawn([] {});
        pool.reset();
      },
      kSays);
  EXPECT_DEATH(
      {
        auto pool = *ThreadPool::Create(
            {.name = "early", .threads = 0, .max_threads = 0});
        TaskGroup group({.pool = pool.get()});
        std::thread([&] { group.Spawn([] {}); }).join();
        pool.reset();
      },
      kSays);
}

// What would let the others go on is queued behind them, and nobody waits for
// the group.
TEST(ThreadPool, SaysThatAllItsThreadsAreTakenWhileATaskIsReady) {
  auto pool =
      *ThreadPool::Create({.name = "full", .threads = 2, .max_threads = 2});
  TaskGroup group({.pool = pool.get()});
  std::latch go_on(1);
  std::latch begun(2);
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&] {
      begun.count_down();
      go_on.wait();
    });
  }
  begun.wait();
  EXPECT_TRUE(pool->status().ok());
  group.Spawn([] {});
  absl::Status status;
  while (status.ok()) {
    std::this_thread::yield();
    status = pool->status();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.ToString(), HasSubstr("\"full\""));
  EXPECT_THAT(status.ToString(), HasSubstr("all 2 threads"));
  go_on.count_down();
  EXPECT_TRUE(group.Wait().ok());
  while (!pool->status().ok()) std::this_thread::yield();
}

// Trio: the cache of threads is empty in a forked child; after fork() the pool
// says so rather than hang.
TEST_P(ThreadPoolDeathTest, InAForkedChildThePoolIsDeadAndSaysSo) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        WatchChild();
        auto pool = *ThreadPool::Create({.threads = GetParam()});
        TaskGroup group({.pool = pool.get()});
        // Both run before the fork: a thread that is just being made may hold
        // the lock of AddressSanitizer's allocator, which the child then never
        // gets.
        std::latch started(2);
        auto start_and_sleep = [&] {
          started.count_down();
          SleepUntilCancelled().IgnoreError();
        };
        group.Spawn(start_and_sleep);
        group.SpawnBackground(start_and_sleep);
        started.wait();
        const pid_t child = fork();
        if (child == 0) {
          WatchChild();
          const auto dead = absl::StatusCode::kFailedPrecondition;
          bool right = pool->status().code() == dead;
          group.Spawn([] { _exit(3); });
          right &= group.Wait().code() == dead;
          right &= group.running().empty();
          group.Cancel();
          {
            TaskGroup late({.pool = pool.get()});
            late.SpawnBackground([] { _exit(4); });
            right &= late.Wait().code() == dead;
            right &= late.failures().size() == 1;
          }
          // A pool of the child's own works.
          if (!kThreadsAfterFork) _exit(right ? 0 : 5);
          auto own = *ThreadPool::Create({.threads = 1});
          TaskGroup fresh({.pool = own.get()});
          std::latch ran(1);
          fresh.Spawn([&] { ran.count_down(); });
          ran.wait();
          right &= fresh.Wait().ok();
          std::exit(right ? 0 : 5);
        }
        int status = 0;
        waitpid(child, &status, 0);
        group.Cancel();
        if (!group.Wait().ok()) _exit(6);
        if (!WIFEXITED(status)) _exit(7);
        _exit(WEXITSTATUS(status));
      },
      ExitedWithCode(0), "");
}

// A group on the stack of a thread that forks is destroyed in the child, too.
TEST(ThreadPoolDeathTest, AForkedChildMayLeaveTheScopesOfItsParent) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        WatchChild();
        pid_t child = -1;
        {
          CancelScope outer;
          TaskGroup group;
          std::latch started(1);
          group.Spawn([&] {
            started.count_down();
            SleepUntilCancelled().IgnoreError();
          });
          started.wait();
          child = fork();
          if (child != 0) group.Cancel();
        }
        if (child == 0) _exit(0);
        int status = 0;
        waitpid(child, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
      },
      ExitedWithCode(0), "");
}

// B, Trio: the system refuses a thread. Tasks still run, in Wait(), and the
// pool tells why nobody else ran them.
TEST(ThreadPoolDeathTest, WhereNoThreadCanBeHadTasksRunAllTheSame) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        WatchChild();
        auto pool = *ThreadPool::Create({.threads = 2});
        // From here on every thread asks for a larger stack than can be had.
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, size_t{1} << 47);
        if (pthread_setattr_default_np(&attributes) != 0) _exit(8);
        TaskGroup group({.pool = pool.get()});
        int ran = 0;
        for (int i = 0; i < 100; ++i) group.Spawn([&] { ++ran; });
        if (!group.Wait().ok() || ran != 100) _exit(1);
        std::fprintf(stderr, "%s\n", pool->status().ToString().c_str());
        TaskGroup served({.pool = pool.get()});
        served.SpawnBackground([] {});
        if (!absl::IsResourceExhausted(served.Wait())) _exit(2);
        _exit(0);
      },
      ExitedWithCode(0),
      "RESOURCE_EXHAUSTED: pthread_create for the thread pool ");
}

// The last of the others ends when the waiting thread is asleep already.
TEST_P(ThreadPoolTest, AServiceIsCancelledAlsoByAWaitThatHasFallenAsleep) {
  TaskGroup group({.pool = pool_.get()});
  group.SpawnBackground([] { SleepUntilCancelled().IgnoreError(); });
  std::latch release(1);
  EXPECT_TRUE(group
                  .Start<void>([&](auto& started) {
                    EXPECT_TRUE(started().ok());
                    release.wait();
                  })
                  .ok());
  std::thread waiter([&] {
    pthread_setname_np(pthread_self(), "waiter");
    EXPECT_TRUE(group.Wait().ok());
  });
  while (ThreadsNamed("waiter").empty() || !SleepForGood("waiter")) {
    std::this_thread::yield();
  }
  release.count_down();
  waiter.join();
}

TEST(ThreadPool, AnIdlePoolSleepsWithoutATimeOut) {
  auto pool = *ThreadPool::Create({.name = "idler", .threads = 2});
  TaskGroup group({.pool = pool.get()});
  std::latch all(2);
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&] { all.arrive_and_wait(); });
  }
  std::atomic<bool> third{false};
  group.Spawn([&] { third = true; });  // keeps the monitor up for a while
  all.wait();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_TRUE(third);
  while (!SleepForGood("idler")) {
    std::this_thread::yield();
  }
}

// A worker's thread is one like any other once the worker is gone. ----------

// Calls what a thread was given when its thread_local objects are destroyed.
struct AtThreadEnd {
  ~AtThreadEnd() {
    if (call == nullptr) return;
    OverwriteWhatIsFree();
    call();
  }
  // So that whoever uses a worker that is gone fails.
  static void OverwriteWhatIsFree() {
    std::vector<std::unique_ptr<std::string>> memory;
    for (size_t size = 64; size <= 1024; size += 16) {
      for (int i = 0; i < 8; ++i) {
        memory.push_back(std::make_unique<std::string>(size - 8, '\xff'));
      }
    }
  }
  std::function<void()> call;
};
thread_local std::optional<BlockingRegion> region_left_open;
thread_local AtThreadEnd at_thread_end;  // destroyed before that

void UseAllThatKnowsTheThread() {
  EXPECT_TRUE(Sleep(absl::Milliseconds(1)).ok());
  {
    BlockingRegion region;
    BlockingRegion nested;
  }
  BlockingQueue<int> queue{kRendezvous};
  EXPECT_EQ(
      MoveOnAfter(absl::Milliseconds(1), [&] { queue.Push(1).IgnoreError(); }),
      TimeLimit::kPassed);
  TaskGroup group;
  std::atomic<int> ran = 0;
  group.Spawn([&] { ++ran; });
  TaskHandle<int> handle = group.SpawnWithResult([&] { return ++ran; });
  EXPECT_TRUE(handle.Wait().ok());
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 2);
}

// How a thread comes to its end, having used the pool.
struct ThreadEnd {
  const char* name;
  ThreadPool::Options pool;
  std::function<void(TaskGroup&, std::function<void()>)> run;
  bool retires;  // before the pool is destroyed
};

void RunQueued(TaskGroup& group, std::function<void()> task) {
  group.Spawn(std::move(task));
}
void RunOnOwnThread(TaskGroup& group, std::function<void()> task) {
  EXPECT_TRUE(group
                  .Start<void>([&](const Started<void>& started) {
                    task();
                    return started();
                  })
                  .ok());
}
void RunInWaitOfAThread(TaskGroup& group, std::function<void()> task) {
  std::thread([&] {
    EXPECT_TRUE(group.SpawnWithResult(std::move(task)).Wait().ok());
  }).join();
}

class ThreadEndTest : public testing::TestWithParam<ThreadEnd> {
 protected:
  // Returns once the thread that ran `task` has ended.
  static void RunToTheEnd(std::function<void()> task) {
    const ThreadEnd& end = GetParam();
    auto pool = *ThreadPool::Create(end.pool);
    std::latch ran(1);
    {
      TaskGroup group({.pool = pool.get()});
      end.run(group, [&] {
        task();
        ran.count_down();
      });
      ran.wait();
      EXPECT_TRUE(group.Wait().ok());
    }
    // The monitor stays.
    while (end.retires && ThreadsNamed(end.pool.name + "-").size() > 1) {
      std::this_thread::yield();
    }
  }
};

TEST_P(ThreadEndTest, ItsThreadLocalObjectsMayUseTheLibraryToTheLast) {
  std::latch used(1);
  RunToTheEnd([&] {
    at_thread_end.call = [&] {
      UseAllThatKnowsTheThread();
      used.count_down();
    };
  });
  used.wait();
}

TEST_P(ThreadEndTest, ARegionThatOutlivesTheWorkerReturnsToNothing) {
  RunToTheEnd([] {
    at_thread_end.call = [] { region_left_open.reset(); };
    region_left_open.emplace();
  });
}

INSTANTIATE_TEST_SUITE_P(
    , ThreadEndTest,
    testing::Values(
        ThreadEnd{"Worker", {.name = "end", .threads = 1}, RunQueued, false},
        ThreadEnd{"Worker8", {.name = "end", .threads = 8}, RunQueued, false},
        ThreadEnd{
            "OwnThread", {.name = "end", .threads = 1}, RunOnOwnThread, false},
        ThreadEnd{"SpareThread",
                  {.name = "end", .threads = 0, .max_threads = 1},
                  RunOnOwnThread,
                  true},
        ThreadEnd{"ForeignThread",
                  {.name = "end", .threads = 0, .max_threads = 0},
                  RunInWaitOfAThread,
                  false}),
    [](const auto& end) { return std::string(end.param.name); });

// Trio: idle workers exit; those that are too many once the blocked are back.
TEST(ThreadPool, SpareThreadsEndAfterAWhile) {
  auto pool = *ThreadPool::Create({.name = "spare", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch all(4);
  for (int i = 0; i < 4; ++i) {
    group.Spawn([&] {
      BlockingRegion region;
      all.arrive_and_wait();
    });
  }
  all.wait();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_GE(ThreadsNamed("spare-").size(), 3 + 1);
  while (ThreadsNamed("spare-").size() > 1 + 1) std::this_thread::yield();
  // Which are sent no more.
  TaskGroup next({.pool = pool.get()});
  EXPECT_TRUE(
      next.Start<void>([](const Started<void>& started) { return started(); })
          .ok());
}

}  // namespace
}  // namespace tocsin
