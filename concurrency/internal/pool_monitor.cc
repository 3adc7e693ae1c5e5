#include "tocsin/concurrency/internal/pool_monitor.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/birth_state.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

namespace {

// The monitor acts on what it finds unchanged at two looks: so after a tenth of
// a second at most.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(50);
// A second of looks, and not of a clock: a process that was stopped meanwhile,
// or got no CPU, has not waited for its tasks.
constexpr int kQuietLooks = 20;
// A worker that polls uses some.
constexpr int kBlockedUsesLessThanOneIn = 10;

// It reads some files.
constexpr absl::Duration kBetweenLooksAtSlots = absl::Seconds(1);

constexpr std::chrono::nanoseconds kZero{0};

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

// The thread waits until the caller has set the state: who rouses it before
// waits for the mutex.
int PoolMonitor::Start() {
  auto run = [](void* monitor) -> void* {
    BeBorn();
    static_cast<PoolMonitor*>(monitor)->Run();
    return nullptr;
  };
  pthread_t thread;
  const int error = CreateLikeMain(thread, run, this);
  if (error != 0) return error;
  thread_ = thread;
  slots_.watch_.store(WorkerSlots::kDormant);
  FutexWakeOne(&slots_.watch_);
  return 0;
}

void PoolMonitor::Rouse() {
  if (slots_.watch_.load() == WorkerSlots::kNoThread) {
    if (slots_.max_threads_ == 0) return;
    MutexLock lock(slots_.mutex_);
    if (!slots_.HaveMonitor()) return;
  }
  uint32_t dormant = WorkerSlots::kDormant;
  if (slots_.watch_.compare_exchange_strong(dormant, WorkerSlots::kWatching)) {
    FutexWakeOne(&slots_.watch_);
  }
}

void PoolMonitor::Run() {
  pthread_setname_np(pthread_self(), slots_.ThreadName("-monitor").c_str());
  while (slots_.watch_.load() == WorkerSlots::kNoThread) {
    FutexWait(slots_.watch_, WorkerSlots::kNoThread);
  }
  BeDormant();
  while (WaitForNextLook()) {
    TOCSIN_STEP("PoolMonitor: looks");
    LookAtSlots();
    const bool stuck = SomethingIsStuck();
    LookAtWorkers(stuck);
    if (stuck) {
      slots_.SendBelow(AtLeastOneSlot());
    } else if (slots_.SomethingIsReady()) {
      slots_.Dispatch();  // if the system refused a thread before
    } else {
      TOCSIN_STEP("PoolMonitor: about to go dormant");
      quiet_looks_ = 0;
      uint32_t watching = WorkerSlots::kWatching;
      slots_.watch_.compare_exchange_strong(watching, WorkerSlots::kDormant);
      if (!slots_.SomethingIsReady()) BeDormant();
    }
    TOCSIN_STEP("PoolMonitor: has looked");
  }
}

void PoolMonitor::BeDormant() {
  FutexWait(slots_.watch_, WorkerSlots::kDormant);
}

// False if the thread is to end.
bool PoolMonitor::WaitForNextLook() {
  uint32_t dormant = WorkerSlots::kDormant;
  slots_.watch_.compare_exchange_strong(dormant, WorkerSlots::kWatching);
  const Instant next_look = After(kBetweenLooks);
  while (slots_.watch_.load() != WorkerSlots::kEnded && Now() < next_look) {
    FutexWait(slots_.watch_, WorkerSlots::kWatching, next_look);
  }
  return slots_.watch_.load() != WorkerSlots::kEnded;
}

// More slots are filled by this look; of fewer the workers hear with their next
// task.
void PoolMonitor::LookAtSlots() {
  const Instant now = Now();
  if (now < Add(slots_known_since_, kBetweenLooksAtSlots)) return;
  slots_known_since_ = now;
  if (const std::optional<int> slots = slots_.ChangedSlots()) {
    slots_.slot_count_.store(*slots);
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

// If something is stuck, takes the slot of a worker that was blocked from the
// last look to this one, or of one that computes if no task was started for so
// many looks. That worker takes a slot again when its task ends; one that was
// blocked and computes now gets it back here.
void PoolMonitor::LookAtWorkers(bool stuck) {
  const Instant now = Now();
  const std::chrono::nanoseconds little =
      (now - std::exchange(last_look_, now)) / kBlockedUsesLessThanOneIn;
  WorkerRecord* blocked = nullptr;
  WorkerRecord* computing = nullptr;
  int overtaken = 0;
  bool started = false;
  MutexLock lock(slots_.mutex_);
  slots_.full_ = stuck && slots_.idle_ == nullptr &&
                 slots_.threads_ >= slots_.max_threads_;
  for (WorkerRecord* worker = slots_.workers_; worker != nullptr;
       worker = worker->next) {
    const uint64_t tasks = worker->tasks.load(std::memory_order_relaxed);
    const bool same_task =
        std::exchange(worker->tasks_at_last_look, tasks) == tasks;
    started |= !same_task;
    const WorkerRecord::Slot slot = worker->slot.load();
    const auto used = slot == WorkerRecord::kNone
                          ? std::nullopt
                          : std::optional(worker->cpu.Used().value_or(kZero));
    const auto before = std::exchange(worker->cpu_at_last_look, used);
    if (!same_task || !used.has_value() || !before.has_value()) continue;
    const bool uses_cpu = *used - *before >= little;
    switch (slot) {
      case WorkerRecord::kNone:
        break;
      case WorkerRecord::kHas:
        if (!stuck) break;
        if (uses_cpu || worker->cpu.IsRunnable()) {
          computing = worker;
        } else {
          blocked = worker;
        }
        break;
      case WorkerRecord::kBlocked:
        if (uses_cpu) Move(*worker, slot, WorkerRecord::kHas);
        break;
      case WorkerRecord::kOvertaken:
        if (uses_cpu || worker->cpu.IsRunnable()) {
          ++overtaken;
        } else {
          Move(*worker, slot, WorkerRecord::kBlocked);
        }
        break;
    }
  }
  quiet_looks_ = started ? 0 : quiet_looks_ + 1;
  if (!stuck) return;
  if (blocked != nullptr) {
    Move(*blocked, WorkerRecord::kHas, WorkerRecord::kBlocked);
  } else if (quiet_looks_ >= kQuietLooks && computing != nullptr &&
             slots_.active_.load() + overtaken <
                 2 * int64_t{AtLeastOneSlot()}) {
    quiet_looks_ = 0;
    Move(*computing, WorkerRecord::kHas, WorkerRecord::kOvertaken);
  }
}

// Unless the worker itself has changed it meanwhile.
void PoolMonitor::Move(WorkerRecord& worker, WorkerRecord::Slot from,
                       WorkerRecord::Slot to) {
  if (!worker.slot.compare_exchange_strong(from, to)) return;
  slots_.active_.fetch_add((to == WorkerRecord::kHas) -
                           (from == WorkerRecord::kHas));
}

}  // namespace tocsin::inline v0_2::internal
