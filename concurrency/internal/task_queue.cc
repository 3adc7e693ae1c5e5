#include "tocsin/concurrency/internal/task_queue.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin::internal {

namespace {

constinit thread_local RunningTask* running_task = nullptr;

constexpr uint64_t kNeverLooked = UINT64_MAX;

std::string NameOf(const TaskOptions* options, uint64_t number) {
  if (options != nullptr && !options->name.empty()) return options->name;
  return absl::StrCat("task ", number);
}

}  // namespace

RunningTask* RunningTask::Current() { return running_task; }

std::string RunningTask::name() const { return NameOf(options.get(), number); }

TaskQueue::TaskQueue(ThreadPool& pool, int max_running)
    : pool_(pool),
      shard_(pool.ShardOfThread()),
      made_in_(running_task != nullptr ? running_task->queue : nullptr),
      max_running_(max_running) {}

bool TaskQueue::Add(Task& task) {
  task.next = nullptr;
  const std::atomic<uint32_t>* waiter = nullptr;
  {
    MutexLock lock(shard_.mutex);
    if (closed_) return false;
    unused_ = false;
    (head_ == nullptr ? head_ : tail_->next) = &task;
    tail_ = &task;
    ++unfinished_;
    // At the limit, the end of a running task makes this one ready.
    if (!MayTake()) return true;
    UpdateReady();
    for (Waiter* w = waiters_; w != nullptr && waiter == nullptr; w = w->next) {
      waiter = w->sleeper.WakeLater();
    }
  }
  if (waiter != nullptr) {
    FutexWakeOne(waiter);
  } else {
    pool_.Dispatch();
  }
  return true;
}

absl::Status TaskQueue::Start(Task& task, TaskKind kind) {
  int64_t& count = kind == TaskKind::kService ? services_ : unfinished_;
  {
    MutexLock lock(shard_.mutex);
    if (closed_) {
      return absl::FailedPreconditionError(
          "started on a task group that is closed: its Wait() has returned");
    }
    unused_ = false;
    ++count;
    task.next = std::exchange(starting_, &task);
  }
  absl::Status status = pool_.RunOnThread(*this, task, kind);
  if (!status.ok()) {
    WakeUps wake_ups;
    {
      MutexLock lock(shard_.mutex);
      Task** link = &starting_;
      while (*link != &task) link = &(*link)->next;
      *link = task.next;
      --count;
      NoticeEnd(wake_ups);
    }
    wake_ups.Send();
  }
  return status;
}

bool TaskQueue::Join() {
  if (running_task != nullptr && running_task->queue == this) return false;
  Waiter waiter;
  RunningTask running;
  WakeUps wake_ups;
  bool services_cancelled = false;
  bool joined = true;
  shard_.mutex.Lock();
  ++joining_;
  while (!closed_) {
    if (MayTake()) {
      Take(running);
      shard_.mutex.Unlock();
      Perform(running);
      shard_.mutex.Lock();
      End(running, wake_ups);
    } else if (unfinished_ == 0 && services_ == 0) {
      closed_ = true;
    } else if (unfinished_ == 0 && !services_cancelled) {
      services_cancelled = true;
      shard_.mutex.Unlock();
      CancelServices();
      shard_.mutex.Lock();
    } else if (WouldWaitForItself()) {
      joined = false;
      break;
    } else {
      waiter.next = std::exchange(waiters_, &waiter);
      shard_.mutex.Unlock();
      wake_ups.Send();
      waiter.sleeper.Sleep().IgnoreError();
      shard_.mutex.Lock();
      Waiter** link = &waiters_;
      while (*link != &waiter) link = &(*link)->next;
      *link = waiter.next;
    }
  }
  --joining_;
  shard_.mutex.Unlock();
  wake_ups.Send();
  return joined;
}

bool TaskQueue::Reserve() {
  MutexLock lock(shard_.mutex);
  if (max_running_ != 0 && running_ >= max_running_) return false;
  ++running_;
  ++unfinished_;
  UpdateReady();
  return true;
}

void TaskQueue::RunReserved(Task& task) {
  RunningTask running;
  {
    MutexLock lock(shard_.mutex);
    Link(running, task);
  }
  Perform(running);
  WakeUps wake_ups;
  bool ready;
  {
    MutexLock lock(shard_.mutex);
    End(running, wake_ups);
    ready = ready_;
  }
  wake_ups.Send();
  // This thread takes no other; what waited for the limit is for somebody else.
  if (ready) pool_.Dispatch();
}

void TaskQueue::Discard() {
  Task* discarded;
  {
    MutexLock lock(shard_.mutex);
    discarded = std::exchange(head_, nullptr);
    UpdateReady();
  }
  if (discarded == nullptr) return;
  // They count as unfinished until their closures are gone.
  int64_t count = 0;
  Task* kept = nullptr;
  Task** kept_tail = &kept;
  while (discarded != nullptr) {
    Task* task = std::exchange(discarded, discarded->next);
    const TaskOptions* options = task->options();
    if (options != nullptr && options->start_even_if_cancelled) {
      *kept_tail = task;
      kept_tail = &task->next;
      continue;
    }
    task->Discard();
    Task::Free(task);
    ++count;
  }
  *kept_tail = nullptr;
  WakeUps wake_ups;
  {
    MutexLock lock(shard_.mutex);
    unfinished_ -= count;
    taken_ += count;
    if (kept != nullptr) {
      *kept_tail = head_;
      if (head_ == nullptr) {
        tail_ = kept;
        while (tail_->next != nullptr) tail_ = tail_->next;
      }
      head_ = kept;
      UpdateReady();
      for (Waiter* w = waiters_; w != nullptr; w = w->next) {
        wake_ups.Add(w->sleeper.WakeLater());
      }
    }
    NoticeEnd(wake_ups);
  }
  wake_ups.Send();
  if (kept != nullptr) pool_.Dispatch();
}

std::vector<std::string> TaskQueue::Names() const {
  std::vector<std::string> names;
  MutexLock lock(shard_.mutex);
  for (const RunningTask* r = begun_; r != nullptr; r = r->next) {
    names.push_back(r->name());
  }
  for (const Task* t = starting_; t != nullptr; t = t->next) {
    names.push_back(NameOf(t->options(), 0));
  }
  std::reverse(names.begin(), names.end());
  uint64_t number = taken_;
  for (const Task* t = head_; t != nullptr; t = t->next) {
    names.push_back(NameOf(t->options(), ++number));
  }
  return names;
}

bool TaskQueue::unused() const {
  MutexLock lock(shard_.mutex);
  return unused_;
}

void TaskQueue::Take(RunningTask& running) {
  Task& task = *head_;
  head_ = task.next;
  running.kind = TaskKind::kQueued;
  running.number = ++taken_;
  ++running_;
  Link(running, task);
  if (!MayTake()) {
    LeaveShard();
  } else if (next_ != nullptr) {  // groups take turns
    LeaveShard();
    EnterShard();
  }
}

void TaskQueue::Begin(Task& task, TaskKind kind, RunningTask& running) {
  Task** link = &starting_;
  while (*link != &task) link = &(*link)->next;
  *link = task.next;
  running.kind = kind;
  Link(running, task);
}

void TaskQueue::Link(RunningTask& running, Task& task) {
  running.queue = this;
  running.task = &task;
  running.options = task.TakeOptions();
  running.previous = nullptr;
  running.next = begun_;
  if (begun_ != nullptr) begun_->previous = &running;
  begun_ = &running;
}

void TaskQueue::End(RunningTask& running, WakeUps& wake_ups) {
  if (running.next != nullptr) running.next->previous = running.previous;
  (running.previous != nullptr ? running.previous->next : begun_) =
      running.next;
  if (running.kind == TaskKind::kQueued) --running_;
  --(running.kind == TaskKind::kService ? services_ : unfinished_);
  UpdateReady();
  NoticeEnd(wake_ups);
}

void TaskQueue::Perform(RunningTask& running) {
  running.outer = std::exchange(running_task, &running);
  Run(running);
  if (pool_.forked()) {
    std::fprintf(stderr,
                 "tocsin: a task forked and returned in the child, where its "
                 "thread pool does not exist. End the child by exec() or "
                 "_exit() inside the task.\n");
    std::abort();
  }
  running_task = running.outer;
  Task::Free(running.task);
}

bool TaskQueue::Stuck() {
  const bool stuck = taken_at_last_look_ == taken_;
  taken_at_last_look_ = taken_;
  return stuck;
}

// A cycle can only be closed by the thread that is about to sleep, so it is
// enough to look at the tasks that wait for this thread: those on its stack,
// and the one that made the group of the outermost of them.
bool TaskQueue::WouldWaitForItself() const {
  const RunningTask* bottom = nullptr;
  for (const RunningTask* r = running_task; r != nullptr; r = r->outer) {
    if (r->queue == this) return true;
    bottom = r;
  }
  const TaskQueue* q = bottom != nullptr ? bottom->queue : nullptr;
  while (q != nullptr && q != this) q = q->made_in_;
  return q == this;
}

bool TaskQueue::MayTake() const {
  return head_ != nullptr && (max_running_ == 0 || running_ < max_running_);
}

void TaskQueue::UpdateReady() {
  if (MayTake()) {
    EnterShard();
  } else {
    LeaveShard();
  }
}

void TaskQueue::EnterShard() {
  if (ready_) return;
  ready_ = true;
  taken_at_last_look_ = kNeverLooked;
  next_ = nullptr;
  previous_ = shard_.last;
  (previous_ != nullptr ? previous_->next_ : shard_.first) = this;
  shard_.last = this;
  if (shard_.first == this) shard_.ready.store(true);
}

void TaskQueue::LeaveShard() {
  if (!ready_) return;
  ready_ = false;
  (previous_ != nullptr ? previous_->next_ : shard_.first) = next_;
  (next_ != nullptr ? next_->previous_ : shard_.last) = previous_;
  if (shard_.first == nullptr) shard_.ready.store(false);
}

void TaskQueue::NoticeEnd(WakeUps& wake_ups) {
  if (unfinished_ != 0 || joining_ == 0) return;
  if (services_ == 0) closed_ = true;
  for (Waiter* w = waiters_; w != nullptr; w = w->next) {
    wake_ups.Add(w->sleeper.WakeLater());
  }
}

}  // namespace tocsin::internal
