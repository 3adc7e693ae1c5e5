// How a thread of the process gets on with the CPUs, as the others see it.
//
// The thread enters itself once. Any other may ask as long as the thread lives.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_THREAD_CPU_H_
#define TOCSIN_CONCURRENCY_INTERNAL_THREAD_CPU_H_

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <optional>

namespace tocsin::inline v0_2::internal {

class ThreadCpu {
 public:
  void Enter();

  // The CPU time that it has used. Nothing before Enter(), or if the system
  // tells no such time. A system call, of less than a microsecond.
  std::optional<std::chrono::nanoseconds> Used() const;

  // Whether it runs, or would if a CPU were free, which Used() does not tell on
  // a busy machine. True before Enter(), false where /proc is not mounted. Some
  // microseconds.
  bool IsRunnable() const;

 private:
  clockid_t clock_ = {};
  std::atomic<pid_t> id_{0};  // written after the clock
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_THREAD_CPU_H_
