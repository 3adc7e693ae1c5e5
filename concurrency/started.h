// What a task of TaskGroup::Start() calls once it is ready.
//
//   absl::StatusOr<int> port = group.Start<int>(
//       [](const Started<int>& started) -> absl::Status {
//         absl::StatusOr<Listener> listener = Listen();
//         if (!listener.ok()) return listener.status();  // Start() returns it
//         absl::Status status = started(listener->port());
//         if (!status.ok()) return status;
//         return listener->Serve();  // Start() has returned the port
//       });
//
// May be copied, and called from any thread.
#ifndef TOCSIN_CONCURRENCY_STARTED_H_
#define TOCSIN_CONCURRENCY_STARTED_H_

#include <memory>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin {

namespace internal {

struct TaskClosure {
  // f() or f(std::stop_token), whatever it returns.
  template <typename F>
  static decltype(auto) Invoke(F& f);
  // The same, where it returns nothing or an absl::Status.
  template <typename F>
  static absl::Status Call(F& f);
};

template <typename F>
decltype(auto) TaskClosure::Invoke(F& f) {
  if constexpr (std::is_invocable_v<F&>) {
    return f();
  } else {
    static_assert(std::is_invocable_v<F&, std::stop_token>,
                  "a task takes nothing or a std::stop_token");
    return f(current_scope->stop_token());
  }
}

template <typename F>
absl::Status TaskClosure::Call(F& f) {
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

// Between the thread that calls Start() and the task: which of the two comes
// first decides, and the other is told.
class Starting {
 public:
  // The task's side. Run() returns what the group has to know of its end:
  // nothing, where Start() returns that.
  absl::Status Run(absl::FunctionRef<absl::Status()> call);
  void NeverRan();
  // `store` runs under the mutex.
  absl::Status Announce(absl::FunctionRef<void()> store);

  // The other side. OK: started. Else what kept it from that; if the current
  // scope was cancelled, the task has been cancelled with it, and has ended.
  absl::Status Await();

 private:
  // kAbandoned: Start() gave up and waits for the end only.
  enum class Phase { kPending, kStarted, kAbandoned, kEnded };

  absl::Status End(absl::Status status);

  std::stop_source stop_;
  SlimMutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kPending;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  Sleeper* sleeper_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

template <typename T>
struct StartingWith : Starting {
  absl::Status AnnounceValue(T announced) {
    auto stored = std::make_unique<T>(std::move(announced));
    return Announce([&] { value.swap(stored); });
  }
  std::unique_ptr<T> value;
};
template <>
struct StartingWith<void> : Starting {
  absl::Status AnnounceValue() {
    return Announce([] {});
  }
};

// The closure of the task: calls f(starting).
template <typename T, typename F>
struct StartClosure {
  using Starting = StartingWith<T>;

  StartClosure(std::shared_ptr<Starting> s, F&& call)
      : starting(std::move(s)), f(std::forward<F>(call)) {}
  StartClosure(StartClosure&&) = default;
  ~StartClosure() {
    if (starting != nullptr) starting->NeverRan();
  }
  absl::Status operator()() {
    const std::shared_ptr<Starting> s = std::move(starting);
    auto call = [this, &s] { return f(s); };
    return s->Run([&call] { return TaskClosure::Call(call); });
  }
  std::shared_ptr<Starting> starting;
  std::decay_t<F> f;
};

}  // namespace internal

template <typename T>
class Started {
 public:
  // Lets Start() return `value`. kFailedPrecondition if it was called before;
  // kCancelled if Start() was cancelled meanwhile.
  absl::Status operator()(T value) const {
    return starting_->AnnounceValue(std::move(value));
  }

 private:
  friend class TaskGroup;
  explicit Started(std::shared_ptr<internal::StartingWith<T>> starting)
      : starting_(std::move(starting)) {}

  std::shared_ptr<internal::StartingWith<T>> starting_;
};

template <>
class Started<void> {
 public:
  absl::Status operator()() const { return starting_->AnnounceValue(); }

 private:
  friend class TaskGroup;
  explicit Started(std::shared_ptr<internal::StartingWith<void>> starting)
      : starting_(std::move(starting)) {}

  std::shared_ptr<internal::StartingWith<void>> starting_;
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_STARTED_H_
