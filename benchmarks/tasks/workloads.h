// The questions that all task schedulers are asked, in the same words.
//
// A Runtime stands for one of them, in its natural, documented use:
//
//   static constexpr const char* kName;
//   // Runs body() where tasks can be spawned.
//   template <typename F> void Enter(F body);
//   // Runs body(group), in which group.Spawn(f) may be called, also by tasks,
//   // and returns once all of them have ended.
//   template <typename F> void WithGroup(F body);
//   // How many tasks to block so that none is taken.
//   int workers();
//   // How many calls deep a task may spawn and wait for others; 0 if not.
//   static constexpr int kFibonacci;
//   // Whether group.Spawn() may be called by a task of the group.
//   static constexpr bool kTree;
//   // Whether there is a group.Cancel(), from outside of the tasks.
//   static constexpr bool kCancels;
//   // By how much fewer tasks it is asked to run where each takes very long.
//   static constexpr int kFewer;
#ifndef TOCSIN_BENCHMARKS_TASKS_WORKLOADS_H_
#define TOCSIN_BENCHMARKS_TASKS_WORKLOADS_H_

#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <latch>
#include <mutex>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "tocsin/benchmarks/tasks/contender.h"
#include "tocsin/benchmarks/tasks/memory.h"

namespace tocsin::benchmarks {

using Clock = std::chrono::steady_clock;

inline double NanosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

// Computes for about so many nanoseconds.
inline uint64_t Work(uint64_t amount) {
  uint64_t x = amount | 1;
  for (uint64_t i = 0; i < amount; ++i) {
    x ^= x << 13;
    asm volatile("" : "+r"(x));
  }
  return x;
}

inline void SpinFor(std::chrono::nanoseconds time) {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

inline double CpuMilliseconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto in_ms = [](timeval t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; };
  return in_ms(usage.ru_utime) + in_ms(usage.ru_stime);
}

// For contenders that know nothing of cancellation: what one would write.
inline void BlockUntilStopped(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait(lock, stop, [] { return false; });
}

template <typename Runtime>
int Fibonacci(Runtime& runtime, int n) {
  if (n < 2) return n;
  int a = 0;
  int b = 0;
  runtime.WithGroup([&](auto& group) {
    group.Spawn([&runtime, &a, n] { a = Fibonacci(runtime, n - 1); });
    b = Fibonacci(runtime, n - 2);
  });
  return a + b;
}

inline int FibonacciTasks(int n) {
  return n < 2 ? 0 : 1 + FibonacciTasks(n - 1) + FibonacciTasks(n - 2);
}

template <typename Group>
void Tree(Group& group, int depth) {
  if (depth == 0) return;
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&group, depth] { Tree(group, depth - 1); });
  }
}

// Keeps all workers of the runtime blocked as long as body(group) runs.
template <typename Runtime, typename F>
void WhileBlocked(Runtime& runtime, F body) {
  const int workers = runtime.workers();
  std::latch blocked(workers);
  std::latch release(1);
  runtime.WithGroup([&](auto& group) {
    for (int i = 0; i < workers; ++i) {
      group.Spawn([&] {
        blocked.count_down();
        release.wait();
      });
    }
    blocked.wait();
    body(group);
    release.count_down();
  });
}

template <typename Runtime>
void AddTaskCases(Contender& contender, Runtime& runtime) {
  const auto count = [](bool quick, int tasks) {
    return (quick ? tasks / 1000 : tasks) / Runtime::kFewer + 1;
  };

  contender.AddTimed("flat", "ns/task", [&runtime, count](bool quick) {
    const int tasks = count(quick, 1'000'000);
    double time;
    runtime.Enter([&] {
      const auto start = Clock::now();
      runtime.WithGroup([&](auto& group) {
        for (int i = 0; i < tasks; ++i) group.Spawn([] {});
      });
      time = NanosecondsSince(start);
    });
    return time / tasks;
  });

  contender.AddTimed("one_task", "ns", [&runtime, count](bool quick) {
    const int rounds = count(quick, 100'000);
    double time;
    runtime.Enter([&] {
      const auto start = Clock::now();
      for (int i = 0; i < rounds; ++i) {
        runtime.WithGroup([&](auto& group) { group.Spawn([] {}); });
      }
      time = NanosecondsSince(start);
    });
    return time / rounds;
  });

  if constexpr (Runtime::kFibonacci > 0) {
    contender.AddTimed("fib", "ns/task", [&runtime](bool quick) {
      const int n = quick ? 8 : Runtime::kFibonacci;
      double time;
      runtime.Enter([&] {
        const auto start = Clock::now();
        Fibonacci(runtime, n);
        time = NanosecondsSince(start);
      });
      return time / FibonacciTasks(n);
    });
  }

  if constexpr (Runtime::kTree) {
    contender.AddTimed("tree", "ns/task", [&runtime](bool quick) {
      const int depth = quick ? 5 : 19;
      double time;
      runtime.Enter([&] {
        const auto start = Clock::now();
        runtime.WithGroup([&](auto& group) { Tree(group, depth); });
        time = NanosecondsSince(start);
      });
      return time / ((1 << (depth + 1)) - 2);
    });
  }

  for (int fan : {2, 4, 8, 16}) {
    contender.AddTimed(
        "fan_" + std::to_string(fan), "ns", [&runtime, count, fan](bool quick) {
          const int rounds = count(quick, 10'000);
          double time;
          runtime.Enter([&] {
            const auto start = Clock::now();
            for (int i = 0; i < rounds; ++i) {
              runtime.WithGroup([&](auto& group) {
                for (int j = 0; j < fan; ++j) {
                  group.Spawn([] { SpinFor(std::chrono::microseconds(1)); });
                }
              });
            }
            time = NanosecondsSince(start);
          });
          return time / rounds;
        });
  }

  // One in 64 takes as long as the 64; the order is always the same.
  contender.AddTimed("skewed", "x ideal", [&runtime, count](bool quick) {
    std::vector<uint64_t> amounts(count(quick, 2048));
    std::mt19937 random(1);
    for (uint64_t& amount : amounts) {
      amount = random() % 64 == 0 ? 320'000 : 5'000;
    }
    const auto start_alone = Clock::now();
    for (uint64_t amount : amounts) Work(amount);
    const double alone = NanosecondsSince(start_alone);
    double time;
    runtime.Enter([&] {
      const auto start = Clock::now();
      runtime.WithGroup([&](auto& group) {
        for (uint64_t amount : amounts) {
          group.Spawn([amount] { Work(amount); });
        }
      });
      time = NanosecondsSince(start);
    });
    return time / (alone / std::thread::hardware_concurrency());
  });

  if constexpr (Runtime::kCancels) {
    contender.AddTimed("cancel_queued", "ms", [&runtime, count](bool quick) {
      const int tasks = count(quick, 100'000);
      Clock::time_point start;
      runtime.Enter([&] {
        WhileBlocked(runtime, [&](auto& group) {
          for (int i = 0; i < tasks; ++i) group.Spawn([] {});
          start = Clock::now();
          group.Cancel();
        });
      });
      return NanosecondsSince(start) / 1e6;
    });

    contender.Add("memory", "bytes/queued task", [&runtime, count](bool quick) {
      const int tasks = count(quick, 1'000'000);
      int64_t before = 0;
      int64_t after = 0;
      runtime.Enter([&] {
        WhileBlocked(runtime, [&](auto& group) {
          before = ResidentMemory();
          for (int i = 0; i < tasks; ++i) group.Spawn([] {});
          after = ResidentMemory();
          group.Cancel();
        });
      });
      return static_cast<double>(after - before) / tasks;
    });
  }

  contender.Add("allocations", "per task", [&runtime, count](bool quick) {
    const int tasks = count(quick, 100'000);
    int64_t allocations = 0;
    runtime.Enter([&] {
      for (int i = 0; i < 20; ++i) {
        StartCountingAllocations();
        runtime.WithGroup([&](auto& group) {
          for (int j = 0; j < tasks; ++j) group.Spawn([] {});
        });
        allocations = StopCountingAllocations();
      }
    });
    return static_cast<double>(allocations) / tasks;
  });

  // Never more than 1,000 unfinished.
  contender.Add(
      "growth", "bytes over 1e7 tasks", [&runtime, count](bool quick) {
        const int tasks = count(quick, 10'000'000);
        int64_t before = 0;
        int64_t after = 0;
        runtime.Enter([&] {
          std::atomic<int> ended{0};
          runtime.WithGroup([&](auto& group) {
            for (int i = 0; i < tasks; ++i) {
              if (i == tasks / 10) before = ResidentMemory();
              while (i - ended.load(std::memory_order_relaxed) >= 1000) {
                std::this_thread::yield();
              }
              group.Spawn(
                  [&ended] { ended.fetch_add(1, std::memory_order_relaxed); });
            }
            after = ResidentMemory();
          });
        });
        return static_cast<double>(after - before);
      });

  contender.Add("idle", "ms of CPU in 5 s", [&runtime](bool quick) {
    double used = 0;
    runtime.Enter([&] {
      runtime.WithGroup([&](auto& group) {
        for (int i = 0; i < 1000; ++i) group.Spawn([] {});
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(quick ? 1 : 100));
      const double before = CpuMilliseconds();
      std::this_thread::sleep_for(std::chrono::milliseconds(quick ? 1 : 5000));
      used = CpuMilliseconds() - before;
    });
    return used;
  });
}

// From the cancellation of so many tasks that wait for it until all have ended.
// with_tasks(tasks, started, body) spawns tasks that count the latch down and
// wait, calls body(cancel) and returns once they have ended.
template <typename F>
double TimeToCancel(int tasks, F with_tasks) {
  std::latch started(tasks);
  Clock::time_point start;
  with_tasks(tasks, started, [&](auto cancel) {
    started.wait();
    // The last has told that it is there, and is about to fall asleep.
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    start = Clock::now();
    cancel();
  });
  return NanosecondsSince(start);
}

template <typename F>
void AddCancelCases(Contender& contender, F with_tasks) {
  contender.AddTimed("cancel_blocked", "us", [with_tasks](bool) {
    return TimeToCancel(8, with_tasks) / 1e3;
  });
}

template <typename F>
void AddCancelSleepersCase(Contender& contender, F with_tasks) {
  contender.AddTimed("cancel_sleepers", "ms", [with_tasks](bool quick) {
    return TimeToCancel(quick ? 10 : 1000, with_tasks) / 1e6;
  });
}

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_TASKS_WORKLOADS_H_
