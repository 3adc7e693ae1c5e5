// The pools that exist, and the threads that have used one: where a report
// looks for tasks (task_tree.h).
//
// Any thread may enter and leave. A forked child begins with the thread that
// forked alone.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_ROSTER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_ROSTER_H_

#include <sys/types.h>

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/wait_note.h"

namespace tocsin::inline v0_2::internal {

class Roster {
 public:
  // The links of something that is listed.
  struct Entry {
    Entry* next = nullptr;
    Entry* previous = nullptr;
    bool listed = false;
  };

  struct Pool : Entry {};

  // What others see of a thread.
  struct Thread : Entry {
    pid_t id = 0;
    bool worker = false;
    const std::atomic<RunningTask*>* task = nullptr;
    const WaitNote* wait = nullptr;
  };

  static void Enter(Pool& pool) ABSL_LOCKS_EXCLUDED(mutex);
  // Only in the process that it entered in.
  static void Leave(Pool& pool) ABSL_LOCKS_EXCLUDED(mutex);
  // This thread; it leaves when it ends.
  static void EnterThread(bool worker = false) ABSL_LOCKS_EXCLUDED(mutex);

  // Held by who looks, before the lock of any shard.
  static SlimMutex mutex;
  static Entry* pools ABSL_GUARDED_BY(mutex);
  static Entry* threads ABSL_GUARDED_BY(mutex);

 private:
  struct ThisThread;
  struct Fork;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_ROSTER_H_
