#include "tocsin/concurrency/internal/task_queue.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <span>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/short_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_ring.h"

namespace tocsin::inline v0_2::internal {

namespace {

// The most tasks that one thread takes over from another at a time.
constexpr size_t kMostCarried = 256;

// How often a thread yields before it sleeps in between.
constexpr int kYields = 100;

}  // namespace

// The part of AddAt() that makes nothing. False if something has to be made.
inline bool TaskQueue::AddToAccount(Shard& shard, Task& task) {
  MutexLock lock(shard.lock);
  LocalQueue* const account = shard.accounts;
  if (account == nullptr || account->queue != this || account->tasks.full() ||
      account->unfinished.load(std::memory_order_relaxed) == 0) {
    return false;
  }
  account->Push(task, numbers_given_);
  Shard::Enter(*account);
  return true;
}

bool TaskQueue::Add(Task& task) {
  if (max_running_ == 0) {
    Shard& shard = slots_.ShardOfThread();
    if (&shard != &home_shard_) return AddElsewhere(shard, task);
  }
  const std::atomic<uint32_t>* waiter = nullptr;
  {
    MutexLock lock(home_shard_.lock);
    if (closed_) return false;
    home_.tasks.MakeRoom(home_shard_.spare_tasks);
    used_ = true;
    home_.Push(task, numbers_given_);
    // At the limit, the end of a running task makes this one ready.
    if (max_running_ != 0 && running_ >= max_running_) return true;
    Shard::Enter(home_);
    if (!waiters_.empty()) waiter = waiters_.Rouse();
  }
  if (waiter != nullptr) {
    FutexWakeOne(waiter);
  } else {
    slots_.Dispatch();
  }
  return true;
}

bool TaskQueue::AddElsewhere(Shard& shard, Task& task) {
  if (!AddToAccount(shard, task)) return AddAt(shard, task);
  if (!waiters_.AnyToRouse() || !RouseSleeper()) slots_.Dispatch();
  return true;
}

bool TaskQueue::AddAt(Shard& shard, Task& task) {
  bool account_open = false;
  // For the case that another thread opened one meanwhile, or memory runs out.
  absl::Cleanup close_account = [&] {
    if (!account_open) return;
    WakeUps wake_ups;
    CloseAccount(wake_ups);
    wake_ups.Send();
  };
  while (true) {
    {
      MutexLock lock(shard.lock);
      LocalQueue& local = LocalQueueAt(shard);
      if (local.unfinished.load(std::memory_order_relaxed) != 0 ||
          std::exchange(account_open, false)) {
        local.tasks.MakeRoom(shard.spare_tasks);
        local.Push(task, numbers_given_);
        Shard::Enter(local);
        break;
      }
      Shard::Spare(local);
    }
    if (!OpenAccount()) return false;
    account_open = true;
    TOCSIN_STEP("TaskQueue: has opened an account");
  }
  if (!RouseSleeper()) slots_.Dispatch();
  return true;
}

absl::Status TaskQueue::Start(Task& task, TaskKind kind) {
  // The task may end before this thread is through with the pool.
  const Hold hold(*this);
  if (!hold) {
    return absl::FailedPreconditionError(
        "started on a task group that is closed: its Wait() has returned");
  }
  {
    MutexLock lock(home_shard_.lock);
    CountStarted(kind, 1);
    task.next = std::exchange(starting_, &task);
  }
  absl::Cleanup not_started = [&] {
    WakeUps wake_ups;
    {
      MutexLock lock(home_shard_.lock);
      Task** link = &starting_;
      while (*link != &task) link = &(*link)->next;
      *link = task.next;
      CountStarted(kind, -1);
      NoticeEnd(wake_ups);
    }
    wake_ups.Send();
  };
  absl::Status status = slots_.RunOnThread(*this, task, kind);
  if (status.ok()) std::move(not_started).Cancel();
  return status;
}

bool TaskQueue::RouseSleeper() {
  if (!waiters_.AnyToRouse()) return false;
  const std::atomic<uint32_t>* waiter;
  {
    MutexLock lock(home_shard_.lock);
    waiter = waiters_.Rouse();
  }
  if (waiter != nullptr) FutexWakeOne(waiter);
  return waiter != nullptr;
}

void TaskQueue::WakeWaiters() {
  WakeUps wake_ups;
  {
    MutexLock lock(home_shard_.lock);
    waiters_.WakeAll(wake_ups);
  }
  wake_ups.Send();
}

bool TaskQueue::RunsOnThisStack() const {
  const RunningTask* r = CurrentTask();
  while (r != nullptr && &r->queue() != this) r = r->outer;
  return r != nullptr;
}

bool TaskQueue::DependsOnThisThread() const {
  return (limited() && RunsOnThisStack()) || !slots_.CanSend();
}

void TaskQueue::Reserve() {
  MutexLock lock(home_shard_.lock);
  home_.Count(1);
}

void TaskQueue::RunReserved(Task& task) {
  WorkerSlots::KnowThread();
  RunningTask running;
  running.kind = TaskKind::kReserved;
  {
    MutexLock lock(home_shard_.lock);
    home_.Link(running, task);
  }
  Perform(running);
  EndHere(running);
}

bool TaskQueue::TakeInTurn(RunningTask& running, GroupWaiters::Waiter& waiter) {
  // Then the limit counts the one that waits.
  const bool inside = RunsOnThisStack();
  MutexLock lock(home_shard_.lock);
  if (home_.tasks.empty() || (!inside && running_ >= max_running_)) {
    waiters_.Enter(waiter);
    return false;
  }
  running.kind = inside ? TaskKind::kReserved : TaskKind::kInTurn;
  if (!inside) ++running_;
  ++home_.taken;
  Task& task = *home_.tasks.TakeOldest();
  UpdateReady(home_);
  home_.Link(running, task);
  return true;
}

void TaskQueue::RunInTurn(RunningTask& running) {
  WorkerSlots::KnowThread();
  Perform(running);
  EndHere(running);
}

bool TaskQueue::LeaveTurn(GroupWaiters::Waiter& waiter) {
  MutexLock lock(home_shard_.lock);
  waiters_.Leave(waiter);
  return std::exchange(waiter.roused, false);
}

void TaskQueue::PassOn() {
  const std::atomic<uint32_t>* waiter;
  {
    MutexLock lock(home_shard_.lock);
    if (!home_.ready) return;
    waiter = waiters_.Rouse();
  }
  if (waiter != nullptr) {
    FutexWakeOne(waiter);
  } else {
    slots_.Dispatch();
  }
}

// This thread takes no other task and is no worker: so it tells of what is
// ready before the group may end, and touches nothing after that.
void TaskQueue::EndHere(RunningTask& running) {
  if (running.kind == TaskKind::kInTurn) {
    {
      MutexLock lock(home_shard_.lock);
      --running_;
      UpdateReady(home_);
    }
    PassOn();
  }
  WakeUps wake_ups;
  {
    MutexLock lock(home_shard_.lock);
    home_.Unlink(running);
    home_.Count(-1);
    NoticeEnd(wake_ups);
  }
  wake_ups.Send();
  TOCSIN_STEP("TaskQueue: has ended a task that a wait ran");
}

void TaskQueue::Discard() {
  const Hold hold(*this);
  if (!hold) return;
  bool kept = false;
  for (Shard& shard : slots_.shards()) kept |= DiscardAt(shard);
  if (!kept) return;
  WakeUps wake_ups;
  {
    MutexLock lock(home_shard_.lock);
    waiters_.WakeAll(wake_ups);
  }
  slots_.Dispatch();
}

// True if some were kept.
bool TaskQueue::DiscardAt(Shard& shard) {
  LocalQueue* local;
  TaskRing tasks;
  {
    MutexLock lock(shard.lock);
    local = FindLocalQueue(shard);
    if (local == nullptr || local->tasks.empty()) return false;
    tasks.Swap(local->tasks);
    Shard::Leave(*local);
  }
  // They count as unfinished until their closures are gone: so the destructor
  // of one must not wait for the group.
  RunningTask running;
  running.local = local;
  running.kind = TaskKind::kDiscarded;
  running.outer = CurrentTask();
  running_task.store(&running, std::memory_order_release);
  int64_t discarded = 0;
  for (size_t left = tasks.size(); left > 0; --left) {
    Task* task = tasks.TakeOldest();
    const TaskOptions* options = task->options();
    if (options != nullptr && options->start_even_if_cancelled) {
      tasks.Push(task);  // fits, because one was just taken
      continue;
    }
    task->Discard();
    Task::Free(task);
    ++discarded;
  }
  running_task.store(running.outer, std::memory_order_release);
  const bool some_kept = !tasks.empty();
  bool account_ended = false;
  {
    MutexLock lock(shard.lock);
    while (!local->tasks.empty()) {
      tasks.MakeRoom(shard.spare_tasks);
      tasks.Push(local->tasks.TakeOldest());
    }
    tasks.Shrink();
    tasks.Swap(local->tasks);
    local->Count(-discarded);
    UpdateReady(*local);
    account_ended = local != &home_ && local->unfinished.load() == 0;
    if (account_ended) Shard::Spare(*local);
  }
  // Never the last one: Discard() holds another open.
  if (account_ended) count_.CloseAccount();
  return some_kept;
}

std::vector<std::string> TaskQueue::Names() const {
  std::vector<std::string> running;
  std::vector<std::string> queued;
  for (Shard& shard : slots_.shards()) {
    MutexLock lock(shard.lock);
    if (&shard == &home_shard_) {
      home_shard_.lock.AssertHeld();
      for (const Task* t = starting_; t != nullptr; t = t->next) {
        running.push_back(NameOf(t->options(), 0));
      }
    }
    const LocalQueue* local = FindLocalQueue(shard);
    if (local == nullptr) continue;
    for (const RunningTask* r = local->begun; r != nullptr; r = r->next) {
      running.push_back(r->name());
    }
    for (size_t i = 0; i < local->tasks.size(); ++i) {
      const Task& task = *local->tasks[i];
      queued.push_back(NameOf(task.options(), task.number));
    }
  }
  std::reverse(running.begin(), running.end());
  running.insert(running.end(), queued.begin(), queued.end());
  return running;
}

// Where several groups are ready.
void TaskQueue::TakeInTurn(Shard& shard, RunningTask& running) {
  LocalQueue& local = *shard.first_ready;
  const bool oldest = shard.oldest_due > 0;
  if (oldest) --shard.oldest_due;
  local.queue->Take(local, running, oldest);
  Shard::TakeTurns(local);
}

bool TaskQueue::Steal(Shard& from, Shard& to, RunningTask& running) {
  bool more;
  {
    LockBoth lock(from, to);
    if (!from.SeeReady()) return false;
    LocalQueue* local = from.first_ready;
    more = local->queue->StealFrom(*local, to, running);
    Shard::TakeTurns(*local);
    // Otherwise a thread that takes the newest ones here between two thieves
    // could have the turn of the same group each time.
    from.oldest_due = from.ready_count;
  }
  if (more) running.queue().RouseSleeper();
  return true;
}

bool TaskQueue::StealHome(size_t& turn, RunningTask& running) {
  if (!count_.HasAccounts()) return false;
  const std::span<Shard> shards = slots_.shards();
  for (size_t i = 0; i < shards.size(); ++i) {
    const size_t at = (turn + i) % shards.size();
    Shard& shard = shards[at];
    if (&shard == &home_shard_ || !shard.looks_ready.load()) continue;
    LockBoth lock(shard, home_shard_);
    LocalQueue* local = FindLocalQueue(shard);
    if (local == nullptr || !MayTake(*local)) continue;
    StealFrom(*local, home_shard_, running);
    turn = at + 1;
    return true;
  }
  return false;
}

bool TaskQueue::StealFrom(LocalQueue& from, Shard& to, RunningTask& running) {
  // A thread that has tasks of its own takes one only, to give others a turn.
  const size_t count =
      max_running_ != 0 || to.first_ready != nullptr
          ? 1
          : std::min((from.tasks.size() + 1) / 2, kMostCarried);
  if (count == 1) {
    Begin(from, *from.tasks.TakeOldest(), running);
    return false;
  }
  LocalQueue& here = LocalQueueAt(to);
  if (&here != &home_ && here.unfinished.load() == 0) count_.OpenAccount();
  here.tasks.MoveOldest(from.tasks, count, to.spare_tasks);
  here.Count(static_cast<int64_t>(count));
  from.tasks.Shrink();
  from.Count(-static_cast<int64_t>(count));
  ++from.taken;
  UpdateReady(from);
  Shard::Enter(here);
  Begin(here, *here.tasks.TakeOldest(), running);
  return true;
}

void TaskQueue::BeginStarted(Task& task, TaskKind kind, RunningTask& running) {
  MutexLock lock(home_shard_.lock);
  Task** link = &starting_;
  while (*link != &task) link = &(*link)->next;
  *link = task.next;
  task.number = 0;
  running.kind = kind;
  home_.Link(running, task);
}

void TaskQueue::EndAlone(RunningTask& running) {
  LocalQueue& local = *running.local;
  MutexLock lock(local.shard.lock);
  if (End(running)) AnnounceEnd(local);
}

void TaskQueue::AnnounceEnd(LocalQueue& local) {
  ShortLock& lock = local.shard.lock;
  TaskQueue& queue = *local.queue;
  WakeUps wake_ups;
  if (&local == &queue.home_) {
    queue.NoticeEnd(wake_ups);
    lock.Unlock();
  } else {
    Shard::Spare(local);
    lock.Unlock();
    queue.CloseAccount(wake_ups);
  }
  wake_ups.Send();
  lock.Lock();
}

void TaskQueue::CloseAccount(WakeUps& wake_ups) {
  if (count_.CloseAccountButTheLast()) return;
  TOCSIN_STEP("TaskQueue: about to close the last account");
  MutexLock lock(home_shard_.lock);
  count_.CloseAccount();
  NoticeEnd(wake_ups);
}

void TaskQueue::CloseHeld() {
  WakeUps wake_ups;
  CloseAccount(wake_ups);
}

void TaskQueue::LetWaitsGetOut() {
  if (!crowded_.load(std::memory_order_relaxed)) return;
  // They have been woken, and take the lock once more at the most.
  for (int i = 0;; ++i) {
    {
      MutexLock lock(home_shard_.lock);
      if (joining_ == 0) return;
    }
    if (i < kYields) {
      sched_yield();
    } else {
      const timespec pause = {.tv_sec = 0, .tv_nsec = 100'000};
      nanosleep(&pause, nullptr);
    }
  }
}

void TaskQueue::DieOfFork() {
  std::fprintf(stderr,
               "tocsin: a task forked and returned in the child, where its "
               "thread pool does not exist. End the child by exec() or "
               "_exit() inside the task.\n");
  std::abort();
}

bool TaskQueue::OpenAccount() {
  MutexLock lock(home_shard_.lock);
  if (closed_) return false;
  used_ = true;
  count_.OpenAccount();
  return true;
}

LocalQueue* TaskQueue::FindLocalQueue(Shard& shard) const {
  if (&shard == &home_shard_) return const_cast<LocalQueue*>(&home_);
  return shard.FindAccount(*this);
}

LocalQueue& TaskQueue::LocalQueueAt(Shard& shard) {
  if (LocalQueue* local = FindLocalQueue(shard)) return *local;
  return shard.AddAccount(*this);
}

// Out of the way of what runs for every task.
Task& TaskQueue::TakeDue(LocalQueue& local) {
  if (max_running_ == 0)
    local.oldest_at = local.taken + LocalQueue::kOldestEvery;
  local.tasks.Shrink();
  return *local.tasks.TakeOldest();
}

void TaskQueue::UpdateReady(LocalQueue& local) {
  if (MayTake(local)) {
    Shard::Enter(local);
  } else {
    Shard::Leave(local);
  }
}

void TaskQueue::NoticeEnd(WakeUps& wake_ups) {
  if (joining_ == 0 || !NothingUnfinished()) return;
  waiters_.WakeAll(wake_ups);
}

}  // namespace tocsin::inline v0_2::internal
