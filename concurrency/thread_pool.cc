#include "tocsin/concurrency/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <optional>
#include <utility>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/internal/pool_monitor.h"
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
    EndWorkers();
    monitor_.End();
  }

 private:
  static constexpr int kAsAsked = -1;

  internal::WorkerRecord* NewWorker(size_t number) override {
    return new (std::nothrow) internal::Worker(*this, number);
  }
  void RouseMonitor() override { monitor_.Rouse(); }
  int StartMonitor() override { return monitor_.Start(); }
  // By the quota of now and the affinity of then: that of the monitor, which
  // asks, is no other's.
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
