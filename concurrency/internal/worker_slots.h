// The slots of a pool, and the threads that they are lent to.
//
// As many tasks run at a time as there are slots. A worker has one while it
// runs tasks or looks for some. This class finds or makes a worker for a free
// slot, and lets it wait for the next. What a worker does with the slot is in
// worker.h, and what happens to a task that finds none free in pool_monitor.h.
//
// Every member may be called from any thread, except that a worker calls those
// for workers on its own thread.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOTS_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOTS_H_

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/thread_cpu.h"

namespace tocsin::inline v0_2::internal {

class TaskQueue;
class WorkerSlots;

// The number by which a thread finds its shard; 0: not given yet.
extern constinit thread_local uint32_t thread_number;

// Goes up in the child at each fork().
extern std::atomic<uint32_t> forks;

// The slots of the default pool, once there is one.
extern std::atomic<WorkerSlots*> default_slots;

// What a worker is woken for.
enum class Granted : uint32_t { kNothing, kSlot, kTask, kEnd };

// A worker, as seen by the threads that give it something to do.
struct WorkerRecord {
  virtual ~WorkerRecord() = default;
  // What its thread does from beginning to end.
  virtual void Run() = 0;

  enum Slot : uint32_t {
    kNone,       // The worker is idle, or sleeps in the library.
    kHas,        // It is counted in active_.
    kBlocked,    // The monitor took it: the worker was blocked.
    kOvertaken,  // The monitor took it, though the worker computes.
  };
  std::atomic<Slot> slot{kNone};
  std::atomic<uint64_t> tasks{0};
  ThreadCpu cpu;

  // Written before the worker is woken, by the thread that takes it off the
  // list of idle ones; `granted` and `woken` also by the worker in Park().
  std::atomic<Granted> granted{Granted::kNothing};
  std::atomic<uint32_t> woken{0};
  TaskQueue* queue = nullptr;
  Task* task = nullptr;
  TaskKind kind = TaskKind::kQueued;

  // Guarded by the pool's mutex.
  WorkerRecord* next_idle = nullptr;
  WorkerRecord* next = nullptr;
  uint64_t tasks_at_last_look = 0;
  // Nothing if it had no use for a slot then.
  std::optional<std::chrono::nanoseconds> cpu_at_last_look;
};

class WorkerSlots : public Roster::Pool {
 public:
  // The kernel refuses longer names.
  static constexpr size_t kThreadNameSize = 15;

  WorkerSlots(std::string name, int slots, int max_threads);
  WorkerSlots(const WorkerSlots&) = delete;
  WorkerSlots& operator=(const WorkerSlots&) = delete;
  virtual ~WorkerSlots();

  // For task groups. ------------------------------------------------------

  // The shard that has this thread's tasks.
  Shard& ShardOfThread() const {
    KnowThread();
    return shards_[thread_number & (shard_count_ - 1)];
  }
  // Call it before the thread runs tasks.
  static void KnowThread() {
    if (thread_number == 0) NumberThread();
  }
  std::span<Shard> shards() const { return {shards_.get(), shard_count_}; }
  // Shards take turns: workers look at this one first. Advance() gives the turn
  // to the `passed`-th after it, unless another worker has given it on.
  uint64_t turn() const { return turn_.load(std::memory_order_relaxed); }
  void Advance(uint64_t turn, size_t passed) {
    turn_.compare_exchange_strong(turn, turn + passed,
                                  std::memory_order_relaxed);
  }

  // Call it when a task became ready. Unless a worker is searching, sends one
  // if a slot is free, and otherwise makes sure that the monitor is awake.
  void Dispatch() {
    if (searching_.load() > 0) return;
    if (active_.load() < slot_count_ || watch_.load() != kWatching) Send();
  }
  void DispatchIfReady() {
    // A worker that searches looks at all shards before it stops.
    if (searching_.load() == 0 && SomethingIsReady()) Dispatch();
  }

  // Whether a thread could be sent for a task: one that is idle, or another.
  bool CanSend() const {
    MutexLock lock(mutex_);
    return idle_ != nullptr || (threads_ < max_threads_ && refusal_ == 0);
  }
  // Runs the task, which is in no list, on a thread that does nothing else
  // until it has ended. kResourceExhausted if there is no thread for it.
  absl::Status RunOnThread(TaskQueue& queue, Task& task, TaskKind kind);

  bool forked() const {
    return forks.load(std::memory_order_relaxed) != made_in_process_;
  }
  // OK, or what keeps the pool from working as promised.
  absl::Status status() const;
  // What it is if forked().
  static absl::Status DeadInChild();

  // For workers. ----------------------------------------------------------

  // A shard may look ready and turn out to be empty under its lock.
  bool SomethingLooksReady() const;

  // Counts the worker as one that looks for a task, until it has one or gives
  // up.
  void BeginSearch() { searching_.fetch_add(1); }
  // Tasks that became ready meanwhile were left to the searching workers, and
  // this may be the last of them.
  void EndSearch() {
    searching_.fetch_sub(1);
    DispatchIfReady();
  }

  void TakeSlot(WorkerRecord& worker) {
    if (worker.slot.exchange(WorkerRecord::kHas) != WorkerRecord::kHas) {
      active_.fetch_add(1);
    }
  }
  void GiveSlot(WorkerRecord& worker);
  bool MoreThanSlots() const {
    return active_.load(std::memory_order_relaxed) > slot_count_;
  }

  // Waits for something to do. False if the thread is to end, and is no longer
  // counted then.
  bool Park(WorkerRecord& worker);

  std::string ThreadName(const std::string& suffix) const;

 protected:
  // Ends all workers and waits until they have ended.
  void EndWorkers();

 private:
  friend class PoolMonitor;
  enum Watch : uint32_t { kNoThread, kDormant, kWatching, kEnded };

  // Null if there is no memory.
  virtual WorkerRecord* NewWorker(size_t number) = 0;
  virtual void RouseMonitor() = 0;
  // How many slots there are to be from now on, if that may have changed.
  virtual std::optional<int> ChangedSlots() = 0;
  // Returns the errno.
  virtual int StartMonitor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;

  static void NumberThread();
  bool SomethingIsReady() const;
  void Send();
  bool SendBelow(int slots);
  void Grant();
  bool HaveMonitor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  WorkerRecord* AddWorker() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteRefusal(int error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int StartWorker(WorkerRecord* worker);
  void LeaveThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void* RunWorker(void* worker) noexcept;

  const std::string name_;
  std::atomic<int> slot_count_;  // the monitor alone changes it
  const int max_threads_;
  const uint32_t made_in_process_;  // `forks` at that time
  const uint32_t shard_count_;      // a power of two
  const std::unique_ptr<Shard[]> shards_;

  // Slots in use: by workers that run a task or look for one, and by workers
  // that are on their way to do so.
  alignas(64) std::atomic<int> active_{0};
  // How many of them look for a task, before they give their slots back.
  std::atomic<int> searching_{0};
  std::atomic<uint32_t> watch_{kNoThread};

  alignas(64) std::atomic<uint64_t> turn_{0};  // counts on, and wraps nowhere

  mutable SlimMutex mutex_;
  WorkerRecord* idle_ ABSL_GUARDED_BY(mutex_) = nullptr;  // last in, first out
  WorkerRecord* workers_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int threads_ ABSL_GUARDED_BY(mutex_) = 0;
  // 1 once no threads are left and there will be no more.
  std::atomic<uint32_t> empty_{0};
  size_t started_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  // The errno of the last thread asked for. No absl::Status: that would
  // allocate.
  int refusal_ ABSL_GUARDED_BY(mutex_) = 0;
  Instant retry_at_ ABSL_GUARDED_BY(mutex_) = Instant::min();
  // Whether something was stuck at max_threads when the monitor looked last.
  bool full_ ABSL_GUARDED_BY(mutex_) = false;
  // While the pool is destroyed, a thread that ends joins the one before it.
  std::optional<pthread_t> ended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WORKER_SLOTS_H_
