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

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/started.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {

// What went wrong in a task.
struct TaskFailure {
  std::string task;  // its name
  absl::Status status;
#ifdef ABSL_HAVE_EXCEPTIONS
  std::exception_ptr exception;  // null unless the task threw
#endif
};

class TaskGroup final : private internal::TaskQueue {
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
    SpawnTask(internal::Task::New<Calls>(std::forward<F>(f)));
  }
  template <typename F>
  void Spawn(F&& f, TaskOptions options) {
    SpawnTask(
        internal::Task::New<Calls>(std::forward<F>(f), std::move(options)));
  }

  // The same for a task that serves the others: it starts at once, on a thread
  // of its own, and is cancelled once all others have ended and somebody waits.
  // Where no thread can be had the group fails with kResourceExhausted.
  template <typename F>
  void SpawnService(F&& f, TaskOptions options = {});

  // The same as Spawn() for a task that returns something: an R, nothing, an
  // absl::Status or an absl::StatusOr<R>. Its error is one of the group, too.
  template <typename F>
  auto SpawnWithResult(F&& f, TaskOptions options = {});

  // Runs f(started) on a thread of its own, and returns as soon as it calls
  // started(value), with that value, while it goes on as a task like any other.
  // Else returns its error, which then is none of the group: what it ended
  // with before it called started(); kFailedPrecondition if it ended well
  // without, or the group is closed; kResourceExhausted if no thread can be
  // had. If the current scope is cancelled meanwhile, the task is cancelled and
  // waited for. Start<void>() returns an absl::Status.
  template <typename T, typename F>
  std::conditional_t<std::is_void_v<T>, absl::Status, absl::StatusOr<T>> Start(
      F&& f, TaskOptions options = {});

  // Waits for all tasks, those spawned meanwhile included, then closes the
  // group. Returns the first error, or what cancelled the scope around the
  // group, or OK; and the same when it is called again. Cannot be interrupted:
  // what cancels the scope around the group cancels the tasks, and they decide
  // when they end. kFailedPrecondition if called by a task that it would have
  // to wait for, or in a forked child.
  absl::Status Wait();

  // Cancels all tasks and returns at once. Those that have not started are
  // destroyed, here.
  void Cancel(absl::Status reason = absl::CancelledError());

  // All failures up to now in the order they happened, of which the first
  // kFailuresKept are kept; failure_count() counts all.
  static constexpr size_t kFailuresKept = 100;
  std::vector<TaskFailure> failures() const;
  size_t failure_count() const;

#ifdef ABSL_HAVE_EXCEPTIONS
  // Throws the exception of the first task that threw one, if any did. Call it
  // after Wait().
  void RethrowFirst() const;
#endif

  // The names of the tasks that have not ended; those that run come first.
  std::vector<std::string> running() const;

  // The scope that the tasks run in.
  CancelScope& scope() { return scopes_.tasks; }

 private:
  explicit TaskGroup(ThreadPool& pool);
  TaskGroup(ThreadPool& pool, Options& options);

  struct Scopes {
    explicit Scopes(internal::ScopeState* outer) : tasks(outer) {}
    CancelScope tasks;
    std::unique_ptr<CancelScope> services;  // made with the first of them
  };

  friend class internal::HandledTask;
  friend absl::Status RunTaskGroup(
      absl::FunctionRef<absl::Status(TaskGroup&)> body, Options options);

  template <typename F>
  static decltype(auto) Invoke(F& f);
  template <typename F>
  static absl::Status Call(F& f);
  struct Calls {
    template <typename F>
    static absl::Status Call(F& f) {
      return TaskGroup::Call(f);
    }
  };

  void Run(internal::RunningTask& running) override;
  void CancelServices() override;
  void NoticeClosed() override;

  // A task that the queue did not take.
  struct DestroyRefused {
    void operator()(internal::Task* task) const;
  };
  using RefusedTask = std::unique_ptr<internal::Task, DestroyRefused>;

  void SpawnTask(internal::Task* task) {
    RefusedTask refused(task);
    if (pool().forked() || !Add(*task)) return RefuseTask(std::move(refused));
    (void)refused.release();
  }
  void RefuseTask(RefusedTask task);
  void SpawnServiceTask(internal::Task* task);
  void SpawnHandledTask(std::shared_ptr<internal::HandledTask> task);
  absl::Status StartTask(internal::Task* task);
  void Refuse(RefusedTask task, absl::Status why);
  void NoteError(const internal::RunningTask& running, absl::Status status);
  void NoteException(const internal::RunningTask& running);
  void Fail(TaskFailure failure);
  absl::Status WhyNotOk() const;
  bool IsCancellation(const absl::Status& status) const;
  absl::Status CancelledFromOutside() const;
  absl::Status Forked() const;
  absl::Status Closed() const;
  // Whether what cancels the thread's current scope cancels the group.
  bool InsideCurrentScope() const;
  std::string NextName(const char* what);

  const std::string name_;
  const bool cancel_on_error_;
  // Read by all threads with every task, so it keeps off what is written with
  // every task. In a union, because in a forked child it is left as it is: what
  // is linked to the scopes does not exist there.
  union {
    alignas(64) Scopes scopes_;
  };
  std::atomic<uint32_t> named_{0};
  // What Wait() returns, if no task has failed; unknown until the group is
  // closed.
  enum class Outcome : uint8_t { kUnknown, kOk, kCancelled };
  std::atomic<Outcome> outcome_{Outcome::kUnknown};
  absl::Status cancelled_;  // written before outcome_

  mutable internal::SlimMutex mutex_;
  std::vector<TaskFailure> failures_ ABSL_GUARDED_BY(mutex_);
  std::atomic<size_t> failure_count_{0};  // written under mutex_
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

template <typename F>
decltype(auto) TaskGroup::Invoke(F& f) {
  if constexpr (std::is_invocable_v<F&>) {
    return f();
  } else {
    static_assert(std::is_invocable_v<F&, std::stop_token>,
                  "a task takes nothing or a std::stop_token");
    return f(internal::current_scope->stop_token());
  }
}

template <typename F>
absl::Status TaskGroup::Call(F& f) {
  using Result = decltype(Invoke(f));
  if constexpr (std::is_void_v<Result>) {
    Invoke(f);
    return absl::OkStatus();
  } else {
    static_assert(std::is_convertible_v<Result, absl::Status>,
                  "a task returns nothing or an absl::Status; for another "
                  "result use SpawnWithResult()");
    return Invoke(f);
  }
}

template <typename F>
void TaskGroup::SpawnService(F&& f, TaskOptions options) {
  if (options.name.empty()) options.name = NextName("service");
  SpawnServiceTask(
      internal::Task::New<Calls>(std::forward<F>(f), std::move(options)));
}

template <typename F>
auto TaskGroup::SpawnWithResult(F&& f, TaskOptions options) {
  using Closure = std::decay_t<F>;
  using Returned = decltype(Invoke(std::declval<Closure&>()));
  using R = typename internal::ResultOf<std::decay_t<Returned>>::Type;

  class Handled final : public internal::ResultTask<R> {
   public:
    Handled(TaskGroup& group, F&& f)
        : internal::ResultTask<R>(group), closure_(std::forward<F>(f)) {}

   private:
    absl::Status Invoke() override {
      if constexpr (std::is_void_v<R>) {
        return Call(*closure_);
      } else if constexpr (std::is_same_v<std::decay_t<Returned>, R>) {
        this->result.emplace(TaskGroup::Invoke(*closure_));
        return absl::OkStatus();
      } else {
        absl::StatusOr<R> returned = TaskGroup::Invoke(*closure_);
        if (!returned.ok()) return returned.status();
        this->result.emplace(*std::move(returned));
        return absl::OkStatus();
      }
    }
    void DestroyClosure() override { closure_.reset(); }

    std::optional<Closure> closure_;
  };

  auto task = std::make_shared<Handled>(*this, std::forward<F>(f));
  task->options = std::move(options);
  if (task->options.name.empty()) task->options.name = NextName("result");
  SpawnHandledTask(task);
  return TaskHandle<R>(std::move(task));
}

template <typename T, typename F>
std::conditional_t<std::is_void_v<T>, absl::Status, absl::StatusOr<T>>
TaskGroup::Start(F&& f, TaskOptions options) {
  using Starting = internal::StartingWith<T>;
  struct Closure {
    Closure(std::shared_ptr<Starting> s, F&& call)
        : starting(std::move(s)), f(std::forward<F>(call)) {}
    Closure(Closure&&) = default;
    ~Closure() {
      if (starting != nullptr) starting->NeverRan();
    }
    absl::Status operator()() {
      const std::shared_ptr<Starting> s = std::move(starting);
      Started<T> started(s);
      auto call = [this, &started] { return f(started); };
      return s->Run([&call] { return Call(call); });
    }
    std::shared_ptr<Starting> starting;
    std::decay_t<F> f;
  };

  if (options.name.empty()) options.name = NextName("started task");
  auto starting = std::make_shared<Starting>();
  absl::Status status = StartTask(internal::Task::New(
      Closure(starting, std::forward<F>(f)), std::move(options)));
  if (status.ok()) status = starting->Await();
  if constexpr (std::is_void_v<T>) {
    return status;
  } else {
    if (!status.ok()) return status;
    return std::move(*starting->value);
  }
}

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_TASK_GROUP_H_
