// The state behind a TaskSet, except its scope: the tasks, which run in that
// scope, and their failures.
//
// Its members may be called from any thread, also from tasks of the group;
// task_set.h documents them.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_GROUP_STATE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_GROUP_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/made_group.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_closure.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/task_result.h"
#include "tocsin/concurrency/internal/task_start.h"
#include "tocsin/concurrency/internal/worker_slots.h"
#include "tocsin/concurrency/task_failure.h"
#include "tocsin/concurrency/task_options.h"

namespace tocsin::inline v0_2::internal {

class GroupState final : private TaskQueue, private MadeGroup {
 public:
  static constexpr size_t kFailuresKept = 100;

  // The tasks run in `scope`, which outlives the group.
  GroupState(Scope& scope, WorkerSlots& slots, bool cancel_on_error)
      : TaskQueue(scope, slots, slots.ShardOfThread(), 0),
        MadeGroup(scope, name_),
        cancel_on_error_(cancel_on_error) {}
  GroupState(Scope& scope, WorkerSlots& slots, std::string&& name,
             int max_running, bool cancel_on_error)
      : TaskQueue(scope, slots, slots.ShardOfThread(), max_running),
        MadeGroup(scope, name_),
        cancel_on_error_(cancel_on_error),
        name_(std::move(name)) {
    if (max_running < 0) Settle(BadLimit());
  }
  ~GroupState();

  template <typename F>
  void Spawn(F&& f) {
    SpawnTask(Task::New<TaskClosure>(std::forward<F>(f)));
  }
  template <typename F>
  void Spawn(F&& f, TaskOptions options) {
    SpawnTask(Task::New<TaskClosure>(std::forward<F>(f), std::move(options)));
  }
  template <typename F>
  void SpawnBackground(F&& f, TaskOptions options);
  template <typename F>
  auto SpawnWithResult(F&& f, TaskOptions options);
  // Runs f(starting) with a std::shared_ptr<StartingWith<T>>.
  template <typename T, typename F>
  std::conditional_t<std::is_void_v<T>, absl::Status, absl::StatusOr<T>> Start(
      F&& f, TaskOptions options);

  // Makes the scope the current one of this thread, until the thread leaves it
  // in Wait() or the destructor.
  void Enter();

  absl::Status Wait();
  void Cancel(absl::Status reason,
              absl::Duration grace = absl::InfiniteDuration());
  // What RunTaskGroup() does once it has made the group.
  absl::Status RunBody(absl::FunctionRef<absl::Status()> body);

  std::vector<TaskFailure> failures() const;
  size_t failure_count() const;
  void RethrowFirst() const;
  std::vector<std::string> running() const;

 private:
  void Run(RunningTask& running) override;
  void CancelBackground() override;
  void NoticeClosed() override;
  bool InsideCurrentScope() const override;
  bool EndsBeforeItsMaker() const override { return entered_by_ != nullptr; }
  const std::string& name() const override { return name_; }

  // A task that the queue did not take.
  struct DestroyRefused {
    void operator()(Task* task) const;
  };
  using RefusedTask = std::unique_ptr<Task, DestroyRefused>;

  void RunTask(RunningTask& running);
  void DiscardTasks();
  void SpawnTask(Task* task) {
    RefusedTask refused(task);
    if (slots().forked() || !Add(*task)) return RefuseTask(std::move(refused));
    (void)refused.release();
  }
  void RefuseTask(RefusedTask task);
  void SpawnBackgroundTask(Task* task);
  void SpawnHandledTask(std::shared_ptr<HandledTask> task);
  absl::Status StartTask(Task* task);
  void Refuse(RefusedTask task, absl::Status why);
  void NoteError(const RunningTask& running, absl::Status status);
  void NoteException(const RunningTask& running);
  void Fail(TaskFailure failure);
  std::exception_ptr FirstException() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveIfThere();
  // What Wait() returns from now on.
  void Settle(absl::Status outcome) {
    outcome_ = std::move(outcome);
    settled_.store(true, std::memory_order_release);
  }
  bool unusable() const { return slots().forked() || max_running() < 0; }
  absl::Status BadLimit() const;
  absl::Status Forked() const;
  absl::Status Closed() const;
  std::string NextName(const char* what);

  std::unique_ptr<Scope> background_scope_;  // made for the first such task
  const bool cancel_on_error_;
  const std::string name_;
  std::atomic<uint32_t> named_{0};
  absl::Status outcome_;              // what Wait() returns, once it is settled
  std::atomic<bool> settled_{false};  // when the group closes

  // The thread that entered the scope, by the address of its current_scope;
  // null if none did.
  const ScopeState* const* entered_by_ = nullptr;
  bool left_ = false;  // by that thread, which alone reads it

  mutable SlimMutex mutex_;
  std::vector<TaskFailure> failures_ ABSL_GUARDED_BY(mutex_);
  std::atomic<size_t> failure_count_{0};  // written under mutex_
};

template <typename F>
void GroupState::SpawnBackground(F&& f, TaskOptions options) {
  if (options.name.empty()) options.name = NextName("background task");
  SpawnBackgroundTask(
      Task::New<TaskClosure>(std::forward<F>(f), std::move(options)));
}

template <typename F>
auto GroupState::SpawnWithResult(F&& f, TaskOptions options) {
  TaskQueue& queue = *this;
  auto task = std::make_shared<ClosureTask<F>>(queue, std::forward<F>(f));
  task->options = std::move(options);
  if (task->options.name.empty()) task->options.name = NextName("result");
  SpawnHandledTask(task);
  return std::shared_ptr<ResultTask<ResultOfClosure<F>>>(std::move(task));
}

template <typename T, typename F>
std::conditional_t<std::is_void_v<T>, absl::Status, absl::StatusOr<T>>
GroupState::Start(F&& f, TaskOptions options) {
  if (options.name.empty()) options.name = NextName("started task");
  auto starting = std::make_shared<StartingWith<T>>();
  absl::Status status = StartTask(Task::New(
      StartClosure<T, F>(starting, std::forward<F>(f)), std::move(options)));
  if (status.ok()) status = starting->Await();
  if constexpr (std::is_void_v<T>) {
    return status;
  } else {
    if (!status.ok()) return status;
    return std::move(*starting->value);
  }
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_GROUP_STATE_H_
