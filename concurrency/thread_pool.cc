// Three orders of events make sure that nothing is overlooked. Both sides use
// sequentially consistent operations, so that at least one sees the other:
//
//   who makes a task ready            who gives a slot up (parks, blocks)
//     sets shard.looks_ready            decrements active_
//     reads active_: a slot free?       reads every shard.looks_ready
//   => a ready task gets a free slot.
//
//   who makes a task ready            who stops searching
//     sets shard.looks_ready            decrements searching_
//     reads searching_: anybody?        reads every shard.looks_ready
//   => a ready task is found by a searcher, or gets a free slot. A worker that
//      was sent counts as searching until it has a task or gives up. So there
//      is one wake-up in flight at a time, and who finds something passes the
//      search on if there is more.
//
//   who finds no slot free            the monitor, about to go dormant
//     set shard.looks_ready before      sets watch_ to kDormant
//     reads watch_: dormant?            reads every shard.looks_ready
//   => with no slot free, the monitor looks after a ready task.
//
// A shard that looks ready already is not set so again. Then who looks at it
// takes its lock, and comes after whoever adds the task there, and sees it; or
// before. Then it finds none and takes the look back, so that who adds the task
// gives it again.
#include "tocsin/concurrency/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/spin.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin {

namespace internal {

namespace {

constexpr absl::Duration kSpareLife = absl::Seconds(1);
constexpr absl::Duration kPauseAfterRefusal = absl::Milliseconds(100);

constexpr int kMostShards = 64;

[[maybe_unused]] const int at_fork =
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });

std::atomic<uint32_t> threads_seen{1};

absl::Status RefusedThread(const std::string& pool, int error) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "pthread_create for the thread pool \"", pool, "\": ", ErrorText(error)));
}

}  // namespace

WorkerSlots::WorkerSlots(std::string name, int slots, int max_threads)
    : name_(std::move(name)),
      slot_count_(slots),
      max_threads_(max_threads),
      made_in_process_(forks.load()),
      shard_count_(std::bit_ceil(
          static_cast<uint32_t>(std::clamp(2 * slots, 16, kMostShards)))),
      shards_(std::make_unique<Shard[]>(shard_count_)) {}

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
  if (forked()) {
    return absl::FailedPreconditionError(
        "the thread pool was made before fork(), and its threads are not in "
        "the child; make another with ThreadPool::Create() there");
  }
  int refusal;
  {
    MutexLock lock(mutex_);
    refusal = refusal_;
  }
  return refusal == 0 ? absl::OkStatus() : RefusedThread(name_, refusal);
}

void WorkerSlots::NumberThread() { thread_number = threads_seen.fetch_add(1); }

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
  int active = active_.load();
  while (active < slot_count_) {
    if (active_.compare_exchange_weak(active, active + 1)) return Grant();
  }
  RouseMonitor();
}

// Finds a worker for a slot that is already counted. One that is woken counts
// as searching from here on, so that there is but one at a time on its way. One
// that must be made first counts itself: who knows how long that takes.
void WorkerSlots::Grant() {
  WorkerRecord* idle = nullptr;
  WorkerRecord* fresh = nullptr;
  {
    MutexLock lock(mutex_);
    if (idle_ != nullptr) {
      idle = std::exchange(idle_, idle_->next_idle);
      idle->has_slot.store(true);
      idle->granted.store(Granted::kSlot);
      searching_.fetch_add(1);
      idle->woken.store(1);
    } else if (threads_ < max_threads_ &&
               (refusal_ == 0 || Now() >= retry_at_)) {
      fresh = AddWorker();
    }
    if (fresh != nullptr) {
      fresh->has_slot.store(true);
      fresh->granted.store(Granted::kSlot);
    } else if (idle == nullptr) {
      active_.fetch_sub(1);
    }
  }
  if (idle != nullptr) return FutexWakeOne(&idle->woken);
  // At the cap every worker is busy or blocked and will look for tasks before
  // it parks. Where the system refuses a thread, the monitor tries again.
  if (fresh == nullptr || StartWorker(fresh) != 0) RouseMonitor();
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

// Null where there is no memory: an exception would come when its task is in
// the queue already.
WorkerRecord* WorkerSlots::AddWorker() {
  WorkerRecord* worker = NewWorker(started_);
  if (worker == nullptr) return nullptr;
  ++started_;
  ++threads_;
  worker->next = std::exchange(workers_, worker);
  return worker;
}

// pthread_create() instead of std::thread, whose constructor throws. Returns
// the errno.
int WorkerSlots::StartWorker(WorkerRecord* worker) {
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, &RunWorker, worker);
  MutexLock lock(mutex_);
  refusal_ = error;
  if (error == 0) return 0;
  retry_at_ = Now() + kPauseAfterRefusal;
  WorkerRecord** link = &workers_;
  while (*link != worker) link = &(*link)->next;
  *link = worker->next;
  if (worker->has_slot.load()) active_.fetch_sub(1);
  delete worker;
  LeaveThreads();
  return error;
}

// The last one lets the destructor go on.
void WorkerSlots::LeaveThreads() {
  if (--threads_ > 0 || !ending_) return;
  empty_.store(1);
  FutexWakeOne(&empty_);
}

void* WorkerSlots::RunWorker(void* worker) {
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
    if (worker.has_slot.exchange(false)) active_.fetch_sub(1);
    spare = threads_ > slot_count_;
    worker.granted.store(ending_ ? Granted::kEnd : Granted::kNothing);
    worker.woken.store(ending_ ? 1 : 0);
    if (!ending_) worker.next_idle = std::exchange(idle_, &worker);
  }
  // Perhaps this worker is the one that gets it.
  DispatchIfReady();
  const absl::Time until = spare ? Now() + kSpareLife : absl::InfiniteFuture();
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
  // If the pool is being destroyed, its destructor joins this thread. Else the
  // pool may be gone from here on; a spare one is detached, because to leave it
  // to the destructor is a leak in a pool that has none to come.
  if (!joined) pthread_detach(pthread_self());
  if (before.has_value()) pthread_join(*before, nullptr);
  return false;
}

void WorkerSlots::GiveSlot(WorkerRecord& worker) {
  if (!worker.has_slot.exchange(false)) return;
  active_.fetch_sub(1);
  DispatchIfReady();
}

std::string WorkerSlots::ThreadName(const std::string& suffix) const {
  return absl::StrCat(name_.substr(0, kThreadNameSize - suffix.size()), suffix);
}

class Worker final : public WorkerRecord, public WorkerSlot {
 public:
  Worker(WorkerSlots& slots, size_t number);

  // Deletes this in the end.
  void Run() override;

  // Leaves its slot to others, until the last Return().
  void Leave() override {
    if (blocked_++ == 0) slots_.GiveSlot(*this);
  }
  void Return() override {
    if (--blocked_ == 0) slots_.TakeSlot(*this);
  }

 private:
  void RunOwnTask();
  void RunTasks();
  void RunOwnTasks();
  bool RunOtherTask();
  void HoldOff();
  bool Search();
  void StopSearching();
  void Perform(RunningTask& running);
  bool KeepsSlot();

  WorkerSlots& slots_;
  const std::string thread_name_;
  int blocked_ = 0;
  bool ran_since_granted_ = false;
  Shard* shard_ = nullptr;  // of this thread
  // Whether and when it has carried tasks over, and how long it holds off then.
  std::chrono::steady_clock::time_point carried_at_;
  bool carried_ = false;
  std::chrono::nanoseconds hold_off_{0};
  bool searching_ = false;  // counted as such by the slots
};

namespace {

// How many of its own tasks a worker runs before it looks for those of others.
constexpr int kTasksInARow = 1024;

// What it takes about to carry tasks over from one core to another.
constexpr std::chrono::nanoseconds kCarrying{500};
constexpr std::chrono::nanoseconds kLongestHoldOff{20'000};

}  // namespace

Worker::Worker(WorkerSlots& slots, size_t number)
    : slots_(slots),
      thread_name_(slots.ThreadName(absl::StrCat("-", number + 1))) {}

void Worker::Run() {
  worker_slot = this;
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
  delete this;
}

// Without a slot: it is not one of those that share the CPUs.
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
    RunOwnTasks();
    if (!RunOtherTask() && !shard_->looks_ready.load() && !Search()) break;
  }
  if (searching_) StopSearching();
}

void Worker::StopSearching() {
  TOCSIN_STEP("Worker: about to stop searching");
  searching_ = false;
  slots_.EndSearch();
}

// Stays on the look-out for some time. False if nothing came.
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

// Whether to go on: not if those whose slot was given away are back, and there
// are more of us than slots. One that was just sent runs a task in any case.
inline bool Worker::KeepsSlot() {
  if (!ran_since_granted_) return true;
  if (!has_slot.load(std::memory_order_relaxed)) slots_.TakeSlot(*this);
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

// If what it carried over took less time than the carrying, the thread that it
// came from is better left alone for a while: it will have more by then.
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

// Runs a task of another shard, of which it takes some more over. False if
// there was none.
bool Worker::RunOtherTask() {
  HoldOff();
  const std::span<Shard> shards = slots_.shards();
  size_t at = shard_ - shards.data();
  for (size_t i = 1; i < shards.size(); ++i) {
    at = (at + 1) % shards.size();
    RunningTask running;
    if (!shards[at].looks_ready.load() ||
        !TaskQueue::Steal(shards[at], *shard_, running)) {
      continue;
    }
    carried_ = true;
    carried_at_ = std::chrono::steady_clock::now();
    if (searching_) {
      StopSearching();
    } else {
      // Who looks at the shards one by one may have missed what was carried
      // from one to another.
      slots_.DispatchIfReady();
    }
    Perform(running);
    TaskQueue::EndAlone(running);
    return true;
  }
  return false;
}

class PoolMonitor {
 public:
  explicit PoolMonitor(WorkerSlots& slots) : slots_(slots) {}
  PoolMonitor(const PoolMonitor&) = delete;
  PoolMonitor& operator=(const PoolMonitor&) = delete;

  // Makes the thread, or wakes it. Where the system refuses one, the next call
  // tries again.
  void Rouse();

  // Ends the thread and waits for that. The workers have ended.
  void End();

 private:
  void Run();
  bool SomethingIsStuck();
  void LookAtWorkers(bool stuck);

  WorkerSlots& slots_;
  std::optional<pthread_t> thread_ ABSL_GUARDED_BY(slots_.mutex_);
};

namespace {

// The monitor acts on what it finds unchanged at two looks, so it does so after
// a tenth of a second at most.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(50);

}  // namespace

void PoolMonitor::End() {
  std::optional<pthread_t> monitor;
  {
    MutexLock lock(slots_.mutex_);
    monitor = thread_;
  }
  if (monitor.has_value()) {
    slots_.watch_.store(WorkerSlots::kEnded);
    FutexWakeOne(&slots_.watch_);
    pthread_join(*monitor, nullptr);
  }
}

void PoolMonitor::Rouse() {
  uint32_t watch = slots_.watch_.load();
  if (watch == WorkerSlots::kDormant) {
    if (slots_.watch_.compare_exchange_strong(watch, WorkerSlots::kWatching)) {
      FutexWakeOne(&slots_.watch_);
    }
  } else if (watch == WorkerSlots::kNoThread && slots_.max_threads_ > 0 &&
             slots_.watch_.compare_exchange_strong(watch,
                                                   WorkerSlots::kWatching)) {
    auto run = [](void* monitor) -> void* {
      static_cast<PoolMonitor*>(monitor)->Run();
      return nullptr;
    };
    pthread_t thread;
    // Under the mutex, so that the destructor finds it.
    MutexLock lock(slots_.mutex_);
    const int error = pthread_create(&thread, nullptr, run, this);
    if (error == 0) {
      thread_ = thread;
    } else {
      slots_.refusal_ = error;
      slots_.watch_.store(WorkerSlots::kNoThread);
    }
  }
}

void PoolMonitor::Run() {
  pthread_setname_np(pthread_self(), slots_.ThreadName("-monitor").c_str());
  while (true) {
    TOCSIN_STEP("PoolMonitor: looks");
    const bool stuck = SomethingIsStuck();
    LookAtWorkers(stuck);
    if (stuck) {
      slots_.active_.fetch_add(1);
      slots_.Grant();
    } else if (slots_.SomethingIsReady()) {
      slots_.Dispatch();  // where the system refused a thread before
    } else {
      TOCSIN_STEP("PoolMonitor: about to go dormant");
      uint32_t watching = WorkerSlots::kWatching;
      slots_.watch_.compare_exchange_strong(watching, WorkerSlots::kDormant);
      if (!slots_.SomethingIsReady()) {
        FutexWait(slots_.watch_, WorkerSlots::kDormant);
      }
      uint32_t dormant = WorkerSlots::kDormant;
      slots_.watch_.compare_exchange_strong(dormant, WorkerSlots::kWatching);
    }
    const absl::Time next_look = Now() + kBetweenLooks;
    while (slots_.watch_.load() != WorkerSlots::kEnded && Now() < next_look) {
      FutexWait(slots_.watch_, WorkerSlots::kWatching, next_look);
    }
    if (slots_.watch_.load() == WorkerSlots::kEnded) return;
  }
}

bool PoolMonitor::SomethingIsStuck() {
  bool stuck = false;
  for (Shard& shard : slots_.shards()) {
    if (!shard.looks_ready.load(std::memory_order_relaxed)) continue;
    MutexLock lock(shard.lock);
    stuck |= shard.Stuck();
  }
  return stuck;
}

// If something is stuck, one that runs the same task as at the last look loses
// its slot. It takes another when that task ends.
void PoolMonitor::LookAtWorkers(bool stuck) {
  MutexLock lock(slots_.mutex_);
  for (WorkerRecord* worker = slots_.workers_; worker != nullptr;
       worker = worker->next) {
    const uint64_t tasks = worker->tasks.load(std::memory_order_relaxed);
    const bool blocked =
        std::exchange(worker->tasks_at_last_look, tasks) == tasks;
    if (stuck && blocked && worker->has_slot.exchange(false)) {
      slots_.active_.fetch_sub(1);
      stuck = false;
    }
  }
}

}  // namespace internal

namespace {

class Pool final : public internal::WorkerSlots {
 public:
  Pool(ThreadPool::Options options, int threads)
      : WorkerSlots(std::move(options.name), threads, options.max_threads),
        monitor_(*this) {}
  ~Pool() override {
    if (forked()) return;  // its threads and who held its locks are not here
    EndWorkers();
    monitor_.End();
  }

 private:
  internal::WorkerRecord* NewWorker(size_t number) override {
    return new (std::nothrow) internal::Worker(*this, number);
  }
  void RouseMonitor() override { monitor_.Rouse(); }

  internal::PoolMonitor monitor_;
};

}  // namespace

ThreadPool& ThreadPool::Default() {
  static ThreadPool& pool = *[] {
    const int threads =
        std::min(internal::AvailableCpus(), Options().max_threads);
    auto* made = new ThreadPool(std::make_unique<Pool>(Options(), threads));
    internal::default_slots.store(made->slots_.get(),
                                  std::memory_order_release);
    return made;
  }();
  return pool;
}

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Create(
    Options options) {
  if (options.max_threads < 0 || options.threads.value_or(0) < 0) {
    return absl::InvalidArgumentError(
        "ThreadPool: a number of threads is 0 or more");
  }
  if (options.threads.value_or(0) > options.max_threads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ThreadPool: max_threads is ", options.max_threads, ", less than the ",
        *options.threads, " threads asked for; raise it"));
  }
  const int threads =
      options.threads.has_value()
          ? *options.threads
          : std::min(internal::AvailableCpus(), options.max_threads);
  return std::unique_ptr<ThreadPool>(
      new ThreadPool(std::make_unique<Pool>(std::move(options), threads)));
}

ThreadPool::ThreadPool(std::unique_ptr<internal::WorkerSlots> slots)
    : slots_(std::move(slots)) {}

ThreadPool::~ThreadPool() = default;

absl::Status ThreadPool::status() const { return slots_->status(); }

}  // namespace tocsin
