#include "tocsin/concurrency/internal/short_lock.h"

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin::internal {
namespace {

// Three wait for the same moment.
TEST(ShortLock, IsHeldByOneAtATime) {
  ShortLock lock;
  std::atomic<int> inside{0};
  std::latch leave(1);
  lock.Lock();
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 3; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&] {
      MutexLock guard(lock);
      EXPECT_EQ(++inside, 1);
      leave.wait();
      --inside;
    }));
    threads.back()->AwaitAsleep();  // in the end it sleeps
  }
  EXPECT_EQ(inside, 0);
  lock.Unlock();
  std::vector<int64_t> before;
  for (auto& thread : threads) before.push_back(thread->TimesAsleep());
  // Whether the two that stay outside have looked once more.
  auto looked = [&] {
    int count = 0;
    for (size_t i = 0; i < threads.size(); ++i) {
      if (threads[i]->TimesAsleep() >= before[i] + 2) ++count;
    }
    return count == 2;
  };
  while (inside == 0) sched_yield();
  while (inside == 1 && !looked()) sched_yield();
  EXPECT_EQ(inside, 1);
  leave.count_down();
  threads.clear();
  lock.Lock();  // it is free in the end
  lock.Unlock();
}

}  // namespace
}  // namespace tocsin::internal
