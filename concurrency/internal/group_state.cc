#include "tocsin/concurrency/internal/group_state.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/group_join.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/status_text.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

GroupState::~GroupState() {
  if (slots().forked()) {
    (void)
        background_scope_.release();  // another thread may have been making it
  } else if (!settled_.load(std::memory_order_acquire)) {
    // Whoever waits for this may be in a clean-up.
    scope().CancelUntil(
        absl::CancelledError("the task group is destroyed"),
        current_scope != nullptr ? current_scope->CleanUpEnds() : kNever);
    DiscardTasks();
    if (!GroupJoin(*this, /*may_be_refused=*/false).Run(outcome_).has_value()) {
      std::fprintf(
          stderr,
          "tocsin: a TaskSet was destroyed by a task that it would have to "
          "wait for. Let the owner of the tasks destroy it.\n");
      std::abort();
    }
  }
  if (!slots().forked()) LetWaitsGetOut();
  if (entered_by_ == nullptr) return;
  if (!left_) LeaveIfThere();
  if (!left_) {
    MadeGroup::DieOfLeaving(scope(), "after the scope around it was left");
  }
  LeaveList();
}

void GroupState::Enter() {
  EnterList();
  entered_by_ = &current_scope;
  current_scope = &scope();
}

void GroupState::LeaveIfThere() {
  if (entered_by_ != &current_scope || current_scope != &scope()) return;
  current_scope = scope().parent();
  left_ = true;
}

// Separate, so that the code that runs for every task is short.
void GroupState::RefuseTask(RefusedTask task) {
  Refuse(std::move(task), Closed());
}

void GroupState::SpawnBackgroundTask(Task* task) {
  RefusedTask refused(task);
  if (unusable()) return Refuse(std::move(refused), Closed());
  {
    MutexLock lock(mutex_);
    if (background_scope_ == nullptr)
      background_scope_ = std::make_unique<Scope>(&scope());
  }
  absl::Status status = TaskQueue::Start(*task, TaskKind::kBackground);
  if (status.ok()) {
    (void)refused.release();  // Its thread has it now.
  } else {
    Refuse(std::move(refused), std::move(status));
  }
}

void GroupState::SpawnHandledTask(std::shared_ptr<HandledTask> task) {
  Task* ticket =
      Task::New(HandledTask::Ticket(task), TaskOptions(task->options));
  RefusedTask refused(ticket);
  if (!slots().forked() && Add(*ticket)) {
    (void)refused.release();
    return;
  }
  absl::Status why = Closed();
  task->Abandon(why);
  Refuse(std::move(refused), std::move(why));
}

absl::Status GroupState::StartTask(Task* task) {
  RefusedTask refused(task);
  absl::Status status =
      unusable() ? Closed() : TaskQueue::Start(*task, TaskKind::kOwnThread);
  if (status.ok()) (void)refused.release();  // Its thread has it now.
  return status;
}

absl::Status GroupState::Closed() const {
  if (slots().forked()) return Forked();
  if (max_running() < 0) return BadLimit();
  return absl::FailedPreconditionError(
      "spawned on a task group that is closed: its Wait() has returned");
}

void GroupState::Refuse(RefusedTask task, absl::Status why) {
  TaskFailure failure;
  if (task->options() != nullptr) failure.task = task->options()->name;
  failure.status = std::move(why);
  task.reset();
  Fail(std::move(failure));
}

void GroupState::DestroyRefused::operator()(Task* task) const {
  task->Discard();
  Task::Free(task);
}

void GroupState::Run(RunningTask& running) {
  Task& task = *running.task;
  ScopeEntry entry(running.kind == TaskKind::kBackground ? *background_scope_
                                                         : scope());
  // A background task that is no longer needed starts all the same: whether it
  // ever runs must not depend on how soon its thread starts.
  if (scope().cancelled() &&
      (task.options() == nullptr || !task.options()->start_even_if_cancelled)) {
    task.Discard();
  } else {
    RunTask(running);
  }
  // The last group that it made is the last that there is: what it ran in
  // between has left none.
  const auto* last_made = static_cast<const GroupState*>(last_made_group);
  if (last_made != nullptr && last_made->made_by() == &running) {
    last_made->DieOfOrder();
  }
}

inline void GroupState::RunTask(RunningTask& running) {
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
#endif
    absl::Status status = running.task->Run();
    if (!status.ok()) NoteError(running, std::move(status));
#ifdef ABSL_HAVE_EXCEPTIONS
  } catch (...) {
    NoteException(running);
  }
#endif
}

// Separate, so that the code that runs for every task is short.
void GroupState::NoteError(const RunningTask& running, absl::Status status) {
  if (current_scope->IsCancellation(status)) return;
  TaskFailure failure;
  failure.task = running.name();
  failure.status = std::move(status);
  Fail(std::move(failure));
}

#ifdef ABSL_HAVE_EXCEPTIONS
void GroupState::NoteException(const RunningTask& running) {
  Fail({running.name(), StatusOfException(running.name()),
        std::current_exception()});
}
#endif

void GroupState::Fail(TaskFailure failure) {
  absl::Status reason = absl::CancelledError(
      absl::StrCat(failure.task.empty() ? "a task" : failure.task,
                   name_.empty() ? "" : absl::StrCat(" of ", name_),
                   " failed: ", TextOf(failure.status)));
  {
    MutexLock lock(mutex_);
    if (failures_.size() < kFailuresKept) {
      failures_.push_back(std::move(failure));
    } else if (failure.exception != nullptr && FirstException() == nullptr) {
      failures_.back() = std::move(failure);
    }
    failure_count_.fetch_add(1, std::memory_order_release);
  }
  if (cancel_on_error_ && !slots().forked()) Cancel(std::move(reason));
}

void GroupState::CancelBackground() {
  background_scope_->Cancel(
      absl::CancelledError("all tasks but those in the background have ended"));
}

void GroupState::Cancel(absl::Status reason, absl::Duration grace) {
  if (slots().forked()) return;
  // What ends now may be all that the owner waits for.
  const Hold hold(*this);
  scope().Cancel(std::move(reason), grace);
  TOCSIN_STEP("GroupState: has cancelled its scope");
  if (hold) DiscardTasks();
}

// Their closures may make groups as they are destroyed, and leave none.
void GroupState::DiscardTasks() {
  const MadeGroup* const made_before = last_made_group;
  Discard();
  if (last_made_group != made_before) last_made_group->DieOfOrder();
}

absl::Status GroupState::Wait() {
  if (slots().forked()) {
    LeaveIfThere();
    return Forked();
  }
  const bool entered_here = entered_by_ == &current_scope;
  const uint32_t forks_before = forks.load(std::memory_order_relaxed);
  std::optional<absl::Status> outcome =
      GroupJoin(*this, /*may_be_refused=*/true).Run(outcome_);
  if (!outcome.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Wait() ", name_.empty() ? "" : absl::StrCat("for \"", name_, "\" "),
        "was called by a task that it would have to wait for, perhaps because "
        "tasks wait for the group of that task; let the owner of the tasks "
        "wait"));
  }
  // From here on only the thread that will destroy it may touch a TaskGroup.
  if (entered_here) LeaveIfThere();
  return forks.load(std::memory_order_relaxed) == forks_before
             ? *std::move(outcome)
             : Forked();
}

// What Wait() returns must not depend on who calls it first, or on what happens
// later.
void GroupState::NoticeClosed() {
  if (failure_count() > 0) {  // else no lock: it costs as much as a task
    MutexLock lock(mutex_);
    outcome_ = failures_.front().status;
  } else if (used()) {
    // What cancelled the group alone is absorbed.
    absl::Status why = scope().WaitStatus();
    if (!why.ok() && !scope().Made(why)) outcome_ = std::move(why);
  }
  settled_.store(true, std::memory_order_release);
}

std::vector<TaskFailure> GroupState::failures() const {
  MutexLock lock(mutex_);
  return failures_;
}

size_t GroupState::failure_count() const {
  return failure_count_.load(std::memory_order_acquire);
}

std::exception_ptr GroupState::FirstException() const {
  for (const TaskFailure& failure : failures_) {
    if (failure.exception != nullptr) return failure.exception;
  }
  return nullptr;
}

void GroupState::RethrowFirst() const {
  std::exception_ptr first;
  {
    MutexLock lock(mutex_);
    first = FirstException();
  }
  if (first != nullptr) std::rethrow_exception(std::move(first));
}

std::vector<std::string> GroupState::running() const {
  if (slots().forked()) return {};
  return Names();
}

absl::Status GroupState::Forked() const { return slots().status(); }

absl::Status GroupState::BadLimit() const {
  return absl::InvalidArgumentError(
      absl::StrCat("max_running of the task group", name_.empty() ? "" : " \"",
                   name_, name_.empty() ? "" : "\"", " is ", max_running(),
                   "; it is 1 or more, or kUnlimited"));
}

bool GroupState::InsideCurrentScope() const {
  const ScopeState* current = current_scope;
  const ScopeState* s = &scope();
  while (s != nullptr && s != current) s = s->OuterInReach();
  return s == current;
}

std::string GroupState::NextName(const char* what) {
  return absl::StrCat(what, " ", named_.fetch_add(1) + 1);
}

absl::Status GroupState::RunBody(absl::FunctionRef<absl::Status()> body) {
  absl::Status status = body();
  const bool cancelled = scope().IsCancellation(status);
  if (!status.ok() && !cancelled) {
    // A body that ends with `return group.Wait();` returns a known error.
    std::vector<TaskFailure> known = failures();
    if (known.empty() || known.front().status != status) {
      TaskFailure failure;
      failure.task = "the body";
      failure.status = status;
      Fail(std::move(failure));
    }
    Cancel(absl::CancelledError(
        absl::StrCat("the body failed: ", TextOf(status))));
  }
  absl::Status outcome = Wait();
  if (!outcome.ok()) return outcome;
  // What cancelled the group alone is absorbed. What else did, Wait() does not
  // say of a group that never had a task.
  return scope().Made(status) ? absl::OkStatus() : status;
}

}  // namespace tocsin::inline v0_2::internal
