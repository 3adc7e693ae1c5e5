// What the monitor of a pool takes for blocked, and what it does then: look by
// look, and with CPU clocks that show what the test wants.
#include <dlfcn.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/pool_testing.h"
#include "tests/steps.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace {

// What the quota of this process's cgroup is, in CPUs; the machine has four.
std::atomic<int> cpu_quota{0};
std::atomic<int> quota_looks{0};

// Of a hundred CPUs, what each thread uses of them as others see it; as it is,
// if negative.
std::atomic<int> percent_used{-1};

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int percent = percent_used.load();
  // Those of other threads have negative numbers.
  if (clock >= 0 || percent < 0) {
    return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  }
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, time);
  const int64_t shown =
      (time->tv_sec * int64_t{1'000'000'000} + time->tv_nsec) * percent / 100;
  *time = {shown / 1'000'000'000, shown % 1'000'000'000};
  return 0;
}

// The file that tells the quota is a pipe that holds the text.
static FILE* OpenInstead(const char* path, const char* mode,
                         const char* function) {
  std::string text;
  if (cpu_quota.load() != 0) {
    if (std::strcmp(path, "/proc/self/cgroup") == 0) {
      text = "0::/\n";
      ++quota_looks;
    } else if (std::strcmp(path, "/sys/fs/cgroup/cpu.max") == 0) {
      text = std::to_string(cpu_quota.load() * 100'000) + " 100000\n";
    }
  }
  int ends[2];
  if (text.empty() || pipe(ends) != 0) {
    using Open = FILE*(const char*, const char*);
    return reinterpret_cast<Open*>(dlsym(RTLD_NEXT, function))(path, mode);
  }
  EXPECT_EQ(write(ends[1], text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
  close(ends[1]);
  return fdopen(ends[0], mode);
}

extern "C" FILE* fopen(const char* path, const char* mode) {
  return OpenInstead(path, mode, "fopen");
}
extern "C" FILE* fopen64(const char* path, const char* mode) {
  return OpenInstead(path, mode, "fopen64");
}

extern "C" int sched_getaffinity(pid_t pid, size_t size,
                                 cpu_set_t* set) noexcept {
  if (cpu_quota.load() == 0) {
    return syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
  }
  std::memset(set, 0, size);
  for (int cpu = 0; cpu < 4; ++cpu) CPU_SET_S(cpu, size, set);
  return 0;
}

namespace tocsin {
namespace {

constexpr int kLooksInASecond = 20;

struct ThreadsUse {
  explicit ThreadsUse(int percent) { percent_used = percent; }
  ThreadsUse(const ThreadsUse&) = delete;
  ThreadsUse& operator=(const ThreadsUse&) = delete;
  ~ThreadsUse() { percent_used = -1; }
};

// Lets the only monitor look when the test says so. Make it when nothing is
// ready yet that has no slot.
class Looks {
 public:
  Looks() { before_.emplace("PoolMonitor: looks"); }

  void Next() {
    before_->AwaitThread();
    after_.emplace("PoolMonitor: has looked");
    before_->Release();
    after_->AwaitThread();
    before_.reset();
    before_.emplace("PoolMonitor: looks");
    after_->Release();
    after_.reset();
  }

 private:
  std::optional<HeldAt> before_;
  std::optional<HeldAt> after_;
};

size_t Threads() { return ThreadsNamed("").size(); }

// A task that waits, then computes. End it before its group's Wait().
class LongTask {
 public:
  explicit LongTask(TaskGroup& group) {
    group.Spawn([this] {
      inside_.count_down();
      release_.wait();
      while (!over_.load()) computes_.store(true);
    });
  }

  void AwaitThread() { inside_.wait(); }
  bool started() const { return inside_.try_wait(); }
  void Compute() {
    release_.count_down();
    while (!computes_.load()) sched_yield();
  }
  void End() {
    over_.store(true);
    if (!release_.try_wait()) release_.count_down();
  }

 private:
  std::latch inside_{1};
  std::latch release_{1};
  std::atomic<bool> computes_{false};
  std::atomic<bool> over_{false};
};

// A pool of one, a task that has its slot, and one that waits for one.
class PoolMonitorTest : public testing::Test {
 protected:
  PoolMonitorTest() {
    first_.AwaitThread();
    AwaitSleepForGood("watched-1");
  }

  // No thread is started before the look at which one would be because nothing
  // was for a second.
  void ExpectNoThreadForASecond(Looks& looks) {
    looks.Next();
    const size_t threads = Threads();
    for (int look = 2; look <= 1 + kLooksInASecond - 1; ++look) {
      looks.Next();
      ASSERT_EQ(Threads(), threads) << "at look " << look;
    }
  }
  void ExpectThreadAtNextLook(Looks& looks) {
    const size_t threads = Threads();
    looks.Next();
    EXPECT_EQ(Threads(), threads + 1);
  }

  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.name = "watched", .threads = 1});
  TaskGroup group_{{.pool = pool_.get()}};
  LongTask first_{group_};
};

TEST_F(PoolMonitorTest, AWorkerThatIsBlockedAtTwoLooksLosesItsSlot) {
  Looks looks;
  LongTask second(group_);
  looks.Next();
  ExpectThreadAtNextLook(looks);
  second.AwaitThread();
  first_.End();
  second.End();
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(PoolMonitorTest, SoDoesOneThatPolls) {
  const ThreadsUse some(5);
  Looks looks;
  LongTask second(group_);
  looks.Next();
  ExpectThreadAtNextLook(looks);
  first_.End();
  second.End();
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(PoolMonitorTest, OneThatUsesItsCpuDoesNot) {
  const ThreadsUse most(50);  // though it sleeps at each look
  Looks looks;
  LongTask second(group_);
  ExpectNoThreadForASecond(looks);
  ExpectThreadAtNextLook(looks);
  first_.End();
  second.End();
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(PoolMonitorTest, NorDoesOneThatGetsNoCpu) {
  const ThreadsUse none(0);
  first_.Compute();
  Looks looks;
  LongTask second(group_);
  ExpectNoThreadForASecond(looks);
  ExpectThreadAtNextLook(looks);
  first_.End();
  second.End();
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(PoolMonitorTest, TasksThatComputeForEverStarveNobody) {
  first_.Compute();
  Looks looks;
  constexpr int kTasks = 100;
  std::latch all(kTasks);
  for (int i = 0; i < kTasks; ++i) group_.Spawn([&] { all.count_down(); });
  ExpectNoThreadForASecond(looks);
  ExpectThreadAtNextLook(looks);
  all.wait();  // without another look
  first_.End();
  EXPECT_TRUE(group_.Wait().ok());
}

TEST_F(PoolMonitorTest, NoMoreThanTwiceAsManyCompute) {
  const ThreadsUse all(100);
  first_.Compute();
  Looks looks;
  LongTask second(group_);
  LongTask third(group_);
  ExpectNoThreadForASecond(looks);
  ExpectThreadAtNextLook(looks);
  const size_t threads = Threads();
  for (int i = 0; i < 2 * kLooksInASecond; ++i) looks.Next();
  EXPECT_EQ(Threads(), threads);
  EXPECT_FALSE(second.started() && third.started());
  first_.End();
  second.End();
  third.End();
  EXPECT_TRUE(group_.Wait().ok());
}

// Two may compute until the first of them ends its task; then no third does.
TEST_F(PoolMonitorTest, AWorkerThatWasBlockedAndComputesCountsAgain) {
  std::optional<Looks> looks(std::in_place);
  LongTask second(group_);
  looks->Next();
  ExpectThreadAtNextLook(*looks);
  second.AwaitThread();
  std::atomic<bool> third_ran = false;
  std::latch third_over(1);
  group_.Spawn([&] {
    third_ran = true;
    third_over.count_down();
  });
  {
    const ThreadsUse all(100);
    first_.Compute();
    second.Compute();
    looks->Next();
    looks->Next();
    looks->Next();
    HeldAt parks("WorkerSlots: a worker is about to park");
    second.End();
    parks.AwaitThread();
    EXPECT_FALSE(third_ran);
  }
  first_.End();
  third_over.wait();
  looks.reset();
  EXPECT_TRUE(group_.Wait().ok());
}

class PoolOfQuotaTest : public testing::Test {
 protected:
  // The pool has more tasks than threads, and looks at the quota.
  static void AwaitLookAtQuota(Looks& looks) {
    const int before = quota_looks;
    while (quota_looks == before) looks.Next();
    looks.Next();
  }
  ~PoolOfQuotaTest() override { cpu_quota = 0; }
};

TEST_F(PoolOfQuotaTest, GrowsWithIt) {
  cpu_quota = 1;
  auto pool = *ThreadPool::Create({.name = "watched"});
  TaskGroup group({.pool = pool.get()});
  LongTask first(group);
  first.AwaitThread();
  first.Compute();
  LongTask others[] = {LongTask(group), LongTask(group), LongTask(group),
                       LongTask(group)};
  const ThreadsUse all(100);
  Looks looks;
  cpu_quota = 3;
  const size_t threads = Threads();
  AwaitLookAtQuota(looks);
  while (Threads() < threads + 2) looks.Next();
  cpu_quota = 100;  // more than there are CPUs
  AwaitLookAtQuota(looks);
  while (Threads() < threads + 3) looks.Next();
  for (int i = 0; i < 3; ++i) looks.Next();
  EXPECT_EQ(Threads(), threads + 3);
  first.End();
  for (LongTask& other : others) other.End();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_F(PoolOfQuotaTest, ShrinksWithItAsTasksEnd) {
  cpu_quota = 2;
  auto pool = *ThreadPool::Create({.name = "watched"});
  TaskGroup group({.pool = pool.get()});
  LongTask first(group);
  LongTask second(group);
  for (LongTask* task : {&first, &second}) {
    task->AwaitThread();
    task->Compute();
  }
  std::optional<Looks> looks(std::in_place);
  std::atomic<bool> third_ran = false;
  std::latch third_over(1);
  group.Spawn([&] {
    third_ran = true;
    third_over.count_down();
  });
  {
    const ThreadsUse all(100);
    cpu_quota = 1;
    AwaitLookAtQuota(*looks);
    HeldAt parks("WorkerSlots: a worker is about to park");
    second.End();
    parks.AwaitThread();
    EXPECT_FALSE(third_ran);
  }
  first.End();
  third_over.wait();
  looks.reset();
  EXPECT_TRUE(group.Wait().ok());
}

TEST_F(PoolOfQuotaTest, DoesNotIfItsThreadsWereAskedFor) {
  cpu_quota = 1;
  auto pool = *ThreadPool::Create({.name = "watched", .threads = 1});
  TaskGroup group({.pool = pool.get()});
  LongTask first(group);
  LongTask second(group);
  Looks looks;
  const int before = quota_looks;
  looks.Next();
  EXPECT_EQ(quota_looks, before);
  first.End();
  second.End();
  EXPECT_TRUE(group.Wait().ok());
}

// It is made with the first worker, before that has its task.
TEST(NewMonitor, StaysDormant) {
  AtStep looks("PoolMonitor: looks", [] {});
  auto pool = *ThreadPool::Create({.name = "watched", .threads = 2});
  TaskGroup group({.pool = pool.get()});
  std::latch over(1);
  group.Spawn([&] { over.wait(); });
  AwaitSleepForGood("watched-monitor");
  EXPECT_FALSE(looks.passed());
  over.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

}  // namespace
}  // namespace tocsin
