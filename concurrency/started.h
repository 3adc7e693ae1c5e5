// What a task of TaskSet::Start() calls once it is ready.
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
#include <utility>

#include "absl/status/status.h"
#include "tocsin/concurrency/internal/task_start.h"

namespace tocsin::inline v0_2 {

template <typename T>
class Started {
 public:
  // Lets Start() return `value`. kFailedPrecondition if it was called before,
  // or the task has ended; kCancelled if Start() has been cancelled.
  absl::Status operator()(T value) const {
    return starting_->AnnounceValue(std::move(value));
  }

 private:
  friend class TaskSet;
  explicit Started(std::shared_ptr<internal::StartingWith<T>> starting)
      : starting_(std::move(starting)) {}

  std::shared_ptr<internal::StartingWith<T>> starting_;
};

template <>
class Started<void> {
 public:
  absl::Status operator()() const { return starting_->AnnounceValue(); }

 private:
  friend class TaskSet;
  explicit Started(std::shared_ptr<internal::StartingWith<void>> starting)
      : starting_(std::move(starting)) {}

  std::shared_ptr<internal::StartingWith<void>> starting_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_STARTED_H_
