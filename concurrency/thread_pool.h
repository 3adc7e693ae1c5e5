// The threads that run the tasks of task groups.
//
// A TaskGroup uses ThreadPool::Default() unless it is given another pool; few
// programs have to name one.
//
//   absl::StatusOr<std::unique_ptr<ThreadPool>> pool =
//       ThreadPool::Create({.name = "io", .threads = 4});
//   if (!pool.ok()) return pool.status();
//   TaskGroup group({.pool = pool->get()});
//
// Every task that was spawned starts in the end, even if all that run block for
// ever. So many as `threads` run at a time, but a worker that sleeps in a wait
// of the library, or in a BlockingRegion, does not count: another takes its
// place. And where a task is ready and nobody took it for a tenth of a second,
// the pool takes a worker that is still at the same task for blocked and starts
// one more.
// Those that are too many once the blocked return end after a while. At
// `max_threads` no more are made; then a task may have to be run by the wait of
// its group, which also runs tasks where no thread can be had at all.
//
// A task should not compute for long while it holds what others need: the pool
// guarantees progress, not fairness between those that run.
//
// Threads start when there is something for them to do. A pool without tasks
// uses no CPU. Groups must end before their pool. All members may be called
// from any thread. In a forked child a pool of the parent is dead: its groups
// answer with kFailedPrecondition; make another one there.
#ifndef TOCSIN_CONCURRENCY_THREAD_POOL_H_
#define TOCSIN_CONCURRENCY_THREAD_POOL_H_

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task_queue.h"

namespace tocsin {

class ThreadPool;

namespace internal {
class GroupJoin;

// By which a thread finds its shard; 0: not given yet.
inline constinit thread_local uint32_t thread_number = 0;
inline constinit std::atomic<ThreadPool*> default_pool{nullptr};
}  // namespace internal

class ThreadPool {
 public:
  struct Options {
    // What its threads are called, in ps and top, with a number behind it.
    std::string name = "tocsin";
    // How many tasks run at a time. By default so many as the process may use
    // CPUs, by its affinity and the quota of its cgroup. With 0, groups run
    // their tasks in Wait(), and only what nobody waits for gets a thread.
    std::optional<int> threads = {};
    // How many threads there are at most, the blocked and the idle included.
    int max_threads = 512;
  };

  // The pool of groups that name none; made at first use, never destroyed.
  static ThreadPool& Default() {
    ThreadPool* pool = internal::default_pool.load(std::memory_order_acquire);
    return pool != nullptr ? *pool : MakeDefault();
  }

  // kInvalidArgument for a negative number, or more threads than max_threads.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(Options options);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  // Waits for its threads to end. No group may use it any more.
  ~ThreadPool();

  // OK, or what keeps the pool from working as promised: kResourceExhausted if
  // the system refused the last thread asked for, kFailedPrecondition in a
  // forked child.
  absl::Status status() const;

 private:
  friend class TaskGroup;
  friend class internal::GroupJoin;
  friend class internal::TaskQueue;
  class Worker;
  enum class Granted : uint32_t { kNothing, kSlot, kTask, kEnd };
  enum Watch : uint32_t { kNoThread, kDormant, kWatching, kEnded };

  static ThreadPool& MakeDefault();
  ThreadPool(Options options, int threads);

  // For task groups. ------------------------------------------------------

  // Where this thread's tasks are.
  internal::Shard& ShardOfThread() const {
    if (internal::thread_number == 0) NumberThread();
    return shards_[internal::thread_number & (shard_count_ - 1)];
  }
  static void NumberThread();
  std::span<internal::Shard> shards() const {
    return {shards_.get(), shard_count_};
  }

  // Something became ready: unless a worker is searching, gives it one if a
  // slot is free, and sees to it that the monitor is awake if not.
  void Dispatch() {
    if (searching_.load() > 0) return;
    if (active_.load() < slots_ || watch_.load() != kWatching) Send();
  }
  void DispatchIfReady() {
    // One that searches looks at all shards before it stops.
    if (searching_.load() == 0 && SomethingIsReady()) Dispatch();
  }

  // Runs the task, which is in no list, on a thread that does nothing else
  // until it has ended. kResourceExhausted where none can be had.
  absl::Status RunOnThread(internal::TaskQueue& queue, internal::Task& task,
                           internal::TaskKind kind);

  bool forked() const {
    return internal::forks.load(std::memory_order_relaxed) != made_in_process_;
  }

  // Workers. --------------------------------------------------------------

  // A shard may look ready and turn out to be empty to who takes its lock.
  bool SomethingLooksReady() const;
  bool SomethingIsReady() const;
  void Send();
  void Grant();
  Worker* AddWorker() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int StartWorker(Worker* worker);
  void LeaveThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Park(Worker& worker);
  static void* RunWorker(void* worker);

  // The monitor. ----------------------------------------------------------

  void RouseMonitor();
  void RunMonitor();
  bool SomethingIsStuck();
  void LookAtWorkers(bool stuck);

  std::string ThreadName(const std::string& suffix) const;

  const std::string name_;
  const int slots_;
  const int max_threads_;
  const uint32_t made_in_process_;  // counts forks
  const uint32_t shard_count_;      // a power of two
  const std::unique_ptr<internal::Shard[]> shards_;

  // Slots in use: by workers that run a task or look for one, and by those that
  // are on their way to do so.
  alignas(64) std::atomic<int> active_{0};
  // Those of them that look for a task, before they give their slots back.
  std::atomic<int> searching_{0};
  std::atomic<uint32_t> watch_{kNoThread};

  mutable internal::SlimMutex mutex_;
  Worker* idle_ ABSL_GUARDED_BY(mutex_) = nullptr;  // last come, first served
  Worker* workers_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int threads_ ABSL_GUARDED_BY(mutex_) = 0;
  // 1 once there are none left and there will be no more.
  std::atomic<uint32_t> empty_{0};
  size_t started_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  // The errno of the last thread asked for. No absl::Status: that is allocated.
  int refusal_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time retry_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // While the pool is destroyed, a thread that ends joins the one before it.
  std::optional<pthread_t> ended_ ABSL_GUARDED_BY(mutex_);
  std::optional<pthread_t> monitor_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_THREAD_POOL_H_
