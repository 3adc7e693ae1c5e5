// The memory of tasks: a task costs no allocation, once those before it have
// been through.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace {
std::atomic<int> allocations{0};
// Of what is aligned more than malloc() does: blocks for tasks, shards, ...
std::atomic<int> aligned_allocations{0};
std::atomic<int> aligned_frees{0};
}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  return std::malloc(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  ++aligned_allocations;
  return std::aligned_alloc(static_cast<std::size_t>(alignment), size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
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
  for (int round = 0; round < 5; ++round) {
    const std::vector<Task*> tasks = NewTasks(kMany);
    const std::set<Task*> different(tasks.begin(), tasks.end());
    EXPECT_EQ(different.size(), kMany);
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
  const int before = aligned_allocations;
  for (int i = 0; i < 20; ++i) round();
  EXPECT_EQ(aligned_allocations, before);
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
  const int before = aligned_allocations;
  for (int i = 0; i < 20; ++i) round();
  EXPECT_EQ(aligned_allocations, before);
}

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
