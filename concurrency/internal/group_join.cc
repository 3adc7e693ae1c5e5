#include "tocsin/concurrency/internal/group_join.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/completion_count.h"
#include "tocsin/concurrency/internal/group_waiters.h"
#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/spin.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

[[gnu::always_inline]] inline void GroupJoin::RunHomeTask(
    RunningTask& running) {
  queue_.home_shard_.lock.Unlock();
  queue_.Perform(running);
  queue_.home_shard_.lock.Lock();
  if (queue_.EndAt(queue_.home_, running)) {
    TaskQueue::AnnounceEnd(queue_.home_);
  }
}

[[gnu::always_inline]] inline void GroupJoin::RunHomeTasks() {
  RunningTask running;
  while (queue_.MayTake(queue_.home_)) {
    if (queue_.OldestIsDue(queue_.home_)) {
      RunTasksThatAreDue();
    } else {
      queue_.Begin(queue_.home_, *queue_.home_.tasks.TakeNext(), running);
      RunHomeTask(running);
    }
  }
}

std::optional<absl::Status> GroupJoin::Run(const absl::Status& outcome) {
  const RunningTask* const task = CurrentTask();
  if (task != nullptr && &task->queue() == &queue_) return std::nullopt;
  WorkerSlots::KnowThread();
  MutexLock lock(queue_.home_shard_.lock);
  if (++queue_.joining_ > 1) queue_.crowded_ = true;
  bool joined = true;
  do {
    RunHomeTasks();
  } while (!queue_.CloseIfEnded() && (joined = RunWithoutTasks()));
  std::optional<absl::Status> result;
  if (joined) result = outcome;
  --queue_.joining_;
  return result;
}

bool GroupJoin::RunWithoutTasks() {
  bool lingered = false;
  do {
    const bool background_left =
        queue_.background_ > 0 && queue_.NothingUnfinished();
    queue_.home_shard_.lock.Unlock();
    bool joined = true;
    if (background_left && !std::exchange(background_cancelled_, true)) {
      queue_.CancelBackground();
    } else if (RunTaskFromElsewhere()) {
      lingered = false;
    } else if (!std::exchange(lingered, true)) {
      if (!background_left) {
        SpinUntil([this] { return queue_.NothingUnfinished(); });
      }
    } else if (!WouldWaitForItself() && !IsRefused()) {
      Sleep();
    } else {
      joined = false;
    }
    queue_.home_shard_.lock.Lock();
    if (!joined) return false;
  } while (!queue_.MayTake(queue_.home_) && !queue_.Ended());
  return true;
}

// The oldest at home, and one from elsewhere.
[[gnu::noinline]] void GroupJoin::RunTasksThatAreDue() {
  RunningTask running;
  queue_.Take(queue_.home_, running);
  RunHomeTask(running);
  if (!queue_.count_.HasAccounts()) return;
  queue_.home_shard_.lock.Unlock();
  RunTaskFromElsewhere();
  queue_.home_shard_.lock.Lock();
}

bool GroupJoin::RunTaskFromElsewhere() {
  RunningTask running;
  if (!queue_.StealHome(turn_, running)) return false;
  queue_.slots_.DispatchIfReady();
  queue_.Perform(running);
  TaskQueue::EndAlone(running);
  return true;
}

// Sleeps until a task is added or the last one has ended, or for less.
void GroupJoin::Sleep() {
  if (since_ == Instant()) since_ = Now();
  const bool may_get_long = CurrentTask() != nullptr && !long_.has_value();
  Sleeper sleeper({"Wait()", since_, &queue_}, Sleeper::Unscoped(),
                  may_get_long ? Add(since_, TaskWait::kLong) : kNever);
  GroupWaiters::Waiter waiter{sleeper};
  {
    TOCSIN_STEP("GroupJoin: about to fall asleep");
    MutexLock lock(queue_.home_shard_.lock);
    if (queue_.MayTake(queue_.home_)) return;
    if (queue_.Ended()) return;
    // Since the caller looked, all but the background may have ended.
    if (!background_cancelled_ && queue_.NothingUnfinished()) return;
    if (long_.has_value() && long_->refused()) return;
    queue_.waiters_.Enter(waiter);
  }
  // A thread that adds a task from here on sees that this one sleeps.
  if (!SomethingIsReadyElsewhere()) sleeper.Sleep().IgnoreError();
  TOCSIN_STEP("GroupJoin: has slept");
  MutexLock lock(queue_.home_shard_.lock);
  queue_.waiters_.Leave(waiter);
}

bool GroupJoin::SomethingIsReadyElsewhere() {
  if (!queue_.count_.HasAccounts()) return false;
  for (Shard& shard : queue_.slots_.shards()) {
    if (&shard == &queue_.home_shard_ || !shard.looks_ready.load()) continue;
    TOCSIN_STEP("GroupJoin: a shard looked ready to who falls asleep");
    MutexLock lock(shard.lock);
    const LocalQueue* local = queue_.FindLocalQueue(shard);
    if (local != nullptr && queue_.MayTake(*local)) return true;
  }
  return false;
}

// A cycle can only be closed by the thread that is about to sleep, so it is
// enough to look at the tasks that wait for this thread: those on its stack,
// and the one that made the group of the outermost of them.
bool GroupJoin::WouldWaitForItself() const {
  const RunningTask* bottom = nullptr;
  for (const RunningTask* r = CurrentTask(); r != nullptr; r = r->outer) {
    if (&r->queue() == &queue_) return true;
    bottom = r;
  }
  const TaskQueue* q = bottom != nullptr ? &bottom->queue() : nullptr;
  while (q != nullptr && q != &queue_) {
    q = q->EndsBeforeItsMaker() ? q->made_in_ : nullptr;
  }
  return q == &queue_;
}

// Asks once the wait has lasted, and then each time before it sleeps again.
bool GroupJoin::IsRefused() {
  const RunningTask* const task = CurrentTask();
  if (task == nullptr || since_ == Instant()) return false;
  if (!long_.has_value()) {
    if (Now() < Add(since_, TaskWait::kLong)) return false;
    long_.emplace(queue_, *task, may_be_refused_);
  }
  return long_->refused();
}

}  // namespace tocsin::inline v0_2::internal
