// A task with handles that wait for it and take its result.
//
// Any thread may wait for it and cancel it, also after the end of its group.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_RESULT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_RESULT_H_

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task_closure.h"
#include "tocsin/concurrency/internal/waiter_list.h"
#include "tocsin/concurrency/internal/worker_slots.h"
#include "tocsin/concurrency/task_options.h"

namespace tocsin::inline v0_2::internal {

class TaskQueue;

// The task, its closure included, which the queue and all handles refer to. The
// thread that claims it first runs it: the one that takes it from the queue, or
// one that would otherwise have to wait on a handle for that.
class HandledTask : public std::enable_shared_from_this<HandledTask> {
 public:
  explicit HandledTask(TaskQueue& group) : group_(&group) {}
  virtual ~HandledTask() = default;

  // What is in the queue: runs the task if called, and abandons it if destroyed
  // instead.
  class Ticket {
   public:
    // With `claimed`, the task is claimed by its maker once that is true, and
    // is none of the ticket's business until then.
    explicit Ticket(std::shared_ptr<HandledTask> task,
                    const bool* claimed = nullptr)
        : task_(std::move(task)), claimed_(claimed) {}
    Ticket(Ticket&&) = default;
    ~Ticket();
    absl::Status operator()();

   private:
    std::shared_ptr<HandledTask> task_;
    const bool* const claimed_;
  };

  TaskOptions options;

  // What TaskHandle::Wait() returns.
  absl::Status Wait();
  // kCancelled for a task that has not started, and for the waits of one that
  // has.
  void Cancel();
  // Ends the task without running it.
  void Abandon(absl::Status why);

 protected:
  // Runs the closure and keeps its result.
  virtual absl::Status Invoke() = 0;
  virtual void DestroyClosure() = 0;

 private:
  bool forked() const {
    return forks.load(std::memory_order_relaxed) != made_in_process_;
  }
  struct Waiter;

  // Returns the group, or null if the task was claimed before. The caller keeps
  // the group from ending.
  TaskQueue* Claim();
  absl::Status Run();
  void End(absl::Status status);
  // Whether Wait() may run tasks of the group on this thread. REQUIRES: the
  // task is not claimed.
  bool MayRunHere() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RunsOnThisStack() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunHere();

  const uint32_t made_in_process_ = forks.load(std::memory_order_relaxed);
  std::stop_source stop_;
  SlimMutex mutex_;
  // Null once claimed. Until then the task counts as unfinished, so the group
  // exists.
  TaskQueue* group_ ABSL_GUARDED_BY(mutex_);
  const RunningTask* running_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // Written under the lock, `status_` first.
  std::atomic<bool> ended_{false};
  absl::Status status_;
  WaiterList<Waiter> waiting_ ABSL_GUARDED_BY(mutex_);
};

template <typename R>
class ResultTask : public HandledTask {
 public:
  using HandledTask::HandledTask;
  // What TaskHandle::Take() returns.
  absl::StatusOr<R> Take() {
    if (absl::Status status = Wait(); !status.ok()) return status;
    if (taken_.exchange(true)) {
      return absl::FailedPreconditionError("the result was taken before");
    }
    R result = *std::move(result_);
    result_.reset();
    return result;
  }

 protected:
  std::optional<R> result_;  // written before the task ends, read after

 private:
  std::atomic<bool> taken_{false};
};
template <>
class ResultTask<void> : public HandledTask {
 public:
  using HandledTask::HandledTask;
};

// The result type of SpawnWithResult() for what a closure returns.
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

template <typename F>
using ReturnedBy =
    decltype(TaskClosure::Invoke(std::declval<std::decay_t<F>&>()));
template <typename F>
using ResultOfClosure = typename ResultOf<std::decay_t<ReturnedBy<F>>>::Type;

// The task of a closure.
template <typename F>
class ClosureTask final : public ResultTask<ResultOfClosure<F>> {
  using Closure = std::decay_t<F>;
  using Returned = ReturnedBy<F>;
  using R = ResultOfClosure<F>;

 public:
  ClosureTask(TaskQueue& group, F&& f)
      : ResultTask<R>(group), closure_(std::forward<F>(f)) {}

 private:
  absl::Status Invoke() override {
    if constexpr (std::is_void_v<R>) {
      return TaskClosure::Call(*closure_);
    } else if constexpr (std::is_same_v<std::decay_t<Returned>, R>) {
      this->result_.emplace(TaskClosure::Invoke(*closure_));
      return absl::OkStatus();
    } else {
      absl::StatusOr<R> returned = TaskClosure::Invoke(*closure_);
      if (!returned.ok()) return returned.status();
      this->result_.emplace(*std::move(returned));
      return absl::OkStatus();
    }
  }
  void DestroyClosure() override { closure_.reset(); }

  std::optional<Closure> closure_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_RESULT_H_
