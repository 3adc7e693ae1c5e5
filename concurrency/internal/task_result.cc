#include "tocsin/concurrency/internal/task_result.h"

#include <new>
#include <optional>

#include "absl/base/config.h"
#include "absl/strings/string_view.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/group_waiters.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

namespace {

// The code alone, if there is no memory for the text.
absl::Status Cancelled(absl::string_view why) {
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
    return absl::CancelledError(why);
  } catch (const std::bad_alloc&) {
    return absl::Status(absl::StatusCode::kCancelled, "");
  }
#else
  return absl::CancelledError(why);
#endif
}

}  // namespace

HandledTask::Ticket::~Ticket() {
  if (task_ == nullptr) return;
  absl::Status why;
  if (claimed_ != nullptr) {
    if (!*claimed_) return;
    why = ScopeState::CheckCurrent();
  } else {
    // This thread may be outside the group's scope: one that cancels the group.
    TaskQueue* const group = task_->Claim();
    if (group == nullptr) return;
    ScopeEntry entry(group->scope());
    why = ScopeState::CheckCurrent();
  }
  task_->Abandon(why.ok() ? Cancelled("the task group was cancelled")
                          : std::move(why));
}

absl::Status HandledTask::Ticket::operator()() {
  const std::shared_ptr<HandledTask> task = std::move(task_);
  if (claimed_ == nullptr && task->Claim() == nullptr) return absl::OkStatus();
  return task->Run();
}

// A thread in Wait(), on its stack. Both lists go by the lock of the task: as
// long as the task is not claimed, its group exists.
struct HandledTask::Waiter {
  // Leaves the list of the group, if it is in there. Whether it had been woken
  // for a task of that.
  bool LeaveTurn(TaskQueue& group) {
    return std::exchange(in_turn, false) && group.LeaveTurn(turn);
  }

  Sleeper sleeper{"TaskHandle::Wait()"};
  GroupWaiters::Waiter turn{sleeper};
  bool in_turn = false;
  bool waiting = false;
  Waiter* next = nullptr;
  Waiter* previous = nullptr;
};

// From here on the group may end without the threads that wait for the task.
TaskQueue* HandledTask::Claim() {
  TaskQueue* group;
  bool pass_on = false;
  {
    MutexLock lock(mutex_);
    group = std::exchange(group_, nullptr);
    if (group == nullptr) return nullptr;
    for (Waiter* w = waiting_.first(); w != nullptr; w = w->next) {
      pass_on |= w->LeaveTurn(*group);
    }
  }
  if (pass_on) group->PassOn();
  return group;
}

void HandledTask::Cancel() {
  if (forked()) return;
  stop_.request_stop();
  if (options.start_even_if_cancelled) return;
  std::optional<TaskQueue::Hold> hold;
  {
    MutexLock lock(mutex_);
    if (group_ == nullptr) return;
    hold.emplace(*group_);
  }
  if (Claim() != nullptr) Abandon(Cancelled("the task was cancelled"));
}

absl::Status HandledTask::Run() {
  Scope scope(stop_.get_token());
  TOCSIN_STEP("TaskHandle: its task is in its scope");
  if (stop_.stop_requested() && !options.start_even_if_cancelled) {
    // The thread that requested it may not have cancelled the scope yet.
    absl::Status why = ScopeState::CheckCurrent();
    Abandon(why.ok() ? Cancelled("stop was requested") : std::move(why));
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
  {
    MutexLock lock(mutex_);
    running_ = CurrentTask();  // whose closure must not wait for its own end
  }
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
    for (Waiter* w = waiting_.first(); w != nullptr; w = w->next) {
      wake_ups.Add(w->sleeper.WakeLater());
    }
  }
  wake_ups.Send();
}

absl::Status HandledTask::Wait() {
  if (forked()) {  // where a thread of the parent may have held the lock
    return ended_.load(std::memory_order_acquire) ? status_
                                                  : WorkerSlots::DeadInChild();
  }
  Waiter self;
  absl::Status given_up;
  while (true) {
    RunningTask running;
    bool run_here = false;
    // The group, if a task of it was taken, or left to another.
    TaskQueue* took_turn = nullptr;
    TaskQueue* left_turn = nullptr;
    std::optional<TaskQueue::Hold> hold;  // of the latter
    {
      MutexLock lock(mutex_);
      if (std::exchange(self.waiting, false)) waiting_.Remove(self);
      if (ended_) return status_;
      if (RunsOnThisStack()) {
        return absl::FailedPreconditionError(
            "TaskHandle::Wait() was called by the task that it waits for");
      }
      const bool woken_for_turn = group_ != nullptr && self.LeaveTurn(*group_);
      if (given_up.ok()) {
        if (group_ != nullptr && MayRunHere()) {
          run_here = !group_->limited();
          if (group_->limited()) {
            self.in_turn = !group_->TakeInTurn(running, self.turn);
            if (!self.in_turn) took_turn = group_;
          }
        }
        if (!run_here && took_turn == nullptr) {
          waiting_.Append(self);
          self.waiting = true;
        }
      }
      if (woken_for_turn && took_turn == nullptr && !self.in_turn) {
        left_turn = group_;
        hold.emplace(*left_turn);
      }
    }
    if (left_turn != nullptr) left_turn->PassOn();
    hold.reset();
    if (!given_up.ok()) return given_up;
    if (run_here) {
      RunHere();
    } else if (took_turn != nullptr) {
      took_turn->RunInTurn(running);
    } else {
      given_up = self.sleeper.Sleep();
      TOCSIN_STEP("TaskHandle: has slept");
      if (!given_up.ok()) TOCSIN_STEP("TaskHandle: wait is over");
    }
  }
}

// What runs here, runs to its end. If all threads are blocked, no other may
// ever take it.
bool HandledTask::MayRunHere() const {
  if (group_->forked()) return false;
  if (group_->InsideCurrentScope()) return true;
  return !current_scope->cancelled() &&
         current_scope->ends() >= group_->scope().ends() &&
         group_->DependsOnThisThread();
}

bool HandledTask::RunsOnThisStack() const {
  if (running_ == nullptr) return false;
  const RunningTask* r = CurrentTask();
  while (r != nullptr && r != running_) r = r->outer;
  return r != nullptr;
}

void HandledTask::RunHere() {
  bool claimed = false;
  // Before anything depends on it: there may be no memory.
  Task* const task =
      Task::New(Ticket(shared_from_this(), &claimed), TaskOptions(options));
  TaskQueue* group;
  {
    MutexLock lock(mutex_);
    group = std::exchange(group_, nullptr);
    if (group != nullptr) group->Reserve();
  }
  claimed = group != nullptr;
  if (claimed) return group->RunReserved(*task);
  task->Discard();
  Task::Free(task);
}

}  // namespace tocsin::inline v0_2::internal
