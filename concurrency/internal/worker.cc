#include "tocsin/concurrency/internal/worker.h"

#include <pthread.h>

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/spin.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_queue.h"

namespace tocsin::inline v0_2::internal {

namespace {

// How many of its own tasks a worker runs before it looks for those of others.
constexpr int kTasksInARow = 1024;

// About the time it takes to carry tasks over from one core to another.
constexpr std::chrono::nanoseconds kCarrying{500};
constexpr std::chrono::nanoseconds kLongestHoldOff{20'000};

}  // namespace

Worker::Worker(WorkerSlots& slots, size_t number)
    : slots_(slots),
      thread_name_(slots.ThreadName(absl::StrCat("-", number + 1))) {}

void Worker::Run() {
  worker_slot = this;
  cpu.Enter();
  Roster::EnterThread(/*worker=*/true);
  pthread_setname_np(pthread_self(), thread_name_.c_str());
  if (granted.load() == Granted::kSlot) slots_.BeginSearch();
  do {
    if (granted.load() == Granted::kTask) {
      RunOwnTask();
    } else {
      ran_since_granted_ = false;
      RunTasks();
    }
  } while (slots_.Park(*this));
  // The program's thread_local objects are destroyed after this, and may sleep.
  worker_slot = nullptr;
  delete this;
}

// Without a slot: such a task is not one of those that share the CPUs.
void Worker::RunOwnTask() {
  ++blocked_;
  const TaskOptions* options = task->options();
  const bool named = options != nullptr && !options->name.empty();
  if (named) {
    pthread_setname_np(
        pthread_self(),
        options->name.substr(0, WorkerSlots::kThreadNameSize).c_str());
  }
  RunningTask running;
  queue->BeginStarted(*task, kind, running);
  queue->Perform(running);
  TaskQueue::EndAlone(running);
  if (named) {
    pthread_setname_np(pthread_self(), thread_name_.c_str());
  }
  --blocked_;
}

void Worker::RunTasks() {
  shard_ = &slots_.ShardOfThread();
  searching_ = true;  // it has been counted
  while (KeepsSlot()) {
    const bool ran = RunTaskInTurn();
    RunOwnTasks();
    if (!ran && !shard_->looks_ready.load() && !Search()) break;
  }
  if (searching_) StopSearching();
}

void Worker::StopSearching() {
  TOCSIN_STEP("Worker: about to stop searching");
  searching_ = false;
  slots_.EndSearch();
}

// Looks for a ready task for some time. False if there was none.
bool Worker::Search() {
  if (!searching_) {
    searching_ = true;
    slots_.BeginSearch();
  }
  return SpinUntil([this] { return slots_.SomethingLooksReady(); });
}

inline void Worker::Perform(RunningTask& running) {
  ran_since_granted_ = true;
  tasks.store(tasks.load(std::memory_order_relaxed) + 1,
              std::memory_order_relaxed);
  running.queue().Perform(running);
}

// Whether to go on: not if workers whose slots were given away are back, so
// that more are active than there are slots. A worker that was just sent runs a
// task in any case.
inline bool Worker::KeepsSlot() {
  if (!ran_since_granted_) return true;
  if (slot.load(std::memory_order_relaxed) != kHas) slots_.TakeSlot(*this);
  return !slots_.MoreThanSlots();
}

void Worker::RunOwnTasks() {
  Shard& shard = *shard_;
  if (!shard.looks_ready.load()) return;
  RunningTask running;
  MutexLock lock(shard.lock);
  for (int i = 0; i < kTasksInARow && shard.SeeReady() && KeepsSlot(); ++i) {
    TaskQueue::TakeFrom(shard, running);
    shard.lock.Unlock();
    if (searching_) StopSearching();
    Perform(running);
    shard.lock.Lock();
    if (TaskQueue::End(running)) TaskQueue::AnnounceEnd(*running.local);
  }
}

// If the tasks that it carried over took less time than the carrying, it leaves
// the thread that they came from alone for a while, which then has more.
void Worker::HoldOff() {
  if (!std::exchange(carried_, false)) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - carried_at_ > kCarrying) {
    hold_off_ = {};
    return;
  }
  hold_off_ = std::min(2 * hold_off_ + kCarrying, kLongestHoldOff);
  while (std::chrono::steady_clock::now() - now < hold_off_) Pause();
}

// Takes a task at this thread's own shard.
bool Worker::TakeOwn(RunningTask& running) {
  MutexLock lock(shard_->lock);
  if (!shard_->SeeReady()) return false;
  TaskQueue::TakeFrom(*shard_, running);
  return true;
}

// Runs a task of the next shard that has one, and if it is another's, carries
// some more over from there. False if there was none.
bool Worker::RunTaskInTurn() {
  HoldOff();
  const std::span<Shard> shards = slots_.shards();
  const uint64_t turn = slots_.turn();
  for (size_t i = 0; i < shards.size(); ++i) {
    Shard& shard = shards[(turn + i) % shards.size()];
    if (!shard.looks_ready.load()) continue;
    RunningTask running;
    if (&shard == shard_) {
      // It comes to these anyway, except that it may be here for one task only.
      if (ran_since_granted_ || !TakeOwn(running)) continue;
    } else if (TaskQueue::Steal(shard, *shard_, running)) {
      carried_ = true;
      carried_at_ = std::chrono::steady_clock::now();
    } else {
      continue;
    }
    slots_.Advance(turn, i + 1);
    if (searching_) {
      StopSearching();
    } else {
      // A thread that looks at the shards one by one may have missed tasks that
      // were carried from one to another.
      slots_.DispatchIfReady();
    }
    Perform(running);
    TaskQueue::EndAlone(running);
    return true;
  }
  return false;
}

}  // namespace tocsin::inline v0_2::internal
