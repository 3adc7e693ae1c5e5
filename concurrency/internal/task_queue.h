// The tasks of one group: those that have not started, those that run, and the
// threads that wait for all of them to end.
//
// A thread that spawns or runs tasks has a shard of the pool, as a rule for
// itself. What it spawns into a group lies in that group's local queue there;
// so a lock that guards a shard is nearly always taken by the same thread. It
// takes the newest of its own tasks, which are those whose data is still at
// hand, and every now and then the oldest, so that all have their turn. A
// thread that has none carries half of another shard's over to its own, the
// oldest.
//
// A group counts what has not ended in each local queue. Its home queue, at the
// shard of the thread that made it, is a part of the group and exists as long;
// the lock of that shard guards what the group has besides. The local queues at
// other shards belong to these, and each that has something unfinished is an
// account of the group's. Where the last task of an account ends, the account
// is closed, under the lock of the home shard if it may be the last one. The
// group has ended when the home queue has nothing unfinished and no account
// is open. Shards outlive groups, and whoever closes the last account tells the
// waiting ones under the lock of the home shard and touches the group no more;
// so a group may die the moment Join() returns.
//
// A group with a limit of running tasks has its home queue only, and its
// tasks start in the order they were spawned.
//
// No closure, and nothing else of the user's, runs or dies under a shard's
// lock.
//
// Who takes a task that was just added? One of these, always:
//   - a thread asleep in Join(), which Add() wakes. Before it sleeps, it looks
//     at all shards once more after it has made itself known.
//   - a worker that got a free slot for it, or one that is searching anyway. It
//     looks at all shards before it gives the slot back (thread_pool.cc tells
//     why it cannot miss the task).
//   - no slot being free: a worker that ends its task, or one that the pool's
//     monitor sends when nobody came for a tenth of a second.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/short_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_ring.h"

namespace tocsin {

class ThreadPool;

namespace internal {

struct LocalQueue;
class TaskQueue;

enum class TaskKind : uint8_t {
  kQueued,     // starts when a worker or a waiting thread takes it
  kOwnThread,  // started at once, on a thread of its own
  kService,    // the same, and ends when all others have ended
};

// A task that has started, on the stack of the thread that runs it.
struct RunningTask {
  LocalQueue* local = nullptr;
  Task* task = nullptr;
  TaskKind kind = TaskKind::kQueued;
  RunningTask* next = nullptr;  // of the local queue's, begun before this one
  // The one further down on the same stack, whose wait runs this one.
  RunningTask* outer = nullptr;

  TaskQueue& queue() const;  // see local_queue.h
  std::string name() const;
};

// The one that the thread is in; null outside of tasks.
inline constinit thread_local RunningTask* running_task = nullptr;

// What a task is called in reports: by its number where it has no name.
std::string NameOf(const TaskOptions* options, uint64_t number);

struct Shard;
class TaskQueue;

inline constexpr uint64_t kNeverLooked = UINT64_MAX;

// What a group has at one shard, whose lock guards it.
struct alignas(64) LocalQueue {
  // Unnamed tasks get their numbers by the block.
  static constexpr uint64_t kNumbers = 1024;

  explicit LocalQueue(Shard& s) : shard(s) {}

  // Adds the task, whose number comes from those that the group has `given`.
  void Push(Task& task, std::atomic<uint64_t>& given);
  void Count(int64_t change);
  // Enters and leaves the list of those that run.
  void Link(RunningTask& running, Task& task);
  void Unlink(RunningTask& running);

  Shard& shard;
  TaskQueue* queue = nullptr;
  TaskRing tasks;
  // In `tasks`, or running. Changed under the lock, but a waiting thread has a
  // glance at it without.
  std::atomic<int64_t> unfinished{0};
  uint64_t taken = 0;
  uint64_t taken_at_last_look = 0;  // or kNeverLooked
  RunningTask* begun = nullptr;

  // The numbers by which the next tasks are called that have no name.
  uint64_t number = 0;
  uint64_t numbers_end = 0;

  // In the list of those that have a task which may start.
  bool ready = false;
  LocalQueue* next_ready = nullptr;
  LocalQueue* previous_ready = nullptr;

  LocalQueue* next = nullptr;  // of the shard's
};

inline TaskQueue& RunningTask::queue() const { return *local->queue; }

inline void LocalQueue::Count(int64_t change) {
  unfinished.store(unfinished.load(std::memory_order_relaxed) + change,
                   std::memory_order_relaxed);
}

inline void LocalQueue::Push(Task& task, std::atomic<uint64_t>& given) {
  tasks.Push(&task);
  if (number == numbers_end) {
    number = given.fetch_add(kNumbers);
    numbers_end = number + kNumbers;
  }
  task.number = ++number;
  Count(1);
}

inline void LocalQueue::Link(RunningTask& running, Task& task) {
  running.local = this;
  running.task = &task;
  running.next = std::exchange(begun, &running);
}

inline void LocalQueue::Unlink(RunningTask& running) {
  // The last that began is the first to end, on a shard of one thread.
  RunningTask** link = &begun;
  while (*link != &running) link = &(*link)->next;
  *link = running.next;
  Task::Free(running.task);  // until here it was in a list and had a name
}

struct alignas(64) Shard {
  ShortLock lock;
  LocalQueue* first_ready ABSL_GUARDED_BY(lock) = nullptr;
  LocalQueue* last_ready ABSL_GUARDED_BY(lock) = nullptr;
  // The local queues that are no group's home: those that are an account of
  // one, and those that wait for the next.
  LocalQueue* accounts ABSL_GUARDED_BY(lock) = nullptr;
  LocalQueue* spare ABSL_GUARDED_BY(lock) = nullptr;
  // Memory for the next local queue that has many.
  TaskRing spare_tasks ABSL_GUARDED_BY(lock);

  // Whether some local queue may be ready. True as soon as one is. It stays
  // when the last one leaves, which its thread does all the time, until
  // somebody comes and sees that there is none. Written under the lock, read
  // without.
  alignas(64) std::atomic<bool> looks_ready{false};

  // Whether one is.
  bool IsReady() ABSL_LOCKS_EXCLUDED(lock) {
    if (!looks_ready.load()) return false;
    TOCSIN_STEP("Shard: looked ready");
    MutexLock guard(lock);
    return SeeReady();
  }
  bool SeeReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock) {
    if (first_ready != nullptr) return true;
    looks_ready.store(false, std::memory_order_relaxed);
    return false;
  }

  // Whether a local queue is ready of which no task was taken since the last
  // call.
  bool Stuck() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);

  // The account of the group here: null where there is none, a new one that has
  // nothing in it, or one that is given back.
  LocalQueue* FindAccount(const TaskQueue& queue) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);
  LocalQueue& AddAccount(TaskQueue& queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock);
  static void Spare(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  // Enters and leaves the list of those that are ready at their shard.
  static void Enter(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  static void Leave(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  ~Shard() ABSL_NO_THREAD_SAFETY_ANALYSIS;
};

inline void Shard::Enter(LocalQueue& local) {
  if (local.ready) return;
  Shard& shard = local.shard;
  local.ready = true;
  local.taken_at_last_look = kNeverLooked;
  local.next_ready = nullptr;
  local.previous_ready = shard.last_ready;
  (shard.last_ready != nullptr ? shard.last_ready->next_ready
                               : shard.first_ready) = &local;
  shard.last_ready = &local;
  if (!shard.looks_ready.load(std::memory_order_relaxed)) {
    shard.looks_ready.store(true);
  }
}

inline void Shard::Leave(LocalQueue& local) {
  if (!local.ready) return;
  Shard& shard = local.shard;
  local.ready = false;
  (local.previous_ready != nullptr ? local.previous_ready->next_ready
                                   : shard.first_ready) = local.next_ready;
  (local.next_ready != nullptr ? local.next_ready->previous_ready
                               : shard.last_ready) = local.previous_ready;
}

// Two shards, in an order that is the same for all threads.
class ABSL_SCOPED_LOCKABLE LockBoth {
 public:
  LockBoth(Shard& a, Shard& b) ABSL_EXCLUSIVE_LOCK_FUNCTION(a.lock, b.lock)
      : first_(std::less<>()(&a, &b) ? a : b), second_(&first_ == &a ? b : a) {
    first_.lock.Lock();
    second_.lock.Lock();
  }
  LockBoth(const LockBoth&) = delete;
  LockBoth& operator=(const LockBoth&) = delete;
  ~LockBoth() ABSL_UNLOCK_FUNCTION() {
    second_.lock.Unlock();
    first_.lock.Unlock();
  }

 private:
  Shard& first_;
  Shard& second_;
};

class CompletionCount {
 public:
  bool NothingUnfinished(const LocalQueue& home) const {
    return home.unfinished.load() == 0 && accounts_.load() == 0;
  }
  bool HasAccounts() const { return accounts_.load() != 0; }

  // One more is open. The first only under the lock of the home shard, unless
  // something is unfinished for sure.
  void OpenAccount() { accounts_.fetch_add(1); }
  // One is closed. False, and nothing done, if it is the last.
  [[nodiscard]] bool CloseAccountButTheLast() {
    int64_t open = accounts_.load();
    while (open > 1) {
      if (accounts_.compare_exchange_weak(open, open - 1)) return true;
    }
    return false;
  }
  // The same for the last, under the lock of the home shard.
  void CloseAccount() { accounts_.fetch_sub(1); }

 private:
  std::atomic<int64_t> accounts_{0};
};

// Threads to be woken once a shard's lock is released.
using WakeUps = FutexWakes;

class GroupWaiters {
 public:
  // On the stack of the thread that sleeps.
  struct Waiter {
    Sleeper sleeper{Sleeper::Unscoped()};
    bool roused = false;  // for a task that was added
    Waiter* next = nullptr;
  };

  bool empty() const { return waiters_ == nullptr; }
  // Whether some sleep that no added task has roused. Who adds a task asks
  // after that, and who sleeps looks for tasks after Enter(): one sees the
  // other.
  bool AnyToRouse() const { return sleeping_.load() != 0; }

  void Enter(Waiter& waiter) {
    waiter.next = std::exchange(waiters_, &waiter);
    sleeping_.fetch_add(1);
  }
  void Leave(Waiter& waiter) {
    Waiter** link = &waiters_;
    while (*link != &waiter) link = &(*link)->next;
    *link = waiter.next;
    if (!waiter.roused) sleeping_.fetch_sub(1);
  }

  // Wakes one that no task has roused, for another task: with FutexWakeOne(),
  // if not null, once the lock is released.
  const std::atomic<uint32_t>* Rouse() {
    for (Waiter* w = waiters_; w != nullptr; w = w->next) {
      if (std::exchange(w->roused, true)) continue;
      sleeping_.fetch_sub(1);
      return w->sleeper.WakeLater();
    }
    return nullptr;
  }
  void WakeAll(WakeUps& wake_ups) {
    for (Waiter* w = waiters_; w != nullptr; w = w->next) {
      wake_ups.Add(w->sleeper.WakeLater());
    }
  }

 private:
  std::atomic<int> sleeping_{0};  // of those, who are not roused
  Waiter* waiters_ = nullptr;
};

// Goes up in the child at each fork().
inline constinit std::atomic<uint32_t> forks{0};

class TaskQueue {
 public:
  // `home` is the shard of this thread. At most `max_running` of the tasks that
  // were added run at a time; 0 is no limit.
  TaskQueue(ThreadPool& pool, Shard& home, int max_running)
      : pool_(pool),
        made_in_(running_task != nullptr ? &running_task->queue() : nullptr),
        max_running_(max_running),
        home_shard_(home),
        home_(home) {
    home_.queue = this;
    home_.numbers_end = kHomeNumbers;
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

  // Runs a task here that is in no list. Reserve() counts it, so that the group
  // does not end before it; false at the limit of running tasks.
  [[nodiscard]] bool Reserve();
  void RunReserved(Task& task);

  // The names of all tasks that have not ended: those that run first.
  std::vector<std::string> Names() const;

  // For the pool's workers. ------------------------------------------------

  // Takes a task of the first local queue that is ready at the shard, of which
  // there is one.
  static void TakeFrom(Shard& shard, RunningTask& running)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  // Takes the oldest task of the first local queue that is ready at `from`, if
  // one is, and carries the older half over to `to`, another shard, unless that
  // has some that are ready.
  static bool Steal(Shard& from, Shard& to, RunningTask& running);
  // Takes the task that this thread was found for.
  void BeginStarted(Task& task, TaskKind kind, RunningTask& running)
      ABSL_LOCKS_EXCLUDED(home_shard_.lock);

  // Runs what one of these gave, with no lock held.
  void Perform(RunningTask& running);

  // After that, under the lock of its local queue's shard. True if somebody may
  // have to be told: then AnnounceEnd() is to be called.
  [[nodiscard]] static bool End(RunningTask& running)
      ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Releases the lock of the local queue's shard meanwhile.
  static void AnnounceEnd(LocalQueue& local) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // All of that.
  static void EndAlone(RunningTask& running);

 protected:
  ~TaskQueue() = default;

  ThreadPool& pool() const { return pool_; }
  // Whether anything was ever added. For NoticeClosed().
  bool used() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return used_; }

 private:
  friend class GroupJoin;

  // Of the numbers for unnamed tasks, those that the home queue begins with.
  static constexpr uint64_t kHomeNumbers = 64;
  // So often a thread takes the oldest of its own tasks instead of the newest.
  static constexpr uint64_t kOldestEvery = 1024;

  [[noreturn]] static void DieOfFork();

  // Runs or discards the task, on the thread that took it, in its group's
  // scope.
  virtual void Run(RunningTask& running) = 0;
  // Cancels the tasks of kind kService.
  virtual void CancelServices() = 0;
  // The queue is closed, and its used_ is final. Called under a lock.
  virtual void NoticeClosed() = 0;

  bool AddElsewhere(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  bool AddAt(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  bool AddToAccount(Shard& shard, Task& task) ABSL_LOCKS_EXCLUDED(shard.lock);
  void CloseAccount(WakeUps& wake_ups) ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  // Wakes a thread that sleeps in a GroupJoin, if one does, to take a task that
  // is not at home.
  bool RouseSleeper() ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  bool StealHome(RunningTask& running);
  bool DiscardAt(Shard& shard) ABSL_LOCKS_EXCLUDED(shard.lock);

  // False if the queue is closed. Where something is unfinished for sure, it is
  // enough to count the account.
  bool OpenAccount() ABSL_LOCKS_EXCLUDED(home_shard_.lock);
  bool NothingUnfinished() const;

  // Under the lock of the home shard. ----
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  bool CloseIfEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  // After a count went down: who waits for zero?
  void NoticeEnd(WakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);
  void CountStarted(TaskKind kind, int change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(home_shard_.lock);

  // Under the lock of the local queue's shard, which the analysis of clang does
  // not recognise by its two names. ----
  // True if it carried something over.
  bool StealFrom(LocalQueue& from, Shard& to,
                 RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  LocalQueue* FindLocalQueue(Shard& shard) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  LocalQueue& LocalQueueAt(Shard& shard)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.lock);
  bool MayTake(const LocalQueue& local) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void Take(LocalQueue& local, RunningTask& running);
  void Begin(LocalQueue& local, Task& task,
             RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  bool EndAt(LocalQueue& local,
             RunningTask& running) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Enters and leaves the shard's list, as MayTake() demands.
  void UpdateReady(LocalQueue& local);

  ThreadPool& pool_;
  // The group whose task made this one, or null: what waits for this queue
  // inside of that task keeps that group waiting.
  const TaskQueue* const made_in_;
  const int max_running_;
  Shard& home_shard_;

  CompletionCount count_;
  GroupWaiters waiters_;  // but AnyToRouse() under the lock of the home shard

  // All above is read by other threads with every task; all below is written by
  // this one.
  LocalQueue home_;
  std::atomic<uint64_t> numbers_given_{kHomeNumbers};
  int running_ ABSL_GUARDED_BY(home_shard_.lock) = 0;  // where there is a limit
  int64_t services_ ABSL_GUARDED_BY(home_shard_.lock) = 0;
  Task* starting_ ABSL_GUARDED_BY(home_shard_.lock) = nullptr;
  int joining_ ABSL_GUARDED_BY(home_shard_.lock) = 0;
  bool used_ ABSL_GUARDED_BY(home_shard_.lock) = false;
  bool closed_ ABSL_GUARDED_BY(home_shard_.lock) = false;
};

// What happens with every task, so that it is compiled into one piece where
// tasks are spawned, run and waited for. -----------------------------------

inline void TaskQueue::Perform(RunningTask& running) {
  const uint32_t forks_before = forks.load(std::memory_order_relaxed);
  running.outer = std::exchange(running_task, &running);
  Run(running);
  if (forks.load(std::memory_order_relaxed) != forks_before) DieOfFork();
  running_task = running.outer;
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

inline void TaskQueue::Take(LocalQueue& local, RunningTask& running) {
  const bool oldest =
      max_running_ != 0 || local.taken % kOldestEvery == kOldestEvery - 1;
  Begin(local, oldest ? *local.tasks.TakeOldest() : *local.tasks.TakeNewest(),
        running);
}

inline void TaskQueue::TakeFrom(Shard& shard, RunningTask& running) {
  LocalQueue& local = *shard.first_ready;
  local.queue->Take(local, running);
  // Groups take turns.
  if (local.ready && local.next_ready != nullptr) {
    Shard::Leave(local);
    Shard::Enter(local);
  }
}

inline void TaskQueue::CountStarted(TaskKind kind, int change) {
  if (kind == TaskKind::kService) {
    services_ += change;
  } else {
    home_.Count(change);
  }
}

inline bool TaskQueue::NothingUnfinished() const {
  return count_.NothingUnfinished(home_);
}

inline bool TaskQueue::Ended() const {
  return services_ == 0 && NothingUnfinished();
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

class GroupJoin {
 public:
  explicit GroupJoin(TaskQueue& queue) : queue_(queue) {}
  GroupJoin(const GroupJoin&) = delete;
  GroupJoin& operator=(const GroupJoin&) = delete;

  // Runs the tasks of this queue and no others, then sleeps until the last one
  // has ended elsewhere, and closes the queue. False, at once or instead of
  // sleeping, if called by a task that would so wait for itself.
  [[nodiscard]] bool Run();

 private:
  // What Run() does: with the tasks at home, and while there is none. False if
  // it would wait for itself.
  void RunHomeTasks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  bool RunWithoutTasks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  bool WouldWaitForItself() const;
  void Sleep() ABSL_LOCKS_EXCLUDED(queue_.home_shard_.lock);
  bool SomethingIsReadyElsewhere();

  TaskQueue& queue_;
};

}  // namespace internal
}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
