#include "tocsin/concurrency/internal/pool_monitor.h"

#include <cstdint>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

namespace {

// The monitor acts on what it finds unchanged at two looks: so after a tenth of
// a second at most.
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
    // Under the mutex, so that End() finds the thread.
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
      slots_.Dispatch();  // if the system refused a thread before
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
    const Instant next_look = After(kBetweenLooks);
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

// If something is stuck, a worker that runs the same task as at the last look
// loses its slot. It takes one again when that task ends.
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

}  // namespace tocsin::inline v0_2::internal
