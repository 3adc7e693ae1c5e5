// The tasks of one group at one shard: those that have not started, and those
// that run.
//
// Any thread that holds the lock of the shard may use it; it takes none itself.
// Only `unfinished` is also read without the lock.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_LOCAL_QUEUE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_LOCAL_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_ring.h"

namespace tocsin::inline v0_2::internal {

struct Shard;
class TaskQueue;

inline constexpr uint64_t kNeverLooked = UINT64_MAX;

// What a group has at one shard, whose lock guards it.
struct alignas(64) LocalQueue {
  // One time in so many, a thread takes the oldest task instead of the next.
  static constexpr uint64_t kOldestEvery = 1024;
  // Unnamed tasks get their numbers by the block.
  static constexpr uint64_t kNumbers = 1024;

  explicit LocalQueue(Shard& s) : shard(s) {}

  // Adds the task and numbers it. `given` is the last number that the group has
  // given to its local queues.
  void Push(Task& task, std::atomic<uint64_t>& given);
  void Count(int64_t change);
  // Enters and leaves the list of those that run.
  void Link(RunningTask& running, Task& task);
  void Unlink(RunningTask& running);

  Shard& shard;
  TaskQueue* queue = nullptr;
  TaskRing tasks;
  // How many are in `tasks` or running. Changed under the lock, but a waiting
  // thread also reads it without.
  std::atomic<int64_t> unfinished{0};
  uint64_t taken = 0;
  // Once so many are taken, the next one is the oldest. 0 for a group with a
  // limit.
  uint64_t oldest_at = kOldestEvery;
  uint64_t taken_at_last_look = 0;  // or kNeverLooked
  RunningTask* begun = nullptr;

  // The numbers for the next tasks; those without a name are called by them.
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
  // On a shard of one thread, the last task to begin is the first to end.
  RunningTask** link = &begun;
  while (*link != &running) link = &(*link)->next;
  *link = running.next;
  Task::Free(running.task);  // until here it was in a list and had a name
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_LOCAL_QUEUE_H_
