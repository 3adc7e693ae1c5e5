#include "tocsin/concurrency/internal/available_cpus.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

namespace {

std::string FirstLine(const std::string& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

int RoundedUp(absl::string_view quota, absl::string_view period) {
  int64_t used, of;
  // Without a limit the quota is "max" in version 2 and -1 in version 1.
  if (!absl::SimpleAtoi(quota, &used) || !absl::SimpleAtoi(period, &of) ||
      used <= 0 || of <= 0) {
    return kNoQuota;
  }
  return static_cast<int>(std::min<int64_t>((used - 1) / of + 1, kNoQuota));
}

int QuotaOf(const std::string& folder, bool unified) {
  if (unified) {
    const std::string line = FirstLine(folder + "/cpu.max");
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    return words.size() == 2 ? RoundedUp(words[0], words[1]) : kNoQuota;
  }
  return RoundedUp(FirstLine(folder + "/cpu.cfs_quota_us"),
                   FirstLine(folder + "/cpu.cfs_period_us"));
}

}  // namespace

int AvailableCpus() {
  return std::max(1, std::min(CpusOfAffinity(), CpuQuota()));
}

int CpusOfAffinity() {
  // The kernel refuses a set smaller than its own, however many CPUs there are.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    std::vector<cpu_set_t> set(cpus / CPU_SETSIZE);
    const size_t size = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(getpid(), size, set.data()) == 0) {
      return CPU_COUNT_S(size, set.data());
    }
  }
  return 1;
}

int CpuQuota() { return CpuQuota("/proc/self/cgroup", "/sys/fs/cgroup"); }

int CpuQuota(const std::string& membership, const std::string& root) {
  int least = kNoQuota;
  std::ifstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    // "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1.
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const bool unified = parts[1].empty();
    bool has_cpu = unified;
    for (absl::string_view controller : absl::StrSplit(parts[1], ',')) {
      has_cpu |= controller == "cpu";
    }
    if (!has_cpu) continue;
    // The folder is named after the controllers, with a link from "cpu"; a
    // hybrid system has version 2 under "unified", without this controller.
    const std::string hierarchy = unified ? root : root + "/cpu";
    // In a container the path may be the host's and not exist here, but then
    // the container's own limits are at the top.
    for (std::string path = parts[2];; path.resize(path.rfind('/'))) {
      least = std::min(least, QuotaOf(hierarchy + path, unified));
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return least;
}

}  // namespace tocsin::inline v0_2::internal
