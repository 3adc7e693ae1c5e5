// What /proc tells of processes and threads.
#ifndef TOCSIN_TESTS_PROCESS_STATUS_H_
#define TOCSIN_TESTS_PROCESS_STATUS_H_

#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace tocsin {

// The first word of a field of a task's status file; "" if the task is gone.
// A task is what its folder in /proc is called: "self", "4711",
// "self/task/4712".
inline std::string StatusField(const std::string& task,
                               const std::string& name) {
  std::ifstream file("/proc/" + task + "/status");
  std::string word;
  while (file >> word && word != name + ":") {
  }
  file >> word;
  return file ? word : "";
}

// A set of signals among the fields: SigBlk, SigCgt, ... Bit signum - 1. None
// if the task is gone.
inline uint64_t StatusMask(const std::string& task, const std::string& name) {
  const std::string mask = StatusField(task, name);
  return mask.empty() ? 0 : std::stoull(mask, nullptr, 16);
}

inline bool Contains(uint64_t mask, int signum) {
  return (mask >> (signum - 1) & 1) != 0;
}

inline std::string TaskOfThisThread() {
  return "self/task/" + std::to_string(syscall(SYS_gettid));
}

// The threads of this process, as tasks.
inline std::vector<std::string> Threads() {
  std::vector<std::string> tasks;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    tasks.push_back("self/task/" + entry.path().filename().string());
  }
  return tasks;
}

// The thread of that name, as a task; "" if there is none.
inline std::string ThreadNamed(const std::string& name) {
  const std::vector<std::string> tasks = Threads();
  const auto found =
      std::find_if(tasks.begin(), tasks.end(), [&](const std::string& task) {
        return StatusField(task, "Name") == name;
      });
  return found != tasks.end() ? *found : "";
}

inline bool IsServiceThread(const std::string& task) {
  return StatusField(task, "Name") == "tocsin-signals";
}

// The thread of the service, as a task; "" if there is none.
inline std::string ServiceThread() { return ThreadNamed("tocsin-signals"); }

// Waits until the service's thread has looked and leaves `signum` to others: it
// waits, no bell is left, and it does not wait for `signum`. /proc shows what a
// thread waits for as not blocked.
inline void AwaitServiceThreadWithout(int signum) {
  const std::string task = ServiceThread();
  while (true) {
    const uint64_t blocked = StatusMask(task, "SigBlk");
    if (!Contains(blocked, SIGSTKFLT) && Contains(blocked, signum) &&
        !Contains(StatusMask(task, "SigPnd"), SIGSTKFLT)) {
      return;
    }
    sched_yield();
  }
}

// Waits until the task waits for `signum` as the leader, in the place of the
// service's thread.
inline void AwaitLeader(const std::string& task, int signum) {
  while (Contains(StatusMask(task, "SigBlk"), signum)) sched_yield();
  AwaitServiceThreadWithout(signum);
}

// Waits until the thread of a service that has ended is no longer listed: the
// kernel takes it off its list a moment after it lets pthread_join(3) return.
inline void AwaitNoServiceThread() {
  while (!ServiceThread().empty()) sched_yield();
}

// Waits until the task is in `state`: "S" asleep, "T" stopped, "t" traced.
inline void AwaitState(const std::string& task, const std::string& state) {
  while (StatusField(task, "State") != state) sched_yield();
}

}  // namespace tocsin

#endif  // TOCSIN_TESTS_PROCESS_STATUS_H_
