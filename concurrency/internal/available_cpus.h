// How many CPUs the process may use.
//
// Any thread may ask; it reads files.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_AVAILABLE_CPUS_H_
#define TOCSIN_CONCURRENCY_INTERNAL_AVAILABLE_CPUS_H_

#include <limits>
#include <string>

namespace tocsin::inline v0_2::internal {

// The CPUs of its main thread's affinity mask, or what the quotas of its
// cgroups come to, rounded up, if that is less. At least 1.
int AvailableCpus();

// The two of which that is the lesser one.
int CpusOfAffinity();
int CpuQuota();

// What the quotas come to in the cgroups that `membership` names, a file like
// /proc/self/cgroup, and those above them, in the hierarchies mounted at
// `root`, a folder like /sys/fs/cgroup. Version 1 and 2.
constexpr int kNoQuota = std::numeric_limits<int>::max();
int CpuQuota(const std::string& membership, const std::string& root);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_AVAILABLE_CPUS_H_
