// A task of a group whose result somebody wants.
//
//   TaskHandle<int> answer = group.SpawnWithResult([] { return Compute(); });
//   absl::StatusOr<int> result = answer.Wait();
//
// May be copied, called from any thread, and outlive its group, which does not
// end before the task has.
#ifndef TOCSIN_CONCURRENCY_TASK_HANDLE_H_
#define TOCSIN_CONCURRENCY_TASK_HANDLE_H_

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/task_options.h"

namespace tocsin {

class TaskGroup;

namespace internal {

struct RunningTask;

// The task, its closure included, which the queue and all handles refer to. It
// is run by whoever claims it first: the one that takes it from the queue, or a
// handle that would otherwise have to wait for that.
class HandledTask : public std::enable_shared_from_this<HandledTask> {
 public:
  explicit HandledTask(TaskGroup& group) : group_(&group) {}
  virtual ~HandledTask() = default;

  // What is in the queue: runs the task when called, and abandons it when it is
  // destroyed instead.
  class Ticket {
   public:
    // With `claimed`, for the one who has claimed it already.
    Ticket(std::shared_ptr<HandledTask> task, bool claimed)
        : task_(std::move(task)), claimed_(claimed) {}
    Ticket(Ticket&&) = default;
    ~Ticket();
    absl::Status operator()();

   private:
    std::shared_ptr<HandledTask> task_;
    const bool claimed_;
  };

  TaskOptions options;

  // Waits for the end in the current scope, and returns how it ended.
  absl::Status Wait();
  // kCancelled for a task that has not started, and for the waits of one that
  // has.
  void Cancel() { stop_.request_stop(); }
  // Ends it without having run.
  void Abandon(absl::Status why);

 protected:
  // Runs the closure and keeps its result.
  virtual absl::Status Invoke() = 0;
  virtual void DestroyClosure() = 0;

 private:
  // The group, if nobody has claimed the task before.
  TaskGroup* Claim();
  absl::Status Run();
  void End(absl::Status status);
  void RunHereIfPossible();

  std::stop_source stop_;
  SlimMutex mutex_;
  // Null once claimed. Until then the task counts as unfinished, so that the
  // group is there.
  TaskGroup* group_ ABSL_GUARDED_BY(mutex_);
  const RunningTask* running_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  absl::InlinedVector<Sleeper*, 2> waiting_ ABSL_GUARDED_BY(mutex_);
};

template <typename R>
class ResultTask : public HandledTask {
 public:
  using HandledTask::HandledTask;
  std::optional<R> result;         // written before the task ends, read after
  std::atomic<bool> taken{false};  // by a Wait() that moved it out
};
template <>
class ResultTask<void> : public HandledTask {
  using HandledTask::HandledTask;
};

// What SpawnWithResult() makes of what a closure returns.
template <typename T>
struct ResultOf {
  using Type = T;
};
template <typename T>
struct ResultOf<absl::StatusOr<T>> {
  using Type = T;
};
template <>
struct ResultOf<absl::Status> {
  using Type = void;
};

}  // namespace internal

template <typename R>
class TaskHandle {
 public:
  // Waits for the task to end; if it has not started, it may run here. Returns
  // its result, or its error, which is also one of its group; kCancelled if it
  // was cancelled. Gives the wait up when the current scope is cancelled,
  // without effect on the task. An `R` that cannot be copied is moved out by
  // the first call, and the next returns kFailedPrecondition; as does a call
  // by the task itself.
  absl::StatusOr<R> Wait() const {
    if (absl::Status status = task_->Wait(); !status.ok()) return status;
    if constexpr (std::is_copy_constructible_v<R>) {
      return *task_->result;
    } else {
      if (task_->taken.exchange(true)) {
        return absl::FailedPreconditionError("the result was taken before");
      }
      R result = *std::move(task_->result);
      task_->result.reset();
      return result;
    }
  }

  // Cancels this task, not its group. Returns at once.
  void Cancel() const { task_->Cancel(); }

 private:
  friend class TaskGroup;
  explicit TaskHandle(std::shared_ptr<internal::ResultTask<R>> task)
      : task_(std::move(task)) {}

  std::shared_ptr<internal::ResultTask<R>> task_;
};

template <>
class TaskHandle<void> {
 public:
  absl::Status Wait() const { return task_->Wait(); }
  void Cancel() const { task_->Cancel(); }

 private:
  friend class TaskGroup;
  explicit TaskHandle(std::shared_ptr<internal::ResultTask<void>> task)
      : task_(std::move(task)) {}

  std::shared_ptr<internal::ResultTask<void>> task_;
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_TASK_HANDLE_H_
