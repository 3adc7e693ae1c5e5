// The threads that run the tasks of task groups.
//
// A TaskGroup uses ThreadPool::Default() unless it is given another pool; few
// programs have to name one.
//
//   absl::StatusOr<std::unique_ptr<ThreadPool>> pool =
//       ThreadPool::Create({.name = "io", .threads = 4});
//   if (!pool.ok()) return pool.status();
//   TaskGroup group({.pool = pool->get()});
//
// As many as `threads` tasks run at a time on its threads. A worker that sleeps
// in a wait of the library, or in a BlockingRegion, does not count: another
// takes its place. Nor does one that is blocked elsewhere, once a task has
// found no worker for a tenth of a second: it was at the same task for so long,
// used less than a tenth of a CPU, and does not wait for one. When such workers
// go on, more than `threads` run; each that ends its task then stops, until
// there are no more than that. The surplus threads end after a while.
//
// Where none is blocked, a task waits until another ends. But for each second
// in which its threads start none, the pool lets one more run, up to twice
// `threads` (two with kRunInWait). So every spawned task starts in the end,
// even if all that run block for ever, or fewer than twice `threads` compute
// for ever; tasks that compute delay others all the same. At `max_threads` no
// more threads are made. Then the wait of its group may have to run a task; it
// also does so if the system refuses all threads.
//
// If the system refuses a thread, the pool asks again every tenth of a second
// while a task needs one. Its first thread, which runs no tasks, sees to that.
// If that is refused, the pool has no threads, and asks again with each task.
//
// Ready tasks take turns, so that how long one waits is bounded in tasks. Say
// that T threads have spawned tasks that are ready, and that these belong to G
// groups. Of the tasks that a thread has spawned into a group, the oldest
// starts before any thread of the pool has started 1,025 * T * G others. (A
// worker that runs out of tasks takes some over, as if it had spawned them; T
// is at most 64.) So a group, or a thread, that always has tasks ready keeps no
// other waiting. Tasks that a Wait() runs, or that have a thread of their own,
// do not count. A Wait() keeps the bound among the tasks of its group.
//
// It is no bound on time. A task should not compute for long while it holds
// what others need: a task that has started runs to its end.
//
// Its threads do not depend on the thread that makes them necessary. They begin
// in the state in which the main thread would make them: with its CPU affinity,
// scheduling policy, priority, nice value and I/O priority. They block the
// signals that living ScopedSignalBlocks ask for, on whichever threads, and no
// others; not what a program blocks by itself, to wait for it in one place. The
// floating-point environment is the default, also in a program built with
// -ffast-math. The timer slack is what the main thread had when it last made a
// thread of a pool, or the loading thread when the library was loaded. A task
// that changes its thread changes it back before it ends.
//
// Some things a thread keeps for good from the one that makes it: user ids,
// groups and capabilities; seccomp filters and no_new_privs; namespaces; a
// working directory, root and umask of its own (unshare(CLONE_FS)); descriptors
// of its own (unshare(CLONE_FILES)); a nice value, affinity or policy that it
// may not change back. A thread in which one of them is not the main thread's
// makes no thread for a pool. The pool goes on as if the system had refused
// one: status() says which it was, and the tasks start on the threads that
// there are, on one that another thread makes when it spawns, or in Wait(). A
// program that spawns from such threads lets its main thread spawn first. Not
// looked at are cgroups of single threads, labels of security modules and
// memory policies; and nothing is once the main thread has ended.
//
// A task returns or throws. Where it calls pthread_exit(), or a
// pthread_cancel() takes effect in it, the program ends by SIGABRT with a
// message, because what waits for the task would wait for ever. (In a library
// that was compiled without exceptions nobody notices, and it does wait.)
//
// A queued task takes about 72 bytes, and what its closure has above 40. This
// memory goes back to the system when the tasks have ended, except for 64 MiB
// that the next tasks of the process take, and for pieces of 64 KiB of which a
// thread has a part at hand (at most 128 tasks for each). A pool that is
// destroyed gives the 64 MiB back, too.
//
// Threads start when there is something for them to do. A pool without tasks
// uses no CPU. Groups must end before their pool. All members may be called
// from any thread. In a forked child a pool of the parent is dead: its groups
// answer with kFailedPrecondition; make another one there.
#ifndef TOCSIN_CONCURRENCY_THREAD_POOL_H_
#define TOCSIN_CONCURRENCY_THREAD_POOL_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tocsin::inline v0_2 {

namespace internal {
class WorkerSlots;
}  // namespace internal

struct ThreadPoolOptions {
  static constexpr int kRunInWait = 0;

  // The name of its threads in ps and top, followed by a number.
  std::string name = "tocsin";
  // How many tasks run at a time, as far as they do not block. By default the
  // number of CPUs that the process may use, by the affinity of its main
  // thread and the quota of its cgroup, but at most max_threads. The quota may
  // change: a pool that has more tasks than threads looks at it every second;
  // tasks that run go on.
  // With kRunInWait, groups run their tasks in Wait(), and a spawned task gets
  // a thread only if no wait takes it.
  std::optional<int> threads = {};
  // The maximum number of threads for tasks, including blocked and idle ones.
  int max_threads = 512;
};

class ThreadPool {
 public:
  using Options = ThreadPoolOptions;

  // The pool of groups that are given none; made at first use, never destroyed.
  static ThreadPool& Default();

  // kInvalidArgument for a negative number, or more threads than max_threads.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(
      Options options = {});

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  // Waits for its threads to end. No group may use it any more; if a task of
  // one has not ended, the program ends with a message, also at exit() in a
  // task.
  ~ThreadPool();

  // OK, or what keeps the pool from working as promised: kResourceExhausted if
  // the system refused the last thread asked for, or if max_threads are blocked
  // or busy and a ready task has found none for a tenth of a second;
  // kFailedPrecondition if the thread that asked for one keeps it from being
  // like the main thread, or in a forked child.
  absl::Status status() const;

 private:
  friend class TaskSet;

  explicit ThreadPool(std::unique_ptr<internal::WorkerSlots> slots);

  const std::unique_ptr<internal::WorkerSlots> slots_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_THREAD_POOL_H_
