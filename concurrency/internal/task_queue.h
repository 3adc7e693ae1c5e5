// The tasks of one group, at whatever shards they are.
//
// Any thread may add a task, take one and end it. A section of the class has
// the members for the pool's workers.
//
// A thread that spawns or runs tasks has a shard of the pool, usually for
// itself. What it spawns into a group lies in that group's local queue there;
// so nearly always the same thread takes the lock of a shard. It takes the
// newest of its own tasks, whose data is likely still in its cache, and now and
// then the oldest, so that all have their turn. A thread that has none carries
// the oldest half of another local queue over to its own shard.
//
// A group counts what has not ended in each local queue. Its home queue, at the
// shard of the thread that made it, is a part of the group and exists as long;
// the lock of that shard also guards the rest of the group. The local queues at
// other shards belong to their shards, and each that has something unfinished
// is an account of the group. When the last task of an account ends, the
// account is closed, under the lock of the home shard if it may be the last
// one. The group has ended when the home queue and the background tasks have
// nothing unfinished and no account is open. Shards outlive groups, and the
// thread that closes the last account notifies the waiters under the lock of
// the home shard and does not touch the group again; so a group may be
// destroyed as soon as GroupJoin::Run() returns.
//
// A group with a limit of running tasks has only its home queue, and its tasks
// start in the order they were spawned.
//
// No closure, and nothing else of the user's, runs or is destroyed under a
// shard's lock.
//
// One of these always takes a task that was just added:
//   - a thread asleep in a GroupJoin, which Add() wakes. Before it sleeps, but
//     after it has entered the list of waiters, it looks at all shards again.
//   - a worker that got a free slot for it, or one that is searching anyway. It
//     looks at all shards before it gives the slot back (worker_slots.cc
//     explains why it cannot miss the task).
//   - if no slot is free: a worker that ends its task, or one that the pool's
//     monitor sends if no thread took the task for a tenth of a second.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/completion_count.h"
#include "tocsin/concurrency/internal/group_waiters.h"
#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

class Scope;

class TaskQueue {
 public:
  // The tasks run in `scope`. `home` is the shard of this thread. At most
  // `max_running` of the tasks that were added run at a time; 0 is no limit.
  // The queue is closed from the beginning if that is negative.
  TaskQueue(Scope& scope, WorkerSlots& slots, Shard& home, int max_running)
      : scope_(scope),
        slots_(slots),
        made_by_(CurrentTask()),
        made_in_(made_by_ != nullptr ? &made_by_->queue() : nullptr),
        max_running_(max_running),
        home_shard_(home),
        home_(home) {
    home_.queue = this;
    home_.numbers_end = kHomeNumbers;
    if (max_running != 0) home_.oldest_at = 0;
    closed_ = max_running < 0;
  }
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // False if the queue is closed; the task is then still the caller's.
  [[nodiscard]] bool Add(Task& task);

  // Starts the task on a thread of its own. In case of an error the task is
  // still the caller's.
  absl::Status Start(Task& task, TaskKind kind);

  // Destroys the tasks that have not started, except those that want to start
  // even so.
  void Discard();

  // Lets the threads that wait for the end look again.
  void WakeWaiters() ABSL_LOCKS_EXCLUDED(home_shard_.lock);

  // The scope that tasks run in, and whether what cancels this thread's current
  // scope cancels that one.
  Scope& scope() const { return scope_; }
  virtual bool InsideCurrentScope() const = 0;
  // Whether it ends before the task that made it, and so before the group of
  // that task.
  virtual bool EndsBeforeItsMaker() const = 0;

  // Keeps the group from ending, if it has not ended.
  class [[nodiscard]] Hold {
   public:
    explicit Hold(TaskQueue& queue)
        : queue_(queue.OpenAccount() ? &queue : nullptr) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
      if (queue_ != nullptr) queue_->CloseHeld();
    }
    explicit operator bool() const { return queue_ != nullptr; }

   private:
    TaskQueue* const queue_;
  };

  // For a thread that waits for a task which has not started. --------------

  bool limited() const { return max_running_ != 0; }
  bool forked() const { return slots_.forked(); }
  // Whether no other thread will take that task, as long as this one waits: the
  // pool has no thread to send, or the limit counts a task that waits here.
  bool DependsOnThisThread() const;
  // Without a limit: runs a task that is in no list, on this thread. Reserve()
  // counts it, so that the group does not end before.
  void Reserve();
  void RunReserved(Task& task);
  // With a limit: takes the oldest task, if one may start, and else enters the
  // waiter, which is woken when one may. A task that runs inside the wait of
  // another of the group counts as that one.
  [[nodiscard]] bool TakeInTurn(RunningTask& running,
                                GroupWaiters::Waiter& waiter);
  void RunInTurn(RunningTask& running);
  // Whether the waiter had been woken for a task. It takes that or calls
  // PassOn(), which tells the next.
  [[nodiscard]] bool LeaveTurn(GroupWaiters::Waiter& waiter);
  void PassOn();

  // The names of all tasks that have not ended, running ones first.
  std::vector<std::string> Names() const;

  // For the tree of all tasks, while no task begins or ends. ----------------

  virtual const std::string& name() const = 0;
  const RunningTask* made_by() const { return made_by_; }
  const TaskQueue* made_in() const { return made_in_; }
  const LocalQueue& home() const { return home_; }
  const Task* starting() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return starting_;
  }

  // For the pool's workers. ------------------------------------------------

  // Takes a task of the local queue at the shard whose turn it is. REQUIRES:
  // one is ready.
  static void TakeFrom(Shard& shard, RunningTask& running)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  // Takes the oldest task of the local queue at `from` whose turn it is. If
  // nothing is ready at `to`, another shard, and the group has no limit, also
  // carries the older half over to that. False if `from` has nothing ready.
  static bool Steal(Shard& from, Shard& to, RunningTask& running);
  // Takes the task that this thread was given.
  void BeginStarted(Task& task, TaskKind kind, RunningTask& running)
      ABSL_LOCKS_EXCLUDED(home_shard_.lock);

  // Runs the task that one of these took, with no lock held.
  void Perform(RunningTask& running);

  // Call it after that, under the lock of the local queue's shard. If it is
  // true, call AnnounceEnd(): a waiter or an account may depend on this end.
  [[nodiscard]] static bool End(RunningTask& running)
      ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Releases the lock of the local queue's shard meanwhile.
  static void AnnounceEnd(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Both, with the lock taken.
  static void EndAlone(RunningTask& running);

 protected:
  ~TaskQueue() = default;

  WorkerSlots& slots() const { return slots_; }
  // Waits until all threads are out of their waits for the group. Call it
  // before the destructor, once the group has ended.
  void LetWaitsGetOut();
  int max_running() const { return max_running_; }
  // Whether anything was ever added. For NoticeClosed().
  bool used() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return used_; }

 private:
  friend class GroupJoin;

  // How many of the numbers for unnamed tasks the home queue begins with.
  static constexpr uint64_t kHomeNumbers = 64;

  [[noreturn]] static void DieOfFork();

  // Runs or discards the task, on the thread that took it, in its group's
  // scope.
  virtual void Run(RunningTask& running) = 0;
  // Cancels the tasks of kind kBackground.
  virtual void CancelBackground() = 0;
  // The queue is closed, and its used_ is final. Called under a lock.
  virtual void NoticeClosed() = 0;

  bool AddElsewhere(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  bool AddAt(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  bool AddToAccount(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  void CloseAccount(WakeUps& wake_ups) ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  void CloseHeld();
  bool RunsOnThisStack() const;
  void EndHere(RunningTask& running);
  // Wakes a thread that sleeps in a GroupJoin, if one does, to take a task that
  // is not at home.
  bool RouseSleeper() ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  // Of the shards it looks at that of `turn` first, and makes it that of the
  // one behind that in which it found something.
  bool StealHome(size_t& turn, RunningTask& running);
  bool DiscardAt(Shard& shard) ABSL_LOCKS_EXCLUDED(shard.lock);

  // False if the queue is closed. If something is certain to be unfinished, it
  // is enough to count the account.
  bool OpenAccount() ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  bool NothingUnfinished() const;

  // Under the lock of the home shard. ----
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  bool CloseIfEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  // Call it after a count went down. Wakes the waiters if nothing is left.
  void NoticeEnd(WakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  void CountStarted(TaskKind kind, int change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);

  // Under the lock of the local queue's shard, which clang's analysis does not
  // recognise by its two names. ----
  // True if it carried something over.
  bool StealFrom(LocalQueue& from, Shard& to,
                 RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  LocalQueue* FindLocalQueue(Shard& shard) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  LocalQueue& LocalQueueAt(Shard& shard)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  bool MayTake(const LocalQueue& local) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  static void TakeInTurn(Shard& shard, RunningTask& running)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  bool OldestIsDue(const LocalQueue& local) const {
    return local.taken >= local.oldest_at;
  }
  Task& TakeDue(LocalQueue& local);
  // Takes the oldest if that is due, or `oldest`.
  void Take(LocalQueue& local, RunningTask& running, bool oldest = false);
  void Begin(LocalQueue& local, Task& task,
             RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  bool EndAt(LocalQueue& local,
             RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Enters or leaves the shard's list, as MayTake() says.
  void UpdateReady(LocalQueue& local);

  Scope& scope_;
  WorkerSlots& slots_;
  // The task that made this one, or null. It may have ended since.
  const RunningTask* const made_by_;
  // The group of that task, which exists if EndsBeforeItsMaker(). A wait for
  // this queue inside it then keeps that group waiting.
  const TaskQueue* const made_in_;
  const int max_running_;
  Shard& home_shard_;

  CompletionCount count_;
  GroupWaiters waiters_;  // under home_shard_.lock, except AnyToRouse()

  // Other threads read all of the above for every task. Mainly the home thread
  // writes what is below.
  LocalQueue home_;
  std::atomic<uint64_t> numbers_given_{kHomeNumbers};
  int running_ ABSL_GUARDED_BY(home_shard_.lock) = 0;  // where there is a limit
  int64_t background_ ABSL_GUARDED_BY(home_shard_.lock) = 0;
  Task* starting_ ABSL_GUARDED_BY(home_shard_.lock) = nullptr;
  // The threads in a GroupJoin, and whether there were several at a time.
  int joining_ ABSL_GUARDED_BY(home_shard_.lock) = 0;
  std::atomic<bool> crowded_ = false;  // written under the lock
  bool used_ ABSL_GUARDED_BY(home_shard_.lock) = false;
  bool closed_ ABSL_GUARDED_BY(home_shard_.lock) = false;
};

// What runs for every task: inline, so that the compiler merges it into the
// code that spawns, runs and waits for tasks. ------------------------------

inline void TaskQueue::Perform(RunningTask& running) {
  const uint32_t forks_before = forks.load(std::memory_order_relaxed);
  running.outer = CurrentTask();
  running_task.store(&running, std::memory_order_release);
  Run(running);
  if (forks.load(std::memory_order_relaxed) != forks_before) DieOfFork();
  running_task.store(running.outer, std::memory_order_release);
}

inline bool TaskQueue::MayTake(const LocalQueue& local) const {
  return !local.tasks.empty() && (max_running_ == 0 || running_ < max_running_);
}

inline void TaskQueue::Begin(LocalQueue& local, Task& task,
                             RunningTask& running) {
  running.kind = TaskKind::kQueued;
  ++local.taken;
  if (max_running_ != 0) ++running_;
  if (!MayTake(local)) Shard::Leave(local);
  local.Link(running, task);
}

inline void TaskQueue::Take(LocalQueue& local, RunningTask& running,
                            bool oldest) {
  oldest |= OldestIsDue(local);
  Begin(local, oldest ? TakeDue(local) : *local.tasks.TakeNext(), running);
}

[[gnu::always_inline]] inline void TaskQueue::TakeFrom(Shard& shard,
                                                       RunningTask& running) {
  LocalQueue& local = *shard.first_ready;
  if (local.next_ready == nullptr) {
    local.queue->Take(local, running);
  } else {
    TakeInTurn(shard, running);
  }
}

inline void TaskQueue::CountStarted(TaskKind kind, int change) {
  if (kind == TaskKind::kBackground) {
    background_ += change;
  } else {
    home_.Count(change);
  }
}

inline bool TaskQueue::NothingUnfinished() const {
  return count_.NothingUnfinished(home_);
}

inline bool TaskQueue::Ended() const {
  return background_ == 0 && NothingUnfinished();
}

inline bool TaskQueue::CloseIfEnded() {
  if (closed_ || !Ended()) return closed_;
  closed_ = true;
  home_.tasks.LeaveMemoryTo(home_shard_.spare_tasks);
  NoticeClosed();
  return true;
}

[[gnu::always_inline]] inline bool TaskQueue::EndAt(LocalQueue& local,
                                                    RunningTask& running) {
  local.Unlink(running);
  if (&local != &home_) {
    local.Count(-1);
    return local.unfinished.load(std::memory_order_relaxed) == 0;
  }
  CountStarted(running.kind, -1);
  if (max_running_ != 0 && running.kind == TaskKind::kQueued) {
    --running_;
    UpdateReady(home_);
  }
  return !waiters_.empty() &&
         home_.unfinished.load(std::memory_order_relaxed) == 0;
}

[[gnu::always_inline]] inline bool TaskQueue::End(RunningTask& running) {
  return running.queue().EndAt(*running.local, running);
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
