#include "tocsin/concurrency/internal/available_cpus.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "gtest/gtest.h"

// Of this thread, while not 0: the machine has so many CPUs, of which the
// process may use every 500th.
static thread_local int cpus_of_machine = 0;

extern "C" int sched_getaffinity(pid_t pid, size_t size,
                                 cpu_set_t* set) noexcept {
  if (cpus_of_machine == 0) {
    using Get = int(pid_t, size_t, cpu_set_t*);
    static Get* const get =
        reinterpret_cast<Get*>(dlsym(RTLD_NEXT, "sched_getaffinity"));
    return get(pid, size, set);
  }
  // As the kernel refuses a set that is too small for it.
  if (8 * size < static_cast<size_t>(cpus_of_machine)) {
    errno = EINVAL;
    return -1;
  }
  std::memset(set, 0, size);
  for (int cpu = 0; cpu < cpus_of_machine; cpu += 500) {
    CPU_SET_S(cpu, size, set);
  }
  return 0;
}

namespace tocsin::internal {
namespace {

// A tree of cgroup files, as the kernel mounts them.
class CpuQuotaTest : public testing::Test {
 protected:
  CpuQuotaTest() { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << '\n';
  }
  int Quota(const std::string& membership) {
    Write("/membership", membership);
    return CpuQuota(root_ + "/membership", root_);
  }

  const std::string root_ = testing::TempDir() + "/cgroup";
};

TEST_F(CpuQuotaTest, Version2RoundsUp) {
  Write("/box/cpu.max", "150000 100000");
  EXPECT_EQ(Quota("0::/box"), 2);
  Write("/box/cpu.max", "10000 100000");
  EXPECT_EQ(Quota("0::/box"), 1);
  Write("/box/cpu.max", "400000 100000");
  EXPECT_EQ(Quota("0::/box"), 4);
}

TEST_F(CpuQuotaTest, TheLeastOfAGroupAndThoseAboveItCounts) {
  Write("/cpu.max", "800000 100000");
  Write("/a/cpu.max", "300000 100000");
  Write("/a/b/cpu.max", "max 100000");
  EXPECT_EQ(Quota("0::/a/b"), 3);
  EXPECT_EQ(Quota("0::/"), 8);
}

TEST_F(CpuQuotaTest, Version1IsFoundByItsController) {
  Write("/cpu/box/cpu.cfs_quota_us", "250000");
  Write("/cpu/box/cpu.cfs_period_us", "100000");
  Write("/cpu/cpu.cfs_quota_us", "-1");
  Write("/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Quota("5:memory:/other\n4:cpu,cpuacct:/box\n1:name=systemd:/box"),
            3);
  EXPECT_EQ(Quota("4:cpu,cpuacct:/gone"), kNoQuota);
}

TEST_F(CpuQuotaTest, OtherControllersHaveOtherGroups) {
  Write("/cpu/box/cpu.cfs_quota_us", "300000");
  Write("/cpu/box/cpu.cfs_period_us", "100000");
  Write("/cpu/other/cpu.cfs_quota_us", "100000");
  Write("/cpu/other/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Quota("6:cpuset:/other\n5:cpuacct:/other\n4:cpu:/box\n"
                  "3:memory,pids:/other\n1:name=systemd:/other"),
            3);
}

TEST_F(CpuQuotaTest, AGroupMayHaveColonsInItsName) {
  Write("/a:b:c/cpu.max", "200000 100000");
  EXPECT_EQ(Quota("0::/a:b:c"), 2);
}

TEST_F(CpuQuotaTest, WhatExceedsAllNumbersIsNoLimit) {
  Write("/box/cpu.max", "9223372036854775807 1");
  EXPECT_EQ(Quota("0::/box"), kNoQuota);
}

TEST_F(CpuQuotaTest, WhatCannotBeReadIsNoLimit) {
  EXPECT_EQ(Quota("0::/missing"), kNoQuota);
  Write("/box/cpu.max", "max 100000");
  EXPECT_EQ(Quota("0::/box"), kNoQuota);
  Write("/box/cpu.max", "nonsense");
  EXPECT_EQ(Quota("0::/box"), kNoQuota);
  Write("/box/cpu.max", "100000 0");
  EXPECT_EQ(Quota("0::/box"), kNoQuota);
  EXPECT_EQ(Quota("no colons"), kNoQuota);
  EXPECT_EQ(CpuQuota(root_ + "/no/such/file", root_), kNoQuota);
}

TEST(AvailableCpus, FollowsTheAffinityOfTheMainThread) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  const int available = AvailableCpus();
  EXPECT_GE(available, 1);
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  std::thread([&] {
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(AvailableCpus(), available);
    ASSERT_EQ(sched_setaffinity(0, sizeof(all), &all), 0);
    ASSERT_EQ(sched_setaffinity(getpid(), sizeof(one), &one), 0);
    EXPECT_EQ(AvailableCpus(), 1);
    ASSERT_EQ(sched_setaffinity(getpid(), sizeof(all), &all), 0);
  }).join();
}

TEST(AvailableCpus, CountsThoseOfAMachineThatHasThousands) {
  const int quota = CpuQuota("/proc/self/cgroup", "/sys/fs/cgroup");
  for (int cpus : {1000, 1500, 5000}) {
    cpus_of_machine = cpus;
    const int available = AvailableCpus();
    cpus_of_machine = 0;
    EXPECT_EQ(available, std::min(quota, cpus / 500)) << cpus;
  }
}

}  // namespace
}  // namespace tocsin::internal
