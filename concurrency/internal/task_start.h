// The handshake between a thread that calls Start() and the task it starts.
//
// Each of the two has a thread; a third one may call what the task was given.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_START_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_START_H_

#include <memory>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/task_closure.h"

namespace tocsin::inline v0_2::internal {

// Shared by the thread that calls Start() and the task: the first of the two to
// come decides, and the other learns of it.
class Starting {
 public:
  // The task's side. Run() returns the status that the group gets for the end
  // of the task: OK if Start() returns that end.
  absl::Status Run(absl::FunctionRef<absl::Status()> call);
  void NeverRan();
  // `store` runs under the mutex.
  absl::Status Announce(absl::FunctionRef<void()> store);

  // The other side. OK: started. Otherwise why it did not start; if the current
  // scope was cancelled, the task has been cancelled with it, and has ended.
  absl::Status Await();

 private:
  // kAbandoned: Start() gave up and only waits for the end.
  enum class Phase { kPending, kStarted, kAbandoned, kEnded };

  absl::Status End(absl::Status status, bool cancelled);

  std::stop_source stop_;
  SlimMutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kPending;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // end_ is a cancellation
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

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_START_H_
