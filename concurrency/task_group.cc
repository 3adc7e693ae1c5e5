#include "tocsin/concurrency/task_group.h"

#include <cstdio>
#include <cstdlib>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/mutex_lock.h"

namespace tocsin {

using internal::MutexLock;
using internal::RunningTask;
using internal::ScopeEntry;
using internal::ScopeState;
using internal::Task;
using internal::TaskKind;

TaskGroup::TaskGroup() : TaskGroup(ThreadPool::Default()) {}

TaskGroup::TaskGroup(ThreadPool& pool)
    : TaskQueue(pool, pool.ShardOfThread(), 0),
      cancel_on_error_(Options().cancel_on_error),
      scopes_(internal::current_scope) {}

TaskGroup::TaskGroup(Options options)
    : TaskGroup(options.pool != nullptr ? *options.pool : ThreadPool::Default(),
                options) {}

TaskGroup::TaskGroup(ThreadPool& pool, Options& options)
    : TaskQueue(pool, pool.ShardOfThread(), options.max_running),
      name_(std::move(options.name)),
      cancel_on_error_(options.cancel_on_error),
      scopes_(internal::current_scope) {}

TaskGroup::~TaskGroup() {
  if (pool().forked()) return;
  if (outcome_.load(std::memory_order_acquire) == Outcome::kUnknown) {
    Cancel(absl::CancelledError("the task group is destroyed"));
    if (!Join()) {
      std::fprintf(
          stderr,
          "tocsin: a TaskGroup was destroyed by a task that it would "
          "have to wait for. Let the owner of the group destroy it.\n");
      std::abort();
    }
  }
  scopes_.~Scopes();
}

// Apart, so that what happens with every task is short.
void TaskGroup::RefuseTask(RefusedTask task) {
  Refuse(std::move(task), Closed());
}

void TaskGroup::SpawnServiceTask(Task* task) {
  RefusedTask refused(task);
  {
    MutexLock lock(mutex_);
    if (scopes_.services == nullptr) {
      scopes_.services =
          absl::WrapUnique(new CancelScope(&scopes_.tasks.state_));
    }
  }
  absl::Status status =
      pool().forked() ? Forked() : TaskQueue::Start(*task, TaskKind::kService);
  if (status.ok()) {
    (void)refused.release();  // Its thread has it now.
  } else {
    Refuse(std::move(refused), std::move(status));
  }
}

void TaskGroup::SpawnHandledTask(std::shared_ptr<internal::HandledTask> task) {
  using internal::HandledTask;
  Task* ticket =
      Task::New(HandledTask::Ticket(task, false), TaskOptions(task->options));
  RefusedTask refused(ticket);
  if (!pool().forked() && Add(*ticket)) {
    (void)refused.release();
    return;
  }
  absl::Status why = Closed();
  task->Abandon(why);
  Refuse(std::move(refused), std::move(why));
}

absl::Status TaskGroup::StartTask(Task* task) {
  RefusedTask refused(task);
  absl::Status status = pool().forked()
                            ? Forked()
                            : TaskQueue::Start(*task, TaskKind::kOwnThread);
  if (status.ok()) (void)refused.release();  // Its thread has it now.
  return status;
}

absl::Status TaskGroup::Closed() const {
  if (pool().forked()) return Forked();
  return absl::FailedPreconditionError(
      "spawned on a task group that is closed: its Wait() has returned");
}

void TaskGroup::Refuse(RefusedTask task, absl::Status why) {
  TaskFailure failure;
  if (task->options() != nullptr) failure.task = task->options()->name;
  failure.status = std::move(why);
  task.reset();
  Fail(std::move(failure));
}

void TaskGroup::DestroyRefused::operator()(Task* task) const {
  task->Discard();
  Task::Free(task);
}

void TaskGroup::Run(RunningTask& running) {
  Task& task = *running.task;
  ScopeEntry entry(running.kind == TaskKind::kService ? *scopes_.services
                                                      : scopes_.tasks);
  // A service that is no longer needed starts all the same, so that it does not
  // depend on the speed of its thread whether it ever did.
  if (scopes_.tasks.cancelled() &&
      (task.options() == nullptr || !task.options()->start_even_if_cancelled)) {
    return task.Discard();
  }
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
#endif
    absl::Status status = task.Run();
    if (!status.ok()) NoteError(running, std::move(status));
#ifdef ABSL_HAVE_EXCEPTIONS
  } catch (...) {
    NoteException(running);
  }
#endif
}

// Apart, so that what happens with every task is short.
void TaskGroup::NoteError(const RunningTask& running, absl::Status status) {
  if (IsCancellation(status)) return;
  TaskFailure failure;
  failure.task = running.name();
  failure.status = std::move(status);
  Fail(std::move(failure));
}

#ifdef ABSL_HAVE_EXCEPTIONS
void TaskGroup::NoteException(const RunningTask& running) {
  Fail({running.name(), internal::StatusOfException(running.name()),
        std::current_exception()});
}
#endif

// Whether a task that ends so, in the thread's current scope, only says that
// the scope was cancelled.
bool TaskGroup::IsCancellation(const absl::Status& status) const {
  return (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) &&
         CheckCancelled().code() == status.code();
}

void TaskGroup::Fail(TaskFailure failure) {
  absl::Status reason = absl::CancelledError(
      absl::StrCat(failure.task.empty() ? "a task" : failure.task,
                   name_.empty() ? "" : absl::StrCat(" of ", name_),
                   " failed: ", failure.status.ToString()));
  {
    MutexLock lock(mutex_);
    if (failures_.size() < kFailuresKept) {
      failures_.push_back(std::move(failure));
    }
    failure_count_.fetch_add(1, std::memory_order_release);
  }
  if (cancel_on_error_ && !pool().forked()) Cancel(std::move(reason));
}

void TaskGroup::CancelServices() {
  scopes_.services->Cancel(
      absl::CancelledError("all tasks that the service was for have ended"));
}

void TaskGroup::Cancel(absl::Status reason) {
  if (pool().forked()) return;
  scopes_.tasks.Cancel(std::move(reason));
  Discard();
}

absl::Status TaskGroup::Wait() {
  if (!pool().forked() && Join() &&
      outcome_.load(std::memory_order_acquire) == Outcome::kOk &&
      failure_count() == 0) {
    return absl::OkStatus();
  }
  return WhyNotOk();
}

absl::Status TaskGroup::WhyNotOk() const {
  if (pool().forked()) return Forked();
  if (outcome_.load(std::memory_order_acquire) == Outcome::kUnknown) {
    return absl::FailedPreconditionError(
        "TaskGroup::Wait() was called by a task that it would have to wait "
        "for; let the owner of the group wait");
  }
  MutexLock lock(mutex_);
  return failures_.empty() ? cancelled_ : failures_.front().status;
}

// What Wait() returns must not depend on who calls it first.
void TaskGroup::NoticeClosed() {
  const ScopeState* outer = scopes_.tasks.state_.OuterInReach();
  if (outer != nullptr && outer->cancelled() && used()) {
    cancelled_ = outer->WaitStatus();
  }
  outcome_.store(cancelled_.ok() ? Outcome::kOk : Outcome::kCancelled,
                 std::memory_order_release);
}

absl::Status TaskGroup::CancelledFromOutside() const {
  const ScopeState* outer = scopes_.tasks.state_.OuterInReach();
  if (outer == nullptr || !outer->cancelled()) return absl::OkStatus();
  return outer->WaitStatus();
}

std::vector<TaskFailure> TaskGroup::failures() const {
  MutexLock lock(mutex_);
  return failures_;
}

size_t TaskGroup::failure_count() const {
  return failure_count_.load(std::memory_order_acquire);
}

#ifdef ABSL_HAVE_EXCEPTIONS
void TaskGroup::RethrowFirst() const {
  for (const TaskFailure& failure : failures()) {
    if (failure.exception) std::rethrow_exception(failure.exception);
  }
}
#endif

std::vector<std::string> TaskGroup::running() const {
  if (pool().forked()) return {};
  return Names();
}

absl::Status TaskGroup::Forked() const { return pool().status(); }

bool TaskGroup::InsideCurrentScope() const {
  const ScopeState* current = internal::current_scope;
  const ScopeState* s = &scopes_.tasks.state_;
  while (s != nullptr && s != current) s = s->OuterInReach();
  return s == current;
}

std::string TaskGroup::NextName(const char* what) {
  return absl::StrCat(what, " ", named_.fetch_add(1) + 1);
}

absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body) {
  return RunTaskGroup(body, TaskGroup::Options());
}

absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body,
                          TaskGroup::Options options) {
  TaskGroup group(std::move(options));
  absl::Status status;
  bool cancelled;
  {
    ScopeEntry entry(group.scopes_.tasks);
    status = body(group);
    cancelled = group.IsCancellation(status);
  }
  if (!status.ok() && !cancelled) {
    // A body that ends with `return group.Wait();` brings what is known.
    std::vector<TaskFailure> failures = group.failures();
    if (failures.empty() || failures.front().status != status) {
      TaskFailure failure;
      failure.task = "the body";
      failure.status = status;
      group.Fail(std::move(failure));
    }
    group.Cancel(absl::CancelledError(
        absl::StrCat("the body failed: ", status.ToString())));
  }
  absl::Status outcome = group.Wait();
  if (outcome.ok() && cancelled) return group.CancelledFromOutside();
  return outcome;
}

}  // namespace tocsin
