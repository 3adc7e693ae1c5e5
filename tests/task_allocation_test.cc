// The memory of tasks: a task costs no allocation, once those before it have
// been through.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <latch>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace {
std::atomic<int> allocations{0};
// Of what is aligned more than malloc() does: shards, local queues.
std::atomic<int> aligned_allocations{0};
std::atomic<int> aligned_frees{0};
std::atomic<std::ptrdiff_t> bytes{0};  // in use, of all others
std::atomic<int> slabs{0};             // with the blocks of tasks

void* Allocate(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  bytes += static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  return memory;
}
void Free(void* memory) {
  bytes -= static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  std::free(memory);
}

void CountSlabs(const char* step) {
  if (std::strcmp(step, "Task: has mapped a slab") == 0) ++slabs;
  if (std::strcmp(step, "Task: has unmapped a slab") == 0) --slabs;
}
[[maybe_unused]] const bool counting = [] {
  __atomic_store_n(&tocsin::internal::at_step, &CountSlabs, __ATOMIC_SEQ_CST);
  return true;
}();
}  // namespace

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  ++aligned_allocations;
  return std::aligned_alloc(static_cast<std::size_t>(alignment), size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return Allocate(size);
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept {
  ++aligned_frees;
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  ++aligned_frees;
  std::free(memory);
}

namespace tocsin {
namespace {

TEST(TaskAllocation, TasksOfUpToFortyBytesTakeTurnsInTheSameMemory) {
  constexpr int kTasks = 1000;
  auto pool = *ThreadPool::Create({.threads = 2});
  TaskGroup::Options options{.pool = pool.get()};
  auto round = [&] {
    TaskGroup group(options);
    char payload[32] = {};
    std::atomic<int> sum{0};
    for (int i = 0; i < kTasks; ++i) {
      group.Spawn([&sum, payload] { sum += payload[0] + 1; });
    }
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_EQ(sum, kTasks);
  };
  for (int i = 0; i < 50; ++i) round();
  const int before = allocations;
  for (int i = 0; i < 50; ++i) round();
  // Not none: a round that is spread over the threads as none was before may
  // need a batch of blocks more.
  EXPECT_LT(allocations - before, kTasks / 10);
}

using internal::BlockCache;
using internal::Task;

constexpr int kMany = 5 * BlockCache::kBatch;

std::vector<Task*> NewTasks(int count) {
  std::vector<Task*> tasks;
  for (int i = 0; i < count; ++i) {
    tasks.push_back(Task::New([] { return absl::OkStatus(); }));
  }
  return tasks;
}

void Free(const std::vector<Task*>& tasks) {
  for (Task* task : tasks) {
    task->Discard();
    Task::Free(task);
  }
}

// For more tasks than a test needs, whatever threads have at hand.
void FillStore() {
  std::thread([] { Free(NewTasks(kMany)); }).join();
}

TEST(TaskAllocation, NoTwoTasksHaveTheSameMemory) {
  for (int count : {kMany, 20 * kMany, kMany, 20 * kMany}) {
    const std::vector<Task*> tasks = NewTasks(count);
    const std::set<Task*> different(tasks.begin(), tasks.end());
    EXPECT_EQ(different.size(), count);
    Free(tasks);
  }
}

// Also what tasks took that were made here and freed elsewhere.
TEST(TaskAllocation, AThreadThatEndsLeavesItsMemoryToOthers) {
  auto round = [] {
    std::vector<Task*> tasks;
    std::thread([&] {
      Free(NewTasks(kMany));
      tasks = NewTasks(kMany);
    }).join();
    std::thread([&] { Free(tasks); }).join();
    std::thread([&] { Free(NewTasks(10)); }).join();
  };
  for (int i = 0; i < 3; ++i) round();
  const int before = slabs;
  for (int i = 0; i < 20; ++i) round();
  EXPECT_EQ(slabs, before);
}

TEST(TaskAllocation, SoDoesOneThatUsesTasksToTheVeryEnd) {
  struct AtThreadEnd {
    ~AtThreadEnd() {
      Free(tasks);
      Free(NewTasks(3));
      std::vector<Task*> more = NewTasks(kMany);
      EXPECT_EQ(std::set<Task*>(more.begin(), more.end()).size(), kMany);
      Free(more);
    }
    std::vector<Task*> tasks;
  };
  auto round = [] {
    FillStore();  // by the batch
    std::thread([] {
      // Made before the thread has any block, so destroyed after it has left
      // them to others.
      thread_local AtThreadEnd at_end;
      at_end.tasks = NewTasks(10);
    }).join();
  };
  for (int i = 0; i < 3; ++i) round();
  const int before = slabs;
  for (int i = 0; i < 20; ++i) round();
  EXPECT_EQ(slabs, before);
}

constexpr int kTasksOfASlab = 1021;
constexpr int kSlabsKept = 1024;

TEST(TaskAllocation, TheMemoryOfABurstGoesBackAtItsEnd) {
  const std::vector<Task*> burst = NewTasks((kSlabsKept + 200) * kTasksOfASlab);
  EXPECT_GE(slabs, kSlabsKept + 200);
  std::thread([&] { Free(burst); }).join();
  // And one or two of which this thread has some tasks at hand.
  EXPECT_LE(slabs, kSlabsKept + 2);
  EXPECT_GE(slabs, kSlabsKept);
  const std::vector<Task*> next = NewTasks(kSlabsKept / 2 * kTasksOfASlab);
  EXPECT_LE(slabs, kSlabsKept + 2);
  Free(next);
  *ThreadPool::Create();  // and its end
  EXPECT_EQ(slabs, 0);
}

TEST(TaskAllocation, ATaskThatStaysKeepsNoMoreThanItsSlab) {
  std::vector<Task*> tasks = NewTasks(10 * kTasksOfASlab);
  Task* const stays = tasks[5 * kTasksOfASlab];
  tasks.erase(tasks.begin() + 5 * kTasksOfASlab);
  Free(tasks);
  Task::GiveBackMemory();
  EXPECT_EQ(slabs, 1);
  Free(NewTasks(kTasksOfASlab - 1));
  EXPECT_EQ(slabs, 1);
  Free({stays});
  Task::GiveBackMemory();
  EXPECT_EQ(slabs, 0);
}

// Of the lists of tasks, wherever they are and however they are emptied.
TEST(TaskAllocation, AListThatHadManyTasksGivesItsMemoryBack) {
  constexpr int kTasks = 200'000;
  constexpr int kFew = 100'000;  // bytes, where the list had 16 times as much
  auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
  std::latch inside(1);
  std::latch release(1);
  TaskSet host({.pool = pool.get()});
  host.Spawn([&] {
    inside.count_down();
    release.wait();
  });
  inside.wait();
  const std::ptrdiff_t before = bytes;
  auto spawn = [&](TaskSet& set, std::function<void()> last) {
    auto left = std::make_shared<std::atomic<int>>(kTasks);
    for (int i = 0; i < kTasks; ++i) {
      set.Spawn([left, last] {
        if (--*left == 0) last();
      });
    }
    EXPECT_GT(bytes - before, kTasks * 8);
  };
  {
    TaskSet cancelled({.pool = pool.get()});
    spawn(cancelled, [] {});
    cancelled.Cancel();
    EXPECT_LT(bytes - before, kFew);
  }
  {
    TaskSet joined({.pool = pool.get()});
    spawn(joined, [&] { EXPECT_LT(bytes - before, kFew); });
    EXPECT_TRUE(joined.Wait().ok());
  }
  {
    TaskSet ended({.pool = pool.get()});
    std::thread([&] { spawn(ended, [] {}); }).join();
    EXPECT_TRUE(ended.Wait().ok());
    EXPECT_LT(bytes - before, kFew);
  }
  TaskSet stolen({.pool = pool.get()});
  std::latch over(1);
  spawn(stolen, [&] { over.count_down(); });
  release.count_down();
  over.wait();
  EXPECT_LT(bytes - before, kFew);
  EXPECT_TRUE(stolen.Wait().ok());
  EXPECT_TRUE(host.Wait().ok());
}

#if defined(ABSL_HAVE_EXCEPTIONS) && !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER)
void ExhaustMemory() {
  std::vector<Task*> tasks = NewTasks(1);
  tasks.reserve(1'000'000);
  rlimit limit = {.rlim_cur = 1, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
  bool refused = false;
  try {
    while (true) tasks.push_back(Task::New([] { return absl::OkStatus(); }));
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  limit.rlim_cur = RLIM_INFINITY;
  setrlimit(RLIMIT_AS, &limit);
  tasks.push_back(NewTasks(1)[0]);
  const std::set<Task*> different(tasks.begin(), tasks.end());
  _exit(refused && different.size() == tasks.size() ? 0 : 1);
}

TEST(TaskAllocationDeathTest, ATaskForWhichThereIsNoMemoryIsABadAlloc) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ExhaustMemory(), testing::ExitedWithCode(0), "");
}
#endif

TEST(TaskAllocation, AClosureIsAlignedAndDestroyedOnce) {
  struct alignas(64) Aligned {
    explicit Aligned(std::shared_ptr<int> t) : token(std::move(t)) {}
    absl::Status operator()() {
      *token = reinterpret_cast<uintptr_t>(this) % 64 == 0 ? 1 : -1;
      return absl::CancelledError("from the closure");
    }
    std::shared_ptr<int> token;
  };
  auto token = std::make_shared<int>(0);
  Task* task = Task::New(Aligned(token));
  EXPECT_THAT(task->Run(), Says(absl::CancelledError("from the closure")));
  EXPECT_EQ(*token, 1);
  EXPECT_EQ(token.use_count(), 1);
  Task::Free(task);
  task = Task::New([token] { return absl::OkStatus(); });
  EXPECT_EQ(token.use_count(), 2);
  task->Discard();
  EXPECT_EQ(token.use_count(), 1);
  Task::Free(task);
}

TEST(TaskAllocation, OptionsTakeNoMemoryWhereTheyAreTheDefaults) {
  auto nothing = [] { return absl::OkStatus(); };
  Task* plain = Task::New(nothing, {});
  EXPECT_EQ(plain->options(), nullptr);
  Task* named = Task::New(nothing, {.name = "named"});
  EXPECT_EQ(named->options()->name, "named");
  EXPECT_FALSE(named->options()->start_even_if_cancelled);
  Task* eager = Task::New(nothing, {.start_even_if_cancelled = true});
  EXPECT_TRUE(eager->options()->start_even_if_cancelled);
  Free({plain, named, eager});
}

// Groups that come and go use what those before them left.
TEST(TaskAllocation, AGroupThatEndedLeavesNothingAtTheShards) {
  FillStore();
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  constexpr uint32_t kFirst = 2 * kShards;
  // Each in another place, so that none is taken for one before it.
  std::vector<std::optional<TaskGroup>> groups(7 * kShards);
  auto round = [&](std::optional<TaskGroup>& group, bool cancelled) {
    group.emplace(TaskGroup::Options{.pool = pool.get()});
    std::thread([&] { group->Spawn([] {}); }).join();
    if (cancelled) group->Cancel();
    EXPECT_TRUE(group->Wait().ok());
    std::thread([&] { group->Spawn([] {}); }).join();
    EXPECT_EQ(group->failure_count(), 1);
    group.reset();
  };
  for (uint32_t i = 0; i < kFirst; ++i) round(groups[i], i % 2 == 0);
  const int before = aligned_allocations;
  for (uint32_t i = kFirst; i < groups.size(); ++i) {
    round(groups[i], i % 3 == 0);
  }
  EXPECT_EQ(aligned_allocations, before);
}

TEST(TaskAllocation, APoolThatIsDestroyedGivesItsMemoryBack) {
  FillStore();
  auto round = [] {
    auto pool = *ThreadPool::Create({.threads = 1, .max_threads = 1});
    TaskGroup group({.pool = pool.get()});
    for (uint32_t i = 0; i < kShards; ++i) {
      std::thread([&] { group.Spawn([] {}); }).join();
    }
    EXPECT_TRUE(group.Wait().ok());
  };
  for (int i = 0; i < 3; ++i) round();
  const int before = aligned_allocations - aligned_frees;
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(aligned_allocations - aligned_frees, before);
}

}  // namespace
}  // namespace tocsin
