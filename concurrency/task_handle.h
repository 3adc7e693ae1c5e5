// A task of a group whose result somebody wants.
//
//   TaskHandle<int> answer = group.SpawnWithResult([] { return Compute(); });
//   absl::StatusOr<int> result = answer.Wait();
//
// May be copied, called from any thread, and outlive its group, which does not
// end before the task has.
#ifndef TOCSIN_CONCURRENCY_TASK_HANDLE_H_
#define TOCSIN_CONCURRENCY_TASK_HANDLE_H_

#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/task_result.h"

namespace tocsin {

template <typename R>
class TaskHandle {
 public:
  // Waits for the task to end; if it has not started, it may run here. Returns
  // its result, or its error, which is also one of its group; kCancelled if it
  // was cancelled. Gives the wait up when the current scope is cancelled,
  // without effect on the task. An `R` that cannot be copied is moved out by
  // the first call, and the next returns kFailedPrecondition; as does a call
  // by the task itself.
  std::conditional_t<std::is_void_v<R>, absl::Status, absl::StatusOr<R>> Wait()
      const {
    return task_->WaitForResult();
  }

  // Cancels this task, not its group. Returns at once.
  void Cancel() const { task_->Cancel(); }

 private:
  friend class TaskGroup;
  explicit TaskHandle(std::shared_ptr<internal::ResultTask<R>> task)
      : task_(std::move(task)) {}

  std::shared_ptr<internal::ResultTask<R>> task_;
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_TASK_HANDLE_H_
