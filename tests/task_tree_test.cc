// What reports tell of the threads and tasks of the process.
#include "tocsin/concurrency/internal/task_tree.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/started.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"

namespace tocsin {
namespace {

using internal::TaskTree;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;

std::string Tree() { return absl::StrJoin(TaskTree(), "\n"); }

// Where durations and threads are `_`.
std::string Masked(const std::string& tree) {
  std::string masked;
  bool skip = false;
  for (size_t i = 0; i < tree.size(); ++i) {
    const absl::string_view rest = absl::string_view(tree).substr(i);
    if (skip && absl::ascii_isalnum(rest[0])) continue;
    if (skip && rest[0] == '.') continue;
    skip = false;
    masked += rest[0];
    if (absl::EndsWith(masked, " for ") && absl::ascii_isdigit(rest[1])) {
      masked += '_';
      skip = true;
    } else if (absl::EndsWith(masked, "(thread ")) {
      masked += '_';
      skip = true;
    }
  }
  return masked;
}

// Returns once the tree says that; a test hangs whose tree never does.
void AwaitTree(const std::string& text) {
  while (!absl::StrContains(Masked(Tree()), text)) sched_yield();
}

// Groups run their tasks in Wait(), and nowhere else.
std::unique_ptr<ThreadPool> WithoutThreads() {
  return *ThreadPool::Create(
      {.threads = ThreadPool::Options::kRunInWait, .max_threads = 0});
}

TEST(TaskTree, NamesTheCallThatATaskWaitsIn) {
  BlockingQueue<int> full(1);
  ASSERT_TRUE(full.TryPush(1).ok());
  BlockingQueue<int> empty(1);
  Event event;
  Semaphore semaphore(0);
  absl::Mutex mutex;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const struct {
    const char* call;
    std::function<absl::Status()> wait;
  } waits[] = {
      {"Push()", [&] { return full.Push(2); }},
      {"Pop()", [&] { return empty.Pop().status(); }},
      {"Event::Wait()", [&] { return event.Wait(); }},
      {"Acquire()", [&] { return semaphore.Acquire().status(); }},
      {"Sleep()", [] { return Sleep(absl::InfiniteDuration()); }},
      {"PollFd()", [&] { return PollFd(ends[0], POLLIN).status(); }},
      {"Await()",
       [&] {
         absl::MutexLock lock(&mutex);
         bool ready = false;
         return Await(mutex, absl::Condition(&ready));
       }},
  };
  for (const auto& wait : waits) {
    TaskSet tasks({.name = "visitors"});
    tasks.Spawn([&] { return wait.wait(); }, {.name = "visitor"});
    AwaitTree(absl::StrCat("group \"visitors\"\n  visitor waits in ", wait.call,
                           " for _ (thread _)"));
    tasks.Cancel();
    EXPECT_TRUE(tasks.Wait().ok());
  }
  close(ends[0]);
  close(ends[1]);
}

TEST(TaskTree, TellsOfTheThreadsOfTasksAndOfTheMainThread) {
  TaskSet tasks;
  std::latch started(1), release(1);
  pid_t thread = 0;
  tasks.Spawn(
      [&] {
        thread = gettid();
        started.count_down();
        release.wait();
      },
      {.name = "loader"});
  started.wait();
  EXPECT_EQ(Tree(),
            absl::StrCat("main runs (thread ", getpid(),
                         ")\na group\n  loader runs (thread ", thread, ")"));
  release.count_down();
  EXPECT_TRUE(tasks.Wait().ok());
  EXPECT_EQ(Tree(), absl::StrCat("main runs (thread ", getpid(), ")"));
}

TEST(TaskTree, TellsWhatHasNotBegun) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskSet tasks({.pool = pool.get(), .name = "loads", .max_running = 1});
  std::latch started(1), release(1);
  tasks.Spawn(
      [&] {
        started.count_down();
        release.wait();
      },
      {.name = "loader"});
  started.wait();
  for (int i = 0; i < 12; ++i) tasks.Spawn([] {});
  EXPECT_THAT(Masked(Tree()),
              AllOf(HasSubstr("group \"loads\"\n"
                              "  loader runs (thread _)\n"
                              "  task 2 has not begun\n"
                              "  task 3 has not begun\n"),
                    HasSubstr("\n  task 11 has not begun\n"
                              "  and 2 more that have not begun")));
  release.count_down();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, NamesNoMoreTasksThatSeveralThreadsHaveSpawned) {
  auto pool = WithoutThreads();
  TaskSet tasks({.pool = pool.get()});
  const auto spawn = [&] {
    for (int i = 0; i < 8; ++i) tasks.Spawn([] {}, {.name = "load"});
  };
  spawn();
  std::jthread(spawn).join();
  const std::string tree = Tree();
  const std::vector<std::string> parts =
      absl::StrSplit(tree, "load has not begun");
  EXPECT_THAT(parts, SizeIs(11)) << tree;
  EXPECT_THAT(tree, HasSubstr("\n  and 6 more that have not begun"));
}

TEST(TaskTree, ATaskThatHasWaitedRuns) {
  TaskSet tasks;
  Event event;
  std::latch release(1);
  tasks.Spawn(
      [&] {
        event.Wait().IgnoreError();
        release.wait();
      },
      {.name = "visitor"});
  AwaitTree("visitor waits in");
  event.Set();
  AwaitTree("visitor runs");
  release.count_down();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, ABlockingRegionIsAWaitUntilItEnds) {
  TaskSet tasks;
  std::latch release(1), release_again(1);
  tasks.Spawn(
      [&] {
        {
          BlockingRegion outer;
          { BlockingRegion inner; }
          release.wait();
        }
        release_again.wait();
      },
      {.name = "visitor"});
  AwaitTree("visitor waits in a BlockingRegion for ");
  release.count_down();
  AwaitTree("visitor runs");
  release_again.count_down();
  EXPECT_TRUE(tasks.Wait().ok());
}

// The wait runs the inner tasks on its own stack.
TEST(TaskTree, HasTheTasksOfAGroupBelowWhatWaitsForIt) {
  auto pool = WithoutThreads();
  Event event;
  std::jthread main([&] {
    TaskGroup group({.pool = pool.get(), .name = "main"});
    group.Spawn(
        [&] {
          TaskGroup files({.pool = pool.get(), .name = "files"});
          files.Spawn(
              [&] {
                TaskGroup blocks({.pool = pool.get()});
                blocks.Spawn([&] { return event.Wait(); }, {.name = "block"});
                return blocks.Wait();
              },
              {.name = "file"});
          return files.Wait();
        },
        {.name = "index"});
    EXPECT_TRUE(group.Wait().ok());
  });
  AwaitTree(
      "\na thread waits in Wait() and runs tasks of group \"main\" "
      "(thread _)\n"
      "  index waits in Wait() and runs tasks of group \"files\" "
      "(thread _)\n"
      "    file waits in Wait() and runs tasks of a group (thread _)\n"
      "      block waits in Event::Wait() for _ (thread _)");
  event.Set();
}

TEST(TaskTree, NamesTheGroupThatAThreadWaitsFor) {
  TaskSet tasks;
  Event event;
  tasks.Spawn(
      [&] {
        TaskGroup files({.name = "files"});
        EXPECT_TRUE(files
                        .Start<void>([&](Started<void>& started) {
                          EXPECT_TRUE(started().ok());
                          return event.Wait();
                        })
                        .ok());
        return files.Wait();
      },
      {.name = "index"});
  AwaitTree(
      "  index waits in Wait() for _, for group \"files\" (thread _)"
      "\n    started task 1 waits in Event::Wait() for _ (thread _)");
  event.Set();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, HasAThreadThatHasMadeNoGroup) {
  auto pool = WithoutThreads();
  TaskSet tasks({.pool = pool.get(), .name = "visits"});
  Event event;
  tasks.Spawn([&] { return event.Wait(); }, {.name = "visitor"});
  std::jthread waits([&] { EXPECT_TRUE(tasks.Wait().ok()); });
  AwaitTree(
      "a thread waits in Wait() and runs tasks of group \"visits\" "
      "(thread _)\n"
      "  visitor waits in Event::Wait() for _ (thread _)");
  event.Set();
}

TEST(TaskTree, HasAGroupBelowTheTaskThatMadeIt) {
  TaskSet tasks;
  std::latch release(1);
  Event event;
  tasks.Spawn(
      [&] {
        TaskGroup files({.name = "files"});
        files.Spawn([&] { return event.Wait(); }, {.name = "file"});
        release.wait();
        return files.Wait();
      },
      {.name = "index"});
  AwaitTree(
      "  index runs (thread _)\n"
      "    group \"files\"\n"
      "      file waits in Event::Wait() for _ (thread _)");
  event.Set();
  release.count_down();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, AResultThatIsMadeInItsWaitIsToldOf) {
  auto pool = WithoutThreads();
  TaskSet tasks({.pool = pool.get(), .name = "results"});
  Event event;
  std::jthread waits([&] {
    auto handle =
        tasks.SpawnWithResult([&] { return event.Wait(); }, {.name = "answer"});
    EXPECT_TRUE(handle.Wait().ok());
  });
  AwaitTree(
      "\na thread waits in TaskHandle::Wait() and runs answer (thread _)\n");
  AwaitTree(
      "group \"results\"\n"
      "  answer waits in Event::Wait() for _ (thread _)");
  event.Set();
  waits.join();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, TellsOfAThreadThatWaitsOutsideOfTasks) {
  Event event;
  std::jthread thread([&] {
    { TaskSet known; }
    EXPECT_TRUE(event.Wait().ok());
  });
  AwaitTree("a thread waits in Event::Wait() for _ (thread _)");
  event.Set();
  thread.join();
  EXPECT_THAT(Tree(), Not(HasSubstr("a thread")));
  // The memory of the one that has ended may be that of the next.
  Event again;
  thread = std::jthread([&] {
    { TaskSet known; }
    EXPECT_TRUE(again.Wait().ok());
  });
  AwaitTree("a thread waits in");
  const std::string tree = Tree();
  EXPECT_EQ(tree.find("a thread"), tree.rfind("a thread"));
  again.Set();
}

TEST(TaskTree, ALongOneIsCutShort) {
  auto pool = WithoutThreads();
  std::vector<std::unique_ptr<TaskSet>> sets;
  for (size_t i = 0; i < internal::kMostTaskLines; ++i) {
    sets.push_back(
        std::make_unique<TaskSet>(TaskSet::Options{.pool = pool.get()}));
    sets.back()->Spawn([] {});
  }
  const std::vector<std::string> lines = TaskTree();
  EXPECT_EQ(lines.size(), internal::kMostTaskLines);
  EXPECT_EQ(lines.back(), "and more");
}

TEST(TaskTree, AForkedChildSeesNothingOfItsParents) {
  TaskSet tasks;
  Event event;
  tasks.Spawn([&] { return event.Wait(); });
  auto pool = WithoutThreads();
  TaskSet queued({.pool = pool.get()});
  queued.Spawn([] {});
  AwaitTree("waits in");
  Child child(Fork([] {
    EXPECT_EQ(Tree(), absl::StrCat("main runs (thread ", getpid(), ")"));
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  event.Set();
  EXPECT_TRUE(tasks.Wait().ok());
}

// The task, and what else its group has, are of a pool that is dead there.
TEST(TaskTree, AChildThatATaskForkedSeesNothingOfItsParents) {
  auto pool = WithoutThreads();
  TaskSet tasks({.pool = pool.get()});
  int status = -1;
  tasks.Spawn([&] {
    Child child(Fork([] {
      EXPECT_EQ(Tree(), absl::StrCat("main runs (thread ", getpid(), ")"));
    }));
    status = ExitStatus(child.Wait());
  });
  tasks.Spawn([] {});
  EXPECT_TRUE(tasks.Wait().ok());
  EXPECT_EQ(status, 0);
}

TEST(TaskTree, HasAThreadThatMakesAResult) {
  auto pool = WithoutThreads();
  TaskSet tasks({.pool = pool.get(), .name = "results"});
  Event event;
  auto handle =
      tasks.SpawnWithResult([&] { return event.Wait(); }, {.name = "answer"});
  std::jthread waits([&] { EXPECT_TRUE(handle.Wait().ok()); });
  AwaitTree(
      "a thread waits in TaskHandle::Wait() and runs answer "
      "(thread _)\n");
  event.Set();
  waits.join();
  EXPECT_TRUE(tasks.Wait().ok());
}

TEST(TaskTree, MayBeAskedWhileGroupsComeAndGo) {
  auto pool = *ThreadPool::Create({.threads = 2});
  TaskSet tasks({.pool = pool.get()});
  std::atomic<bool> over{false};
  std::jthread asks([&] {
    while (!over) {
      TaskTree();
      sched_yield();
    }
  });
  for (int i = 0; i < 40; ++i) {
    tasks.Spawn([&pool] {
      TaskGroup inner({.pool = pool.get()});
      inner.SpawnBackground([] { return Event().Wait(); });
      inner.Spawn([] { return Sleep(absl::Microseconds(50)); });
      EXPECT_TRUE(inner.SpawnWithResult([] { return 1; }).Wait().ok());
      return inner.Wait();
    });
    auto other = *ThreadPool::Create({.threads = 1});
    TaskSet others({.pool = other.get()});
    others.Spawn([] {});
    EXPECT_TRUE(others.Wait().ok());
  }
  EXPECT_TRUE(tasks.Wait().ok());
  over = true;
}

}  // namespace
}  // namespace tocsin
