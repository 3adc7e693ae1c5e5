// What tests see of the threads of a pool, and where their tasks lie.
#ifndef TOCSIN_TESTS_POOL_TESTING_H_
#define TOCSIN_TESTS_POOL_TESTING_H_

#include <sched.h>
#include <sys/syscall.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tocsin/concurrency/internal/worker_slots.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {

// The folders in /proc of this process's threads whose name starts so.
inline std::vector<std::filesystem::path> ThreadsNamed(
    const std::string& start) {
  std::vector<std::filesystem::path> threads;
  for (const auto& thread :
       std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(thread.path() / "comm"), name);
    if (name.compare(0, start.size(), start) == 0) threads.push_back(thread);
  }
  return threads;
}

// The futex that the thread sleeps in without a time-out, and so until somebody
// wakes it; 0 if it does not.
inline uintptr_t FutexOfSleep(const std::filesystem::path& thread) {
  std::string call;
  std::getline(std::ifstream(thread / "syscall"), call);
  const std::vector<std::string> words = absl::StrSplit(call, ' ');
  // The number of the call, then its arguments, of which the time is the 4th.
  if (words.size() < 5 || words[0] != absl::StrCat(SYS_futex) ||
      words[4] != "0x0") {
    return 0;
  }
  return std::strtoull(words[1].c_str(), nullptr, 16);
}

// Whether all those sleep so, and so use no CPU until somebody wakes them.
inline bool SleepForGood(const std::string& start) {
  for (const std::filesystem::path& thread : ThreadsNamed(start)) {
    if (FutexOfSleep(thread) == 0) return false;
  }
  return true;
}

// Returns once there are threads of such a name, and all of them sleep so.
inline void AwaitSleepForGood(const std::string& start) {
  while (ThreadsNamed(start).empty() || !SleepForGood(start)) sched_yield();
}

// A pool of few threads has so many shards, which threads get in the order in
// which they first ask for theirs.
constexpr uint32_t kShards = 16;

inline uint32_t ShardOfThisThread(ThreadPool& pool) {
  TaskGroup asks({.pool = &pool});
  return internal::thread_number % kShards;
}

// Lets `shard` be that of the next thread that asks, if no other asks now.
inline void LetTheNextThreadHave(uint32_t shard, ThreadPool& pool) {
  uint32_t last = 0;
  do {
    std::thread([&] { last = ShardOfThisThread(pool); }).join();
  } while ((last + 1) % kShards != shard % kShards);
}

}  // namespace tocsin

#endif  // TOCSIN_TESTS_POOL_TESTING_H_
