#include "tocsin/concurrency/internal/task_result.h"

#include <algorithm>

#include "absl/base/config.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

HandledTask::Ticket::~Ticket() {
  if (task_ == nullptr) return;
  absl::Status why;
  if (claimed_) {
    why = ScopeState::CheckCurrent();
  } else {
    // This thread may be outside the group's scope: one that cancels the group.
    TaskQueue* const group = task_->Claim();
    if (group == nullptr) return;
    ScopeEntry entry(group->scope());
    why = ScopeState::CheckCurrent();
  }
  task_->Abandon(why.ok() ? absl::CancelledError("the task group was cancelled")
                          : std::move(why));
}

absl::Status HandledTask::Ticket::operator()() {
  const std::shared_ptr<HandledTask> task = std::move(task_);
  if (!claimed_ && task->Claim() == nullptr) return absl::OkStatus();
  return task->Run();
}

TaskQueue* HandledTask::Claim() {
  MutexLock lock(mutex_);
  return std::exchange(group_, nullptr);
}

absl::Status HandledTask::Run() {
  Scope scope(stop_.get_token());
  if (stop_.stop_requested() && !options.start_even_if_cancelled) {
    // The thread that requested it may not have cancelled the scope yet.
    absl::Status why = ScopeState::CheckCurrent();
    Abandon(why.ok() ? absl::CancelledError("stop was requested")
                     : std::move(why));
    return absl::OkStatus();
  }
  {
    MutexLock lock(mutex_);
    running_ = CurrentTask();
  }
  absl::Status status;
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
    status = Invoke();
  } catch (...) {
    DestroyClosure();
    End(StatusOfException(CurrentTask()->name()));
    throw;
  }
#else
  status = Invoke();
#endif
  // Its own cancellation is the handle's business only.
  const bool cancelled = scope.IsCancellation(status);
  DestroyClosure();
  End(status);
  return cancelled ? absl::OkStatus() : status;
}

void HandledTask::Abandon(absl::Status why) {
  DestroyClosure();
  End(std::move(why));
}

void HandledTask::End(absl::Status status) {
  FutexWakes wake_ups;
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    group_ = nullptr;
    running_ = nullptr;
    status_ = std::move(status);
    ended_.store(true, std::memory_order_release);
    for (Sleeper* sleeper : waiting_) wake_ups.Add(sleeper->WakeLater());
  }
  wake_ups.Send();
}

absl::Status HandledTask::Wait() {
  if (forked()) {  // where a thread of the parent may have held the lock
    return ended_.load(std::memory_order_acquire) ? status_
                                                  : WorkerSlots::DeadInChild();
  }
  RunHereIfPossible();
  Sleeper sleeper("TaskHandle::Wait()");
  absl::Status given_up;
  while (true) {
    {
      MutexLock lock(mutex_);
      waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), &sleeper),
                     waiting_.end());
      if (ended_) return status_;
      if (!given_up.ok()) return given_up;
      for (const RunningTask* r = CurrentTask(); r != nullptr; r = r->outer) {
        if (r == running_) {
          return absl::FailedPreconditionError(
              "TaskHandle::Wait() was called by the task that it waits for");
        }
      }
      waiting_.push_back(&sleeper);
    }
    given_up = sleeper.Sleep();
    if (!given_up.ok()) TOCSIN_STEP("TaskHandle: wait is over");
  }
}

// If all threads are blocked, no other may ever take it. It runs in the scope
// of its group: so only if what cancels the current scope cancels that one.
void HandledTask::RunHereIfPossible() {
  TaskQueue* group;
  {
    MutexLock lock(mutex_);
    if (group_ == nullptr || !group_->InsideCurrentScope()) return;
    if (!group_->Reserve()) return;
    group = std::exchange(group_, nullptr);
  }
  group->RunReserved(*Task::New(Ticket(shared_from_this(), true), options));
}

}  // namespace tocsin::inline v0_2::internal
