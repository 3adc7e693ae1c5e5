// A thread of a pool that runs tasks.
//
// Its members are called on that thread only; other threads use WorkerRecord.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WORKER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WORKER_H_

#include <chrono>
#include <cstddef>
#include <string>

#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/worker_slot.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

class Worker final : public WorkerRecord, public WorkerSlot {
 public:
  Worker(WorkerSlots& slots, size_t number);

  // Deletes this before it returns.
  void Run() override;

  // Gives its slot to others, until the last Return().
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
  bool RunTaskInTurn();
  bool TakeOwn(RunningTask& running);
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

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WORKER_H_
