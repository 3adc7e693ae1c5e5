// A task that has started, and the one that the thread is in.
//
// Lives on the stack of the thread that runs it; other threads read it under
// the lock of the shard that it was taken at, which keeps it from ending.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_RUNNING_TASK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_RUNNING_TASK_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "tocsin/concurrency/internal/task.h"

namespace tocsin::inline v0_2::internal {

struct LocalQueue;
class TaskQueue;

enum class TaskKind : uint8_t {
  kQueued,      // starts when a worker or a waiting thread takes it
  kOwnThread,   // started at once, on a thread of its own
  kBackground,  // the same, and cancelled once all others have ended
  kReserved,    // run by a thread that waits for a task, and in no list
  kInTurn,      // the same, in a group with a limit, for which it counts
  kDiscarded,   // never runs: the thread destroys closures of the group
};

// A task that has started, on the stack of the thread that runs it.
struct RunningTask {
  LocalQueue* local = nullptr;
  Task* task = nullptr;  // null for kDiscarded
  TaskKind kind = TaskKind::kQueued;
  RunningTask* next = nullptr;  // of the local queue's, begun before this one
  // The task further down on the same stack, whose wait runs this one.
  RunningTask* outer = nullptr;

  TaskQueue& queue() const;  // see local_queue.h
  std::string name() const;
};

// The task that the thread is in; null outside of tasks. Set once it has begun,
// and reset before it ends: another thread that keeps all tasks from beginning
// and ending may read it, and what it points to.
extern constinit thread_local std::atomic<RunningTask*> running_task;

inline RunningTask* CurrentTask() {
  return running_task.load(std::memory_order_relaxed);
}

// What reports call a task: by its number if it has no name.
std::string NameOf(const TaskOptions* options, uint64_t number);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_RUNNING_TASK_H_
