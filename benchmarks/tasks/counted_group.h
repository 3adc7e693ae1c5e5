#ifndef TOCSIN_BENCHMARKS_TASKS_COUNTED_GROUP_H_
#define TOCSIN_BENCHMARKS_TASKS_COUNTED_GROUP_H_

#include <atomic>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <stop_token>
#include <utility>

#include "tocsin/benchmarks/tasks/workloads.h"

namespace tocsin::benchmarks {

// What one writes to wait for some of the tasks of a thread pool, and to
// cancel them, where it has no such thing itself: a count and a flag.
// `Pool` has Post(f).
template <typename Pool>
class CountedGroup {
 public:
  explicit CountedGroup(Pool& pool) : pool_(pool) {}

  template <typename F>
  void Spawn(F f) {
    unfinished_.fetch_add(1, std::memory_order_relaxed);
    pool_.Post([this, f = std::move(f)]() mutable {
      if (!cancelled_.load(std::memory_order_relaxed)) f();
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) End();
    });
  }
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void Wait() {
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) return;
    std::unique_lock lock(mutex_);
    all_ended_.wait(lock, [this] { return ended_; });
  }

 private:
  void End() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    all_ended_.notify_all();
  }

  Pool& pool_;
  std::atomic<int> unfinished_{1};  // with the one who waits
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable all_ended_;
  bool ended_ = false;
};

// See workloads.h. `Pool` is made of a number of threads.
template <typename Pool>
struct PoolRuntime {
  static constexpr int kFibonacci = 0;  // waits block a thread: a deadlock
  static constexpr bool kTree = true;
  static constexpr bool kCancels = true;
  static constexpr int kFewer = 1;

  template <typename F>
  void Enter(F body) {
    body();
  }
  template <typename F>
  void WithGroup(F body) {
    CountedGroup<Pool> group(pool);
    body(group);
    group.Wait();
  }
  int workers() {
    return static_cast<int>(std::thread::hardware_concurrency());
  }

  Pool pool{static_cast<int>(std::thread::hardware_concurrency())};
};

template <typename Pool>
int RunPool(const char* name, int argc, char** argv) {
  Contender contender(name);
  PoolRuntime<Pool> runtime;
  AddTaskCases(contender, runtime);
  AddCancelCases(contender, [](int tasks, std::latch& started, auto body) {
    static Pool pool(tasks);
    CountedGroup<Pool> group(pool);
    std::stop_source stop;
    for (int i = 0; i < tasks; ++i) {
      group.Spawn([&] {
        started.count_down();
        BlockUntilStopped(stop.get_token());
      });
    }
    body([&stop] { stop.request_stop(); });
    group.Wait();
  });
  return contender.Run(argc, argv);
}

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_TASKS_COUNTED_GROUP_H_
