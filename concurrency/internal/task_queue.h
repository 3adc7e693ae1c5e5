// The tasks of one group: those that have not started, those that run, and the
// threads that wait for all of them to end.
//
// A queue belongs to a shard of the pool, the one of the thread that made the
// group. All its state is guarded by the shard's mutex, which outlives it: the
// thread that ends the last task tells the waiting ones under that mutex and
// touches the queue no more, so that a group may die the moment Join() returns.
// No closure, and nothing else of the user's, runs or dies under it.
//
// Who takes a task that was just added? One of these, always:
//   - a thread asleep in Join(), which Add() wakes. It looks at the queue again
//     before it sleeps or leaves.
//   - a worker that got a free slot for it. It looks at all shards before it
//     gives the slot back (thread_pool.cc tells why it cannot miss the task).
//   - no slot being free: a worker that ends its task, or one that the pool's
//     monitor sends when nobody came for a tenth of a second.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task.h"

namespace tocsin {

class ThreadPool;

namespace internal {

class TaskQueue;

// Some of a pool's queues: those that have a task which may start.
struct alignas(64) Shard {
  SlimMutex mutex;
  TaskQueue* first ABSL_GUARDED_BY(mutex) = nullptr;
  TaskQueue* last ABSL_GUARDED_BY(mutex) = nullptr;
  // Whether there is one. Written under the mutex, read without.
  std::atomic<bool> ready{false};
};

// Threads to be woken once a shard's mutex is released.
class WakeUps {
 public:
  void Add(const std::atomic<uint32_t>* word) {
    if (word != nullptr) words_.push_back(word);
  }
  bool empty() const { return words_.empty(); }
  void Send() {
    for (const std::atomic<uint32_t>* word : words_) FutexWakeOne(word);
    words_.clear();
  }

 private:
  absl::InlinedVector<const std::atomic<uint32_t>*, 4> words_;
};

enum class TaskKind : uint8_t {
  kQueued,     // starts when a worker or a waiting thread takes it
  kOwnThread,  // started at once, on a thread of its own
  kService,    // the same, and ends when all others have ended
};

// A task that has started, on the stack of the thread that runs it.
struct RunningTask {
  TaskQueue* queue = nullptr;
  Task* task = nullptr;
  // The task's own. It is given back before the queue knows that it has ended,
  // and others may ask for its name until then.
  std::unique_ptr<const TaskOptions> options;
  TaskKind kind = TaskKind::kQueued;
  uint64_t number = 0;
  RunningTask* next = nullptr;
  RunningTask* previous = nullptr;
  // The one further down on the same stack, whose wait runs this one.
  RunningTask* outer = nullptr;

  std::string name() const;

  // The one that the thread is in; null outside of tasks.
  static RunningTask* Current();
};

class TaskQueue {
 public:
  // At most `max_running` of the tasks that were added run at a time; 0 is no
  // limit.
  TaskQueue(ThreadPool& pool, int max_running);
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // False if the queue is closed; the task is then still the caller's.
  [[nodiscard]] bool Add(Task& task);

  // Starts the task on a thread of its own. In case of an error the task is
  // still the caller's.
  absl::Status Start(Task& task, TaskKind kind);

  // Runs the tasks of this queue and no others, then sleeps until the last one
  // has ended elsewhere, and closes the queue. False, at once or instead of
  // sleeping, if called by a task that would so wait for itself.
  [[nodiscard]] bool Join();

  // Destroys the tasks that have not started, except those that want to start
  // even so.
  void Discard();

  // Runs a task here that is in no list. Reserve() counts it, so that the group
  // does not end before it; false at the limit of running tasks.
  [[nodiscard]] bool Reserve();
  void RunReserved(Task& task);

  // The names of all tasks that have not ended: those that run first.
  std::vector<std::string> Names() const;

  bool unused() const;

  // For the pool's workers, under the mutex of this queue's shard: the first
  // task, of which there is one, and the end of a task.
  void Take(RunningTask& running) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  void Begin(Task& task, TaskKind kind, RunningTask& running)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  void End(RunningTask& running, WakeUps& wake_ups)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  // Runs what Take() or Begin() gave, with the mutex released.
  void Perform(RunningTask& running);

  // For the pool's monitor: whether a task is ready and none was taken since
  // the last call.
  bool Stuck() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);

  Shard& shard() const { return shard_; }
  ThreadPool& pool() const { return pool_; }
  // Tells the analysis of clang that shard().mutex is held.
  void AssumeLocked() const ABSL_ASSERT_EXCLUSIVE_LOCK(shard_.mutex) {}
  TaskQueue* next_ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex) {
    return next_;
  }

 protected:
  ~TaskQueue() = default;

 private:
  struct Waiter {
    Sleeper sleeper{Sleeper::Unscoped()};
    Waiter* next = nullptr;
  };

  // Runs or discards the task, on the thread that took it, in its group's
  // scope.
  virtual void Run(RunningTask& running) = 0;
  // Cancels the tasks of kind kService.
  virtual void CancelServices() = 0;

  bool WouldWaitForItself() const;
  bool MayTake() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  // Enters and leaves the shard's list, as MayTake() demands.
  void UpdateReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  void EnterShard() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  void LeaveShard() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  void Link(RunningTask& running, Task& task)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);
  // After a count went down: who waits for zero?
  void NoticeEnd(WakeUps& wake_ups) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard_.mutex);

  ThreadPool& pool_;
  Shard& shard_;
  // The group whose task made this one, or null: what waits for this queue
  // inside of that task keeps that group waiting.
  const TaskQueue* const made_in_;
  const int max_running_;

  // The tasks that have not started, in the order they were added.
  Task* head_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
  Task* tail_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
  uint64_t taken_ ABSL_GUARDED_BY(shard_.mutex) = 0;
  uint64_t taken_at_last_look_ ABSL_GUARDED_BY(shard_.mutex) = 0;
  int running_ ABSL_GUARDED_BY(shard_.mutex) = 0;  // of kind kQueued

  // All that have not ended, and those that a thread is being made for.
  int64_t unfinished_ ABSL_GUARDED_BY(shard_.mutex) = 0;  // without services
  int64_t services_ ABSL_GUARDED_BY(shard_.mutex) = 0;
  Task* starting_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
  RunningTask* begun_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;

  Waiter* waiters_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
  int joining_ ABSL_GUARDED_BY(shard_.mutex) = 0;
  bool closed_ ABSL_GUARDED_BY(shard_.mutex) = false;
  bool unused_ ABSL_GUARDED_BY(shard_.mutex) = true;

  // The shard's list.
  bool ready_ ABSL_GUARDED_BY(shard_.mutex) = false;
  TaskQueue* next_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
  TaskQueue* previous_ ABSL_GUARDED_BY(shard_.mutex) = nullptr;
};

}  // namespace internal
}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_QUEUE_H_
