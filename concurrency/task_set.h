// Tasks that an object owns: they run on other threads and end before it does.
//
//   class Cache {
//    public:
//     Cache() { tasks_.Spawn([this] { Refresh(); }); }
//    private:
//     TaskSet tasks_;  // last: ends before the rest is destroyed
//   };
//
// For tasks of a block there is TaskGroup, which is a TaskSet that its thread
// is in (task_group.h). A function that spawns into either takes a TaskSet&.
//
// No task outlives its set. Wait() returns once the last one has ended and its
// closure is gone, and so does the destructor, which cancels first. The first
// error cancels the others, and Wait() returns it.
//
// A task is a closure that takes nothing or a std::stop_token and returns
// nothing or an absl::Status. It runs in the set's scope: when that is
// cancelled, the waits in the tasks return at once, and tasks that have not
// started never do. A task that then returns what its scope ended a wait with,
// or CheckCancelled(), has not failed: the status is marked with the scope (see
// cancel_scope.h). A kCancelled without the mark is an error. A task that
// throws has failed, and the exception is kept.
//
// The scope of a TaskSet has no parent, wherever the set is made: only
// Cancel(), an error, or scope() cancels it. Cancelling the set is absorbed:
// Wait() returns OK after Cancel().
//
// Any member may be called from any thread, also from tasks of the set, as long
// as the set exists. It may be made on one thread, waited for on another and
// destroyed on a third. Wait() runs tasks of its own set, on the stack of the
// caller, and never those of another; so sets may be nested on any number of
// threads. How deep depends on the stack, as for any recursion: a task that
// makes a set and waits for it needs at most 3 KiB for both, besides what it
// uses itself. So 2,700 of them, one in the other, fit into 8 MiB. (Under a
// sanitizer they need more.) Where the stack ends, the program ends by SIGSEGV.
#ifndef TOCSIN_CONCURRENCY_TASK_SET_H_
#define TOCSIN_CONCURRENCY_TASK_SET_H_

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/group_state.h"
#include "tocsin/concurrency/started.h"
#include "tocsin/concurrency/task_failure.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/task_options.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin::inline v0_2 {

struct TaskSetOptions {
  static constexpr int kUnlimited = 0;

  // Where the tasks run; null is ThreadPool::Default().
  ThreadPool* pool = nullptr;
  // For error messages.
  std::string name = {};
  // How many tasks run at a time. With a limit they start in the order they
  // were spawned, with kUnlimited in any order. Background tasks and those of
  // Start() do not count. A task that waits for another by its TaskHandle may
  // run that one meanwhile, in its own place.
  // A set with a negative limit starts none: Spawn() is refused, and Wait()
  // returns kInvalidArgument.
  int max_running = kUnlimited;
  // Whether a task that fails cancels the others.
  bool cancel_on_error = true;
};

class TaskSet {
 public:
  using Options = TaskSetOptions;

  TaskSet();
  explicit TaskSet(Options options);
  TaskSet(const TaskSet&) = delete;
  TaskSet& operator=(const TaskSet&) = delete;
  // Cancels the tasks that are left and waits for them to end. Errors that
  // neither Wait() nor failures() has returned are lost.
  ~TaskSet();

  // Runs f() or f(std::stop_token) at some later time, on a thread of the pool
  // or in Wait(). On a set that is closed, `f` is destroyed at once, and the
  // refusal is kept in failures(), with kFailedPrecondition.
  template <typename F>
  void Spawn(F&& f) {
    state_.Spawn(std::forward<F>(f));
  }
  template <typename F>
  void Spawn(F&& f, TaskOptions options) {
    state_.Spawn(std::forward<F>(f), std::move(options));
  }

  // The same for a task that the others do not wait for: it starts at once, on
  // a thread of its own, and is cancelled once all others have ended and a
  // thread waits for the set. If the system refuses the thread, the set fails
  // with kResourceExhausted; if this thread may make none for the pool (see
  // thread_pool.h), with kFailedPrecondition.
  template <typename F>
  void SpawnBackground(F&& f, TaskOptions options = {}) {
    state_.SpawnBackground(std::forward<F>(f), std::move(options));
  }

  // The same as Spawn() for a task that returns something: an R, nothing, an
  // absl::Status or an absl::StatusOr<R>. Its error is one of the set, too.
  template <typename F>
  auto SpawnWithResult(F&& f, TaskOptions options = {}) {
    return TaskHandle(
        state_.SpawnWithResult(std::forward<F>(f), std::move(options)));
  }

  // Runs f(started) on a thread of its own. Returns the value as soon as f
  // calls started(value); f then goes on as a task like any other. If f does
  // not call it, returns an error, which is not one of the set: that of the
  // task; kFailedPrecondition if the task ended without an error, the set is
  // closed, or this thread may make none for the pool (see thread_pool.h);
  // kResourceExhausted if the system refuses the thread. If the current scope
  // is cancelled first, cancels the task and waits for its end.
  // Start<void>() returns an absl::Status.
  template <typename T, typename F>
  std::conditional_t<std::is_void_v<T>, absl::Status, absl::StatusOr<T>> Start(
      F&& f, TaskOptions options = {}) {
    return state_.Start<T>(
        [f = std::forward<F>(f)](auto starting) mutable -> decltype(auto) {
          Started<T> started(std::move(starting));
          return f(started);
        },
        std::move(options));
  }

  // Waits for all tasks, including those that are spawned while it waits, then
  // closes the set. Returns the first error, or OK; for a TaskGroup also what
  // cancelled a scope around it. A later call returns the same, also if Spawn()
  // was refused in between.
  //
  // No scope ends this wait early: it ends when the tasks do, and what cancels
  // their scope ends their waits. kFailedPrecondition if called by a task that
  // it would have to wait for, or by the destructor of a task that never
  // started, or in a forked child. Where tasks of several sets wait for each
  // other in a circle, one of these waits returns that, after a tenth of a
  // second or more; destructors that wait in such a circle, and nothing else,
  // end the program with a message.
  absl::Status Wait() { return state_.Wait(); }

  // Cancels all tasks and returns at once. Tasks that have not started are
  // destroyed, on this thread. The set does not end before this is through.
  void Cancel(absl::Status reason = absl::CancelledError()) {
    state_.Cancel(std::move(reason));
  }
  // The same, and tells how long the clean-up of the tasks may take (see
  // CleanUpScope).
  void Cancel(absl::Status reason, absl::Duration grace) {
    state_.Cancel(std::move(reason), grace);
  }

  // The failures up to now in the order they happened. If there are more than
  // kFailuresKept, these are the first ones; but if none of them threw, the
  // last one kept is the first that did. failure_count() counts all.
  static constexpr size_t kFailuresKept = 100;
  std::vector<TaskFailure> failures() const { return state_.failures(); }
  size_t failure_count() const { return state_.failure_count(); }

  // Throws the exception of the first task that threw one, if any did. Call it
  // after Wait().
  void RethrowFirst() const { state_.RethrowFirst(); }

  // The names of the tasks that have not ended, running ones first.
  std::vector<std::string> running() const { return state_.running(); }

  // The scope that the tasks run in.
  CancelScope& scope() { return scope_; }

 protected:
  // Makes the scope a child of the thread's current one, and the thread enters
  // it.
  struct Entered {};
  explicit TaskSet(Entered);
  TaskSet(Entered, Options options);

  absl::Status RunBody(absl::FunctionRef<absl::Status()> body) {
    return state_.RunBody(body);
  }

 private:
  static auto& SlotsOf(ThreadPool* pool);

  CancelScope scope_;  // before state_, whose end waits for the tasks in it
  internal::GroupState state_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_SET_H_
