#include "tocsin/concurrency/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <optional>
#include <span>
#include <utility>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/internal/held_shards.h"
#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/pool_monitor.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/worker.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2 {

namespace {

class Pool final : public internal::WorkerSlots {
 public:
  explicit Pool(ThreadPool::Options options)
      : WorkerSlots(
            std::move(options.name),
            options.threads.has_value()
                ? *options.threads
                : std::min(internal::AvailableCpus(), options.max_threads),
            options.max_threads),
        most_slots_(
            options.threads.has_value()
                ? kAsAsked
                : std::min(internal::CpusOfAffinity(), options.max_threads)),
        monitor_(*this) {}
  ~Pool() override {
    if (forked()) return;  // its threads, and holders of its locks, are gone
    DieIfUsed();
    EndWorkers();
    monitor_.End();
    internal::Task::GiveBackMemory();
  }

 private:
  static constexpr int kAsAsked = -1;
  // It would wait for a task that may wait for it, or leave a group without it.
  void DieIfUsed() const;
  bool IsUsed() const;

  internal::WorkerRecord* NewWorker(size_t number) override {
    return new (std::nothrow) internal::Worker(*this, number);
  }
  void RouseMonitor() override { monitor_.Rouse(); }
  // Its mutex is the monitor's by another name.
  int StartMonitor() override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return monitor_.Start();
  }
  // By the quota of now and the affinity of then.
  std::optional<int> ChangedSlots() override {
    if (most_slots_ == kAsAsked) return std::nullopt;
#ifdef ABSL_HAVE_EXCEPTIONS
    try {
      return std::min(internal::CpuQuota(), most_slots_);
    } catch (const std::bad_alloc&) {
      return std::nullopt;
    }
#else
    return std::min(internal::CpuQuota(), most_slots_);
#endif
  }

  const int most_slots_;

  internal::PoolMonitor monitor_;
};

bool Pool::IsUsed() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  internal::MutexLock lock(internal::Roster::mutex);
  const internal::HeldShards held;
  const std::span<internal::Shard> mine = shards();
  for (internal::Roster::Entry* e = internal::Roster::threads; e != nullptr;
       e = e->next) {
    const auto& thread = static_cast<const internal::Roster::Thread&>(*e);
    const internal::RunningTask* r = thread.task->load();
    for (; r != nullptr && held.Have(r->local->shard); r = r->outer) {
      const internal::Shard* const at = &r->local->shard;
      if (at >= mine.data() && at < mine.data() + mine.size()) return true;
    }
  }
  for (const internal::Shard& shard : mine) {
    if (shard.first_ready != nullptr) return true;
    for (const auto* p = shard.accounts; p != nullptr; p = p->next) {
      if (p->unfinished.load() != 0) return true;
    }
  }
  return false;
}

void Pool::DieIfUsed() const {
  if (!IsUsed()) return;
  std::fprintf(
      stderr,
      "tocsin: the ThreadPool \"%s\" was destroyed before a task of a "
      "group that uses it has ended. Destroy groups before their pool. "
      "Where exit() in a task destroys a static pool, let main() return "
      "instead, or destroy that pool never.\n",
      ThreadName("").c_str());
  std::abort();
}

}  // namespace

ThreadPool& ThreadPool::Default() {
  static ThreadPool& pool = *[] {
    auto* made = new ThreadPool(std::make_unique<Pool>(Options()));
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
  return std::unique_ptr<ThreadPool>(
      new ThreadPool(std::make_unique<Pool>(std::move(options))));
}

ThreadPool::ThreadPool(std::unique_ptr<internal::WorkerSlots> slots)
    : slots_(std::move(slots)) {}

ThreadPool::~ThreadPool() = default;

absl::Status ThreadPool::status() const { return slots_->status(); }

}  // namespace tocsin::inline v0_2
