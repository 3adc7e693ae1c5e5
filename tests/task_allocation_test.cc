// A task costs no allocation, once those before it have been through.
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "gtest/gtest.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace {
std::atomic<int> allocations{0};
}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  return std::malloc(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  return std::aligned_alloc(static_cast<std::size_t>(alignment), size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
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

}  // namespace
}  // namespace tocsin
