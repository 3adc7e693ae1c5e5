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

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/spin.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin {

using internal::FutexWait;
using internal::FutexWakeOne;
using internal::MutexLock;
using internal::RunningTask;
using internal::Shard;
using internal::SpinUntil;
using internal::Task;
using internal::TaskKind;
using internal::TaskQueue;

namespace {

// The monitor acts on what it finds unchanged at two looks, so it does so after
// a tenth of a second at most.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(50);
constexpr absl::Duration kSpareLife = absl::Seconds(1);
constexpr absl::Duration kPauseAfterRefusal = absl::Milliseconds(100);

// How many of its own tasks a worker runs before it looks for those of others.
constexpr int kTasksInARow = 1024;

constexpr int kMostShards = 64;

// What it takes about to carry tasks over from one core to another.
constexpr std::chrono::nanoseconds kCarrying{500};
constexpr std::chrono::nanoseconds kLongestHoldOff{20'000};

[[maybe_unused]] const int at_fork =
    pthread_atfork(nullptr, nullptr, [] { internal::forks.fetch_add(1); });

std::atomic<uint32_t> threads_seen{1};

// The kernel refuses longer ones.
constexpr size_t kThreadNameSize = 15;

absl::Status RefusedThread(const std::string& pool, int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("pthread_create for the thread pool \"", pool,
                   "\": ", internal::ErrorText(error)));
}

}  // namespace

class ThreadPool::Worker final : public internal::WorkerSlot {
 public:
  Worker(ThreadPool& pool, size_t number)
      : pool_(pool),
        thread_name_(pool.ThreadName(absl::StrCat("-", number + 1))) {}

  void Run();

  // Leaves its slot to others, until the last Return().
  void Leave() override {
    if (blocked_++ == 0) GiveSlot();
  }
  void Return() override {
    if (--blocked_ == 0) TakeSlot();
  }

 private:
  friend class ThreadPool;

  void RunOwnTask();
  void RunTasks();
  void RunOwnTasks();
  bool RunOtherTask();
  void HoldOff();
  bool Search();
  void StopSearching();
  void Perform(RunningTask& running);
  bool KeepsSlot();
  void GiveSlot();
  void TakeSlot() {
    if (!has_slot_.exchange(true)) pool_.active_.fetch_add(1);
  }

  ThreadPool& pool_;
  const std::string thread_name_;
  int blocked_ = 0;
  bool ran_since_granted_ = false;
  Shard* shard_ = nullptr;  // of this thread
  // Whether and when it has carried tasks over, and how long it holds off then.
  std::chrono::steady_clock::time_point carried_at_;
  bool carried_ = false;
  std::chrono::nanoseconds hold_off_{0};
  bool searching_ = false;  // counted in the pool's searching_

  // Counted in active_. Also taken away by the monitor.
  std::atomic<bool> has_slot_{false};
  std::atomic<uint64_t> tasks_{0};

  // Written by who takes it off the list of idle ones, before it is woken.
  std::atomic<Granted> granted_{Granted::kNothing};
  std::atomic<uint32_t> woken_{0};
  TaskQueue* queue_ = nullptr;
  Task* task_ = nullptr;
  TaskKind kind_ = TaskKind::kQueued;

  // Guarded by the pool's mutex.
  Worker* next_idle_ = nullptr;
  Worker* next_ = nullptr;
  uint64_t tasks_at_last_look_ = 0;
};

ThreadPool& ThreadPool::MakeDefault() {
  static ThreadPool& pool = *new ThreadPool(
      Options(), std::min(internal::AvailableCpus(), Options().max_threads));
  internal::default_pool.store(&pool, std::memory_order_release);
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
      new ThreadPool(std::move(options), threads));
}

ThreadPool::ThreadPool(Options options, int threads)
    : name_(std::move(options.name)),
      slots_(threads),
      max_threads_(options.max_threads),
      made_in_process_(internal::forks.load()),
      shard_count_(std::bit_ceil(
          static_cast<uint32_t>(std::clamp(2 * threads, 16, kMostShards)))),
      shards_(std::make_unique<Shard[]>(shard_count_)) {}

ThreadPool::~ThreadPool() {
  if (forked()) return;  // its threads and who held its locks are not here
  std::optional<pthread_t> monitor;
  std::optional<pthread_t> last;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    while (Worker* worker = idle_) {
      idle_ = worker->next_idle_;
      worker->granted_.store(Granted::kEnd);
      worker->woken_.store(1);
      FutexWakeOne(&worker->woken_);
    }
    if (threads_ == 0) empty_.store(1);
  }
  while (empty_.load() == 0) FutexWait(empty_, 0);
  {
    MutexLock lock(mutex_);
    last = ended_;
    monitor = monitor_;
  }
  if (last.has_value()) pthread_join(*last, nullptr);
  if (monitor.has_value()) {
    watch_.store(kEnded);
    FutexWakeOne(&watch_);
    pthread_join(*monitor, nullptr);
  }
}

absl::Status ThreadPool::status() const {
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

void ThreadPool::NumberThread() {
  internal::thread_number = threads_seen.fetch_add(1);
}

bool ThreadPool::SomethingLooksReady() const {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].looks_ready.load()) return true;
  }
  return false;
}

bool ThreadPool::SomethingIsReady() const {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].IsReady()) return true;
  }
  return false;
}

void ThreadPool::Send() {
  int active = active_.load();
  while (active < slots_) {
    if (active_.compare_exchange_weak(active, active + 1)) return Grant();
  }
  RouseMonitor();
}

// Finds a worker for a slot that is already counted. One that is woken counts
// as searching from here on, so that there is but one at a time on its way. One
// that must be made first counts itself: who knows how long that takes.
void ThreadPool::Grant() {
  Worker* idle = nullptr;
  Worker* fresh = nullptr;
  {
    MutexLock lock(mutex_);
    if (idle_ != nullptr) {
      idle = std::exchange(idle_, idle_->next_idle_);
      idle->has_slot_.store(true);
      idle->granted_.store(Granted::kSlot);
      searching_.fetch_add(1);
      idle->woken_.store(1);
    } else if (threads_ < max_threads_ &&
               (refusal_ == 0 || internal::Now() >= retry_at_)) {
      fresh = AddWorker();
    }
    if (fresh != nullptr) {
      fresh->has_slot_.store(true);
      fresh->granted_.store(Granted::kSlot);
    } else if (idle == nullptr) {
      active_.fetch_sub(1);
    }
  }
  if (idle != nullptr) return FutexWakeOne(&idle->woken_);
  // At the cap every worker is busy or blocked and will look for tasks before
  // it parks. Where the system refuses a thread, the monitor tries again.
  if (fresh == nullptr || StartWorker(fresh) != 0) RouseMonitor();
}

absl::Status ThreadPool::RunOnThread(TaskQueue& queue, Task& task,
                                     TaskKind kind) {
  Worker* worker = nullptr;
  bool idle = false;
  {
    MutexLock lock(mutex_);
    if (idle_ != nullptr) {
      idle = true;
      worker = std::exchange(idle_, idle_->next_idle_);
    } else if (threads_ >= max_threads_) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no thread for a task that needs one of its own: the pool has ",
          threads_, ", which is its max_threads"));
    } else if (worker = AddWorker(); worker == nullptr) {
      return absl::ResourceExhaustedError(
          "no memory for the thread of a task that needs one of its own");
    }
    worker->queue_ = &queue;
    worker->task_ = &task;
    worker->kind_ = kind;
    worker->granted_.store(Granted::kTask);
    if (idle) worker->woken_.store(1);
  }
  if (idle) {
    FutexWakeOne(&worker->woken_);
    return absl::OkStatus();
  }
  const int error = StartWorker(worker);
  return error == 0 ? absl::OkStatus() : RefusedThread(name_, error);
}

// Null where there is no memory: an exception would come when its task is in
// the queue already.
ThreadPool::Worker* ThreadPool::AddWorker() {
  auto* worker = new (std::nothrow) Worker(*this, started_);
  if (worker == nullptr) return nullptr;
  ++started_;
  ++threads_;
  worker->next_ = std::exchange(workers_, worker);
  return worker;
}

// pthread_create() instead of std::thread, whose constructor throws. Returns
// the errno.
int ThreadPool::StartWorker(Worker* worker) {
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, &RunWorker, worker);
  MutexLock lock(mutex_);
  refusal_ = error;
  if (error == 0) return 0;
  retry_at_ = internal::Now() + kPauseAfterRefusal;
  Worker** link = &workers_;
  while (*link != worker) link = &(*link)->next_;
  *link = worker->next_;
  if (worker->has_slot_.load()) active_.fetch_sub(1);
  delete worker;
  LeaveThreads();
  return error;
}

// The last one lets the destructor go on.
void ThreadPool::LeaveThreads() {
  if (--threads_ > 0 || !ending_) return;
  empty_.store(1);
  FutexWakeOne(&empty_);
}

void* ThreadPool::RunWorker(void* worker) {
  static_cast<Worker*>(worker)->Run();
  return nullptr;
}

// Waits for something to do. False if the thread is to end, and is no longer
// counted then.
bool ThreadPool::Park(Worker& worker) {
  TOCSIN_STEP("ThreadPool: a worker is about to park");
  bool spare;
  {
    MutexLock lock(mutex_);
    if (worker.has_slot_.exchange(false)) active_.fetch_sub(1);
    spare = threads_ > slots_;
    worker.granted_.store(ending_ ? Granted::kEnd : Granted::kNothing);
    worker.woken_.store(ending_ ? 1 : 0);
    if (!ending_) worker.next_idle_ = std::exchange(idle_, &worker);
  }
  // Perhaps this worker is the one that gets it.
  DispatchIfReady();
  const absl::Time until =
      spare ? internal::Now() + kSpareLife : absl::InfiniteFuture();
  while (worker.woken_.load(std::memory_order_acquire) == 0) {
    FutexWait(worker.woken_, 0, until);
    if (internal::Now() < until) continue;
    TOCSIN_STEP("ThreadPool: a spare thread has had its time");
    MutexLock lock(mutex_);
    if (worker.woken_.load() != 0) break;
    Worker** link = &idle_;
    while (*link != &worker) link = &(*link)->next_idle_;
    *link = worker.next_idle_;
    worker.granted_.store(Granted::kEnd);
    break;
  }
  if (worker.granted_.load() != Granted::kEnd) return true;
  std::optional<pthread_t> before;
  bool joined = false;
  {
    MutexLock lock(mutex_);
    Worker** link = &workers_;
    while (*link != &worker) link = &(*link)->next_;
    *link = worker.next_;
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

std::string ThreadPool::ThreadName(const std::string& suffix) const {
  return absl::StrCat(name_.substr(0, kThreadNameSize - suffix.size()), suffix);
}

void ThreadPool::Worker::Run() {
  internal::worker_slot = this;
  pthread_setname_np(pthread_self(), thread_name_.c_str());
  if (granted_.load() == Granted::kSlot) pool_.searching_.fetch_add(1);
  do {
    if (granted_.load() == Granted::kTask) {
      RunOwnTask();
    } else {
      ran_since_granted_ = false;
      RunTasks();
    }
  } while (pool_.Park(*this));
  delete this;
}

// Without a slot: it is not one of those that share the CPUs.
void ThreadPool::Worker::RunOwnTask() {
  ++blocked_;
  const TaskOptions* options = task_->options();
  const bool named = options != nullptr && !options->name.empty();
  if (named) {
    pthread_setname_np(pthread_self(),
                       options->name.substr(0, kThreadNameSize).c_str());
  }
  RunningTask running;
  queue_->BeginStarted(*task_, kind_, running);
  queue_->Perform(running);
  TaskQueue::EndAlone(running);
  if (named) {
    pthread_setname_np(pthread_self(), thread_name_.c_str());
  }
  --blocked_;
}

void ThreadPool::Worker::RunTasks() {
  shard_ = &pool_.ShardOfThread();
  searching_ = true;  // it has been counted
  while (KeepsSlot()) {
    RunOwnTasks();
    if (!RunOtherTask() && !shard_->looks_ready.load() && !Search()) break;
  }
  if (searching_) StopSearching();
}

// What became ready meanwhile was left to those who search, of whom this is
// perhaps the last.
void ThreadPool::Worker::StopSearching() {
  TOCSIN_STEP("ThreadPool: a worker is about to stop searching");
  searching_ = false;
  pool_.searching_.fetch_sub(1);
  pool_.DispatchIfReady();
}

// Stays on the look-out for some time. False if nothing came.
bool ThreadPool::Worker::Search() {
  if (!searching_) {
    searching_ = true;
    pool_.searching_.fetch_add(1);
  }
  return SpinUntil([this] { return pool_.SomethingLooksReady(); });
}

inline void ThreadPool::Worker::Perform(RunningTask& running) {
  ran_since_granted_ = true;
  tasks_.store(tasks_.load(std::memory_order_relaxed) + 1,
               std::memory_order_relaxed);
  running.queue().Perform(running);
}

// Whether to go on: not if those whose slot was given away are back, and there
// are more of us than slots. One that was just sent runs a task in any case.
inline bool ThreadPool::Worker::KeepsSlot() {
  if (!ran_since_granted_) return true;
  if (!has_slot_.load(std::memory_order_relaxed)) TakeSlot();
  return pool_.active_.load(std::memory_order_relaxed) <= pool_.slots_;
}

void ThreadPool::Worker::RunOwnTasks() {
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
    if (TaskQueue::End(running)) TaskQueue::Tell(*running.portion);
  }
}

// If what it carried over took less time than the carrying, the thread that it
// came from is better left alone for a while: it will have more by then.
void ThreadPool::Worker::HoldOff() {
  if (!std::exchange(carried_, false)) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - carried_at_ > kCarrying) {
    hold_off_ = {};
    return;
  }
  hold_off_ = std::min(2 * hold_off_ + kCarrying, kLongestHoldOff);
  while (std::chrono::steady_clock::now() - now < hold_off_) internal::Pause();
}

// Runs a task of another shard, of which it takes some more over. False if
// there was none.
bool ThreadPool::Worker::RunOtherTask() {
  HoldOff();
  const std::span<Shard> shards = pool_.shards();
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
      pool_.DispatchIfReady();
    }
    Perform(running);
    TaskQueue::EndAlone(running);
    return true;
  }
  return false;
}

void ThreadPool::Worker::GiveSlot() {
  if (!has_slot_.exchange(false)) return;
  pool_.active_.fetch_sub(1);
  pool_.DispatchIfReady();
}

void ThreadPool::RouseMonitor() {
  uint32_t watch = watch_.load();
  if (watch == kDormant) {
    if (watch_.compare_exchange_strong(watch, kWatching)) {
      FutexWakeOne(&watch_);
    }
  } else if (watch == kNoThread && max_threads_ > 0 &&
             watch_.compare_exchange_strong(watch, kWatching)) {
    auto run = [](void* pool) -> void* {
      static_cast<ThreadPool*>(pool)->RunMonitor();
      return nullptr;
    };
    pthread_t thread;
    // Under the mutex, so that the destructor finds it.
    MutexLock lock(mutex_);
    const int error = pthread_create(&thread, nullptr, run, this);
    if (error == 0) {
      monitor_ = thread;
    } else {
      refusal_ = error;
      watch_.store(kNoThread);
    }
  }
}

void ThreadPool::RunMonitor() {
  pthread_setname_np(pthread_self(), ThreadName("-monitor").c_str());
  while (true) {
    TOCSIN_STEP("ThreadPool: the monitor looks");
    const bool stuck = SomethingIsStuck();
    LookAtWorkers(stuck);
    if (stuck) {
      active_.fetch_add(1);
      Grant();
    } else if (SomethingIsReady()) {
      Dispatch();  // where the system refused a thread before
    } else {
      TOCSIN_STEP("ThreadPool: the monitor is about to go dormant");
      uint32_t watching = kWatching;
      watch_.compare_exchange_strong(watching, kDormant);
      if (!SomethingIsReady()) FutexWait(watch_, kDormant);
      uint32_t dormant = kDormant;
      watch_.compare_exchange_strong(dormant, kWatching);
    }
    const absl::Time next_look = internal::Now() + kBetweenLooks;
    while (watch_.load() != kEnded && internal::Now() < next_look) {
      FutexWait(watch_, kWatching, next_look);
    }
    if (watch_.load() == kEnded) return;
  }
}

bool ThreadPool::SomethingIsStuck() {
  bool stuck = false;
  for (size_t i = 0; i < shard_count_; ++i) {
    Shard& shard = shards_[i];
    if (!shard.looks_ready.load(std::memory_order_relaxed)) continue;
    MutexLock lock(shard.lock);
    stuck |= TaskQueue::Stuck(shard);
  }
  return stuck;
}

// If something is stuck, one that runs the same task as at the last look loses
// its slot. It takes another when that task ends.
void ThreadPool::LookAtWorkers(bool stuck) {
  MutexLock lock(mutex_);
  for (Worker* worker = workers_; worker != nullptr; worker = worker->next_) {
    const uint64_t tasks = worker->tasks_.load(std::memory_order_relaxed);
    const bool blocked =
        std::exchange(worker->tasks_at_last_look_, tasks) == tasks;
    if (stuck && blocked && worker->has_slot_.exchange(false)) {
      active_.fetch_sub(1);
      stuck = false;
    }
  }
}

}  // namespace tocsin
