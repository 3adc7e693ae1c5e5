// Why each circle is found, and nothing else is taken for one:
//
// Each wait of a circle enters the list, as it lasts, and stays there until it
// is over. The last one to enter searches under the list's lock and finds the
// others there. What it reads of them stands still: the tasks below a wait on
// its thread's stack end only after the wait, which leaves the list first. A
// group of which such a task has not ended has not ended either. So where one
// leads to the other all around, none can end.
#include "tocsin/concurrency/internal/task_wait.h"

#include <pthread.h>

#include <new>
#include <utility>

#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_queue.h"

namespace tocsin::inline v0_2::internal {

constinit SlimMutex TaskWait::mutex_;
constinit TaskWait* TaskWait::first_ = nullptr;

// The waits of the parent are not in the child.
struct TaskWait::Fork {
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    ::new (&mutex_) SlimMutex;
    first_ = nullptr;
  }
  [[maybe_unused]] static const int registered;
};

const int TaskWait::Fork::registered =
    pthread_atfork(nullptr, nullptr, InChild);

TaskWait::TaskWait(TaskQueue& awaited, const RunningTask& in,
                   bool may_be_refused)
    : awaited_(awaited), in_(in), may_be_refused_(may_be_refused) {
  {
    MutexLock lock(mutex_);
    next_ = std::exchange(first_, this);
    if (TaskWait* const refused = FindRefusedInCircle(); refused != nullptr) {
      refused->refused_.store(true, std::memory_order_release);
      if (refused != this) refused->awaited_.WakeWaiters();
    }
  }
  TOCSIN_STEP("TaskWait: has looked for a circle");
}

TaskWait::~TaskWait() {
  MutexLock lock(mutex_);
  TaskWait** link = &first_;
  while (*link != nullptr && *link != this) link = &(*link)->next_;
  if (*link != nullptr) *link = next_;
}

bool TaskWait::Delays(const TaskQueue& queue) const {
  for (const RunningTask* r = &in_; r != nullptr; r = r->outer) {
    if (&r->queue() == &queue) return true;
  }
  return false;
}

// Null if this one closes no circle.
TaskWait* TaskWait::FindRefusedInCircle() {
  for (TaskWait* w = first_; w != nullptr; w = w->next_) {
    w->found_by_ = w->found_next_ = nullptr;
  }
  TaskWait* last = this;
  for (TaskWait* at = this; at != nullptr; at = at->found_next_) {
    for (TaskWait* w = first_; w != nullptr; w = w->next_) {
      if (w->found_by_ != nullptr || w->refused()) continue;
      if (!w->Delays(at->awaited_)) continue;
      w->found_by_ = at;
      if (w != this) {
        last = last->found_next_ = w;
        continue;
      }
      do {
        if (w->may_be_refused_) return w;
        w = w->found_by_;
      } while (w != this);
      return this;
    }
  }
  return nullptr;
}

}  // namespace tocsin::inline v0_2::internal
