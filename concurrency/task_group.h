// Tasks that run on other threads and end before the block that started them.
//
//   absl::Status ReadAll(const std::vector<std::string>& paths) {
//     TaskGroup group;
//     for (const std::string& path : paths) {
//       group.Spawn([&path] { return Read(path); });
//     }
//     return group.Wait();
//   }
//
// No task outlives its group. Wait() returns once the last one has ended and
// its closure is gone, and so does the destructor, which cancels first. The
// first error cancels the others, and Wait() returns it.
//
// A task is a closure that takes nothing or a std::stop_token and returns
// nothing or an absl::Status. It runs in the group's scope, a child of the
// scope that the group was made in: when either is cancelled, the waits in the
// tasks return at once, and tasks that have not started never do. That a task
// then ends with the kCancelled of its scope is no error; nor is its
// kDeadlineExceeded, where a deadline cancelled the scope. A task that throws
// has failed, and the exception is kept.
//
// Cancelling the group is absorbed: Wait() returns OK after Cancel(). When a
// scope around the group was cancelled, Wait() returns that, kCancelled or
// kDeadlineExceeded, unless a task has failed: then it returns that.
//
// Any member may be called from any thread, also from tasks of the group, as
// long as the group exists. A group may be made on one thread, waited for on
// another and destroyed on a third. Wait() runs tasks of its own group, on the
// stack of the caller, and never those of another; so groups may be nested to
// any depth on any number of threads.
#ifndef TOCSIN_CONCURRENCY_TASK_GROUP_H_
#define TOCSIN_CONCURRENCY_TASK_GROUP_H_

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

namespace tocsin {

class TaskGroup final {
 public:
  struct Options {
    // Where the tasks run; null is ThreadPool::Default().
    ThreadPool* pool = nullptr;
    // For error messages.
    std::string name = {};
    // How many tasks run at a time, which then start in the order they were
    // spawned; 0 is no limit, and any order. Services and tasks of Start() do
    // not count.
    int max_running = 0;
    // Whether a task that fails cancels the others.
    bool cancel_on_error = true;
  };

  TaskGroup();
  explicit TaskGroup(Options options);
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  // Cancels the tasks that are left and waits for them to end. Errors that
  // nobody asked for by then are gone.
  ~TaskGroup();

  // Runs f() or f(std::stop_token) at some later time, on a thread of the pool
  // or in Wait(). On a group that is closed, `f` is destroyed at once, and the
  // refusal is kept as a failure with kFailedPrecondition, which Wait() and
  // failures() report.
  template <typename F>
  void Spawn(F&& f) {
    state_.Spawn(std::forward<F>(f));
  }
  template <typename F>
  void Spawn(F&& f, TaskOptions options) {
    state_.Spawn(std::forward<F>(f), std::move(options));
  }

  // The same for a task that serves the others: it starts at once, on a thread
  // of its own, and is cancelled once all others have ended and somebody waits.
  // Where no thread can be had the group fails with kResourceExhausted.
  template <typename F>
  void SpawnService(F&& f, TaskOptions options = {}) {
    state_.SpawnService(std::forward<F>(f), std::move(options));
  }

  // The same as Spawn() for a task that returns something: an R, nothing, an
  // absl::Status or an absl::StatusOr<R>. Its error is one of the group, too.
  template <typename F>
  auto SpawnWithResult(F&& f, TaskOptions options = {}) {
    return TaskHandle(
        state_.SpawnWithResult(std::forward<F>(f), std::move(options)));
  }

  // Runs f(started) on a thread of its own, and returns as soon as it calls
  // started(value), with that value, while it goes on as a task like any other.
  // Else returns its error, which then is none of the group: what it ended
  // with before it called started(); kFailedPrecondition if it ended well
  // without, or the group is closed; kResourceExhausted if no thread can be
  // had. If the current scope is cancelled meanwhile, the task is cancelled and
  // waited for. Start<void>() returns an absl::Status.
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

  // Waits for all tasks, those spawned meanwhile included, then closes the
  // group. Returns the first error, or what cancelled the scope around the
  // group, or OK; and the same when it is called again. Cannot be interrupted:
  // what cancels the scope around the group cancels the tasks, and they decide
  // when they end. kFailedPrecondition if called by a task that it would have
  // to wait for, or in a forked child.
  absl::Status Wait() { return state_.Wait(); }

  // Cancels all tasks and returns at once. Those that have not started are
  // destroyed, here.
  void Cancel(absl::Status reason = absl::CancelledError()) {
    state_.Cancel(std::move(reason));
  }

  // All failures up to now in the order they happened, of which the first
  // kFailuresKept are kept; failure_count() counts all.
  static constexpr size_t kFailuresKept = 100;
  std::vector<TaskFailure> failures() const { return state_.failures(); }
  size_t failure_count() const { return state_.failure_count(); }

  // Throws the exception of the first task that threw one, if any did. Call it
  // after Wait().
  void RethrowFirst() const { state_.RethrowFirst(); }

  // The names of the tasks that have not ended; those that run come first.
  std::vector<std::string> running() const { return state_.running(); }

  // The scope that the tasks run in.
  CancelScope& scope() { return scope_; }

 private:
  friend absl::Status RunTaskGroup(
      absl::FunctionRef<absl::Status(TaskGroup&)> body, Options options);
  static auto& SlotsOf(ThreadPool* pool);

  CancelScope scope_;  // before state_, whose end waits for the tasks in it
  internal::GroupState state_;
};

// Runs `body` in the scope of a group and waits for the tasks it spawned. An
// error of the body cancels them; the first error of all comes out.
//
//   absl::Status status = RunTaskGroup([](TaskGroup& group) {
//     group.Spawn(Produce);
//     return Consume();  // its waits end when Produce fails
//   });
absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body,
                          TaskGroup::Options options);
absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body);

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_TASK_GROUP_H_
