// A handle by which to wait for a task of a group, or to take its result.
//
//   TaskHandle<int> answer = group.SpawnWithResult([] { return Compute(); });
//   absl::StatusOr<int> result = answer.Take();
//
// May be copied, called from any thread, and outlive its group, which does not
// end before the task has. Whoever was told of the end of the group may destroy
// it, and its pool, while other threads are still on their way out of Wait()
// and Cancel() here.
#ifndef TOCSIN_CONCURRENCY_TASK_HANDLE_H_
#define TOCSIN_CONCURRENCY_TASK_HANDLE_H_

#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/task_result.h"

namespace tocsin::inline v0_2 {

template <typename R>
class TaskHandle {
 public:
  // Waits for the task to end. OK if its result is there; otherwise its error,
  // which is also one of its group, or kCancelled if it was cancelled. The same
  // for every caller. Gives up when the current scope is cancelled, with that
  // scope's status and without effect on the task. kFailedPrecondition if
  // called by the task itself, or in a forked child for a task of the parent
  // that had not ended.
  //
  // If the task has not started, it may run here, and in a group with
  // max_running those that were spawned before it run first. What runs here
  // runs to its end before this returns. That is where what cancels the current
  // scope cancels the group, too; or where no other thread can be had, or the
  // limit counts a task that waits here, and the current scope has no nearer
  // deadline.
  absl::Status Wait() const { return task_->Wait(); }

  // Waits in the same way, and gives the result to the first caller:
  // kFailedPrecondition for the others. A call that gives up leaves the result.
  absl::StatusOr<R> Take() const requires(!std::is_void_v<R>) {
    return task_->Take();
  }

  // Cancels this task, not its group. Returns at once. If it has not started,
  // it has ended then, and its closure is destroyed, on this thread.
  void Cancel() const { task_->Cancel(); }

 private:
  friend class TaskSet;
  explicit TaskHandle(std::shared_ptr<internal::ResultTask<R>> task)
      : task_(std::move(task)) {}

  std::shared_ptr<internal::ResultTask<R>> task_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_HANDLE_H_
