// A wait in a task for the end of a group, once it has lasted so long that it
// may be one of a circle: a task of each group waits for the next one. Then
// none of them ever ends by itself, and one of the waits is refused.
//
// Lives on the stack of the thread that waits, in its GroupJoin.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_WAIT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_WAIT_H_

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin::inline v0_2::internal {

class TaskWait {
 public:
  // A wait that is over sooner costs nothing of this.
  static constexpr absl::Duration kLong = absl::Milliseconds(100);

  // For a wait of this thread, in the task `in`. If it closes a circle, refuses
  // it, or if it may not be refused another one of the circle; if none may be,
  // this one all the same.
  TaskWait(TaskQueue& awaited, const RunningTask& in, bool may_be_refused);
  TaskWait(const TaskWait&) = delete;
  TaskWait& operator=(const TaskWait&) = delete;
  ~TaskWait();

  bool refused() const { return refused_.load(std::memory_order_acquire); }

 private:
  struct Fork;

  // Whether the end of `queue` waits for it.
  bool Delays(const TaskQueue& queue) const;
  TaskWait* FindRefusedInCircle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  static SlimMutex mutex_;
  static TaskWait* first_ ABSL_GUARDED_BY(mutex_);

  TaskQueue& awaited_;
  const RunningTask& in_;
  const bool may_be_refused_;
  std::atomic<bool> refused_{false};  // written under mutex_
  TaskWait* next_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // In a search: the one that waits for it, and the one to look at after it.
  TaskWait* found_by_ ABSL_GUARDED_BY(mutex_) = nullptr;
  TaskWait* found_next_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_WAIT_H_
