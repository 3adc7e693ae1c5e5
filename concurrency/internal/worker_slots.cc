// Three orders of events make sure that nothing is overlooked. Both sides use
// sequentially consistent operations, so that at least one sees the other:
//
//   thread that makes a task ready    worker that gives up its slot
//     sets shard.looks_ready            decrements active_
//     reads active_: a slot free?       reads every shard.looks_ready
//   => a ready task gets a free slot.
//
//   thread that makes a task ready    worker that stops searching
//     sets shard.looks_ready            decrements searching_
//     reads searching_: any?            reads every shard.looks_ready
//   => a ready task is found by a searcher, or gets a free slot. A worker that
//      was sent counts as searching until it has a task or gives up. So there
//      is one wake-up in flight at a time, and a worker that finds a task
//      passes the search on if there is more.
//
//   thread that finds no slot free    the monitor, about to go dormant
//     has set shard.looks_ready         sets watch_ to kDormant
//     reads watch_: dormant?            reads every shard.looks_ready
//   => with no slot free, the monitor looks after a ready task.
//
// A thread that adds a task does not set looks_ready if it is set already. A
// thread that reads it as set takes the shard's lock to look for a task. If it
// locks after the adding thread, it sees the task. If before, it finds none and
// clears looks_ready, so that the adding thread sets it again.
#include "tocsin/concurrency/internal/worker_slots.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/birth_state.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin::inline v0_2::internal {

constinit thread_local uint32_t thread_number = 0;
constinit std::atomic<uint32_t> forks{0};
constinit std::atomic<WorkerSlots*> default_slots{nullptr};

namespace {

constexpr absl::Duration kSpareLife = absl::Seconds(1);
constexpr absl::Duration kPauseAfterRefusal = absl::Milliseconds(100);

constexpr int kMostShards = 64;

// The thread that forked is no worker in the child. As one it would make
// others, wherever it sleeps, and they would run the tasks that are queued in
// the parent.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  forks.fetch_add(1);
  worker_slot = nullptr;
});

std::atomic<uint32_t> threads_seen{1};

absl::Status RefusedThread(const std::string& pool, int error) {
  return NoThread(absl::StrCat("the thread pool \"", pool, "\""), error);
}

}  // namespace

WorkerSlots::WorkerSlots(std::string name, int slots, int max_threads)
    : name_(std::move(name)),
      slot_count_(slots),
      max_threads_(max_threads),
      made_in_process_(forks.load()),
      shard_count_(std::bit_ceil(
          static_cast<uint32_t>(2 * std::clamp(slots, 8, kMostShards / 2)))),
      shards_(std::make_unique<Shard[]>(shard_count_)) {
  Roster::Enter(*this);
}

WorkerSlots::~WorkerSlots() {
  if (!forked()) Roster::Leave(*this);
}

void WorkerSlots::EndWorkers() {
  std::optional<pthread_t> last;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    while (WorkerRecord* worker = idle_) {
      idle_ = worker->next_idle;
      worker->granted.store(Granted::kEnd);
      worker->woken.store(1);
      FutexWakeOne(&worker->woken);
    }
    if (threads_ == 0) empty_.store(1);
  }
  while (empty_.load() == 0) FutexWait(empty_, 0);
  {
    MutexLock lock(mutex_);
    last = ended_;
  }
  if (last.has_value()) pthread_join(*last, nullptr);
}

absl::Status WorkerSlots::status() const {
  if (forked()) return DeadInChild();
  int refusal;
  bool full;
  {
    MutexLock lock(mutex_);
    refusal = refusal_;
    full = full_;
  }
  if (refusal != 0) return RefusedThread(name_, refusal);
  if (!full) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the thread pool \"", name_, "\": a task is ready, and all ",
                   max_threads_,
                   " threads, its max_threads, have been blocked or busy for "
                   "a while; raise max_threads if they wait for that task"));
}

absl::Status WorkerSlots::DeadInChild() {
  return absl::FailedPreconditionError(
      "the thread pool was made before fork(), and its threads are not in the "
      "child; make another with ThreadPool::Create() there");
}

void WorkerSlots::NumberThread() {
  thread_number = threads_seen.fetch_add(1);
  Roster::EnterThread();
}

bool WorkerSlots::SomethingLooksReady() const {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].looks_ready.load()) return true;
  }
  return false;
}

bool WorkerSlots::SomethingIsReady() const {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].IsReady()) return true;
  }
  return false;
}

void WorkerSlots::Send() {
  if (!SendBelow(slot_count_)) RouseMonitor();
}

// False if so many slots are in use.
bool WorkerSlots::SendBelow(int slots) {
  int active = active_.load();
  while (active < slots) {
    if (active_.compare_exchange_weak(active, active + 1)) {
      Grant();
      return true;
    }
  }
  return false;
}

// Finds a worker for a slot that is already counted. A worker that is woken
// counts as searching from here on, so that only one at a time is on its way. A
// new worker counts itself once it runs: its thread may take long to start.
void WorkerSlots::Grant() {
  WorkerRecord* idle = nullptr;
  WorkerRecord* fresh = nullptr;
  {
    MutexLock lock(mutex_);
    if (idle_ != nullptr) {
      idle = std::exchange(idle_, idle_->next_idle);
      idle->slot.store(WorkerRecord::kHas);
      idle->granted.store(Granted::kSlot);
      searching_.fetch_add(1);
      idle->woken.store(1);
    } else if (threads_ < max_threads_ && HaveMonitor() &&
               (refusal_ == 0 || Now() >= retry_at_)) {
      fresh = AddWorker();
    }
    if (fresh != nullptr) {
      fresh->slot.store(WorkerRecord::kHas);
      fresh->granted.store(Granted::kSlot);
    } else if (idle == nullptr) {
      active_.fetch_sub(1);
    }
  }
  if (idle != nullptr) return FutexWakeOne(&idle->woken);
  // At the cap every worker is busy or blocked and will look for tasks before
  // it parks. If the system refuses a thread, the monitor tries again.
  if (fresh != nullptr && StartWorker(fresh) == 0) return;
  if (watch_.load() != kNoThread) RouseMonitor();
}

// No worker is made before the monitor is there. Otherwise the monitor might be
// refused when all workers are busy and a task needs it: then nobody would try
// again. False if it is refused, and the pool has no thread at all.
bool WorkerSlots::HaveMonitor() {
  if (watch_.load() != kNoThread) return true;
  NoteRefusal(StartMonitor());
  return refusal_ == 0;
}

absl::Status WorkerSlots::RunOnThread(TaskQueue& queue, Task& task,
                                      TaskKind kind) {
  WorkerRecord* worker = nullptr;
  bool idle = false;
  {
    MutexLock lock(mutex_);
    if (idle_ != nullptr) {
      idle = true;
      worker = std::exchange(idle_, idle_->next_idle);
    } else if (threads_ >= max_threads_) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no thread for a task that needs one of its own: the pool has ",
          threads_, ", which is its max_threads"));
    } else if (!HaveMonitor()) {
      return RefusedThread(name_, refusal_);
    } else if (worker = AddWorker(); worker == nullptr) {
      return absl::ResourceExhaustedError(
          "no memory for the thread of a task that needs one of its own");
    }
    worker->queue = &queue;
    worker->task = &task;
    worker->kind = kind;
    worker->granted.store(Granted::kTask);
    if (idle) worker->woken.store(1);
  }
  if (idle) {
    FutexWakeOne(&worker->woken);
    return absl::OkStatus();
  }
  const int error = StartWorker(worker);
  return error == 0 ? absl::OkStatus() : RefusedThread(name_, error);
}

// Null if there is no memory: an exception would come when the task is already
// in its queue.
WorkerRecord* WorkerSlots::AddWorker() {
  WorkerRecord* worker = NewWorker(started_);
  if (worker == nullptr) {
    NoteRefusal(ENOMEM);
    return nullptr;
  }
  ++started_;
  ++threads_;
  worker->next = std::exchange(workers_, worker);
  return worker;
}

// Returns what CreateLikeMain() does. What binds this thread need not bind the
// next that asks: there is no pause then.
int WorkerSlots::StartWorker(WorkerRecord* worker) {
  pthread_t thread;
  // A worker between two tasks: what a task changes of it, it changes back.
  const bool as_born = worker_slot != nullptr && CurrentTask() == nullptr;
  const int error = CreateLikeMain(thread, &RunWorker, worker, as_born);
  MutexLock lock(mutex_);
  NoteRefusal(error);
  if (error == 0) return 0;
  WorkerRecord** link = &workers_;
  while (*link != worker) link = &(*link)->next;
  *link = worker->next;
  if (worker->slot.load() == WorkerRecord::kHas) active_.fetch_sub(1);
  delete worker;
  LeaveThreads();
  return error;
}

void WorkerSlots::NoteRefusal(int error) {
  refusal_ = error;
  if (error > 0) retry_at_ = After(kPauseAfterRefusal);
}

// The last thread lets the destructor go on.
void WorkerSlots::LeaveThreads() {
  if (--threads_ > 0 || !ending_) return;
  empty_.store(1);
  FutexWakeOne(&empty_);
}

// Nothing ends the thread from outside: whoever its task is for would not know.
void* WorkerSlots::RunWorker(void* worker) noexcept {
  BeBorn();
  static_cast<WorkerRecord*>(worker)->Run();
  return nullptr;
}

// Waits for something to do. False if the thread is to end, and is no longer
// counted then.
bool WorkerSlots::Park(WorkerRecord& worker) {
  TOCSIN_STEP("WorkerSlots: a worker is about to park");
  bool spare;
  {
    MutexLock lock(mutex_);
    if (worker.slot.exchange(WorkerRecord::kNone) == WorkerRecord::kHas) {
      active_.fetch_sub(1);
    }
    spare = threads_ > slot_count_;
    worker.granted.store(ending_ ? Granted::kEnd : Granted::kNothing);
    worker.woken.store(ending_ ? 1 : 0);
    if (!ending_) worker.next_idle = std::exchange(idle_, &worker);
  }
  // This worker may be the one that gets the task.
  DispatchIfReady();
  const Instant until = spare ? After(kSpareLife) : kNever;
  while (worker.woken.load(std::memory_order_acquire) == 0) {
    FutexWait(worker.woken, 0, until);
    if (Now() < until) continue;
    TOCSIN_STEP("WorkerSlots: a spare thread has had its time");
    MutexLock lock(mutex_);
    if (worker.woken.load() != 0) break;
    WorkerRecord** link = &idle_;
    while (*link != &worker) link = &(*link)->next_idle;
    *link = worker.next_idle;
    worker.granted.store(Granted::kEnd);
    break;
  }
  if (worker.granted.load() != Granted::kEnd) return true;
  std::optional<pthread_t> before;
  bool joined = false;
  {
    MutexLock lock(mutex_);
    WorkerRecord** link = &workers_;
    while (*link != &worker) link = &(*link)->next;
    *link = worker.next;
    joined = ending_;
    if (joined) before = std::exchange(ended_, pthread_self());
    LeaveThreads();
  }
  // If the pool is being destroyed, its destructor joins this thread. Otherwise
  // the pool may be gone from here on. A spare thread is detached, because
  // leaving it to the destructor is a leak in a pool that is never destroyed.
  if (!joined) pthread_detach(pthread_self());
  if (before.has_value()) pthread_join(*before, nullptr);
  return false;
}

void WorkerSlots::GiveSlot(WorkerRecord& worker) {
  if (worker.slot.exchange(WorkerRecord::kNone) != WorkerRecord::kHas) return;
  active_.fetch_sub(1);
  DispatchIfReady();
}

std::string WorkerSlots::ThreadName(const std::string& suffix) const {
  return absl::StrCat(name_.substr(0, kThreadNameSize - suffix.size()), suffix);
}

}  // namespace tocsin::inline v0_2::internal
