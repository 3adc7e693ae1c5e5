// What went wrong in a task of a group.
//
// A value: each thread has its own.
#ifndef TOCSIN_CONCURRENCY_TASK_FAILURE_H_
#define TOCSIN_CONCURRENCY_TASK_FAILURE_H_

#include <exception>
#include <string>

#include "absl/status/status.h"

namespace tocsin::inline v0_2 {

struct TaskFailure {
  // The name of the task: that of its TaskOptions, or "task 3".
  std::string task;
  // What it returned; what it threw, in words; or why it was refused.
  absl::Status status;
  // What it threw, for RethrowFirst(); null if it threw nothing, and always in
  // a library that was compiled without exceptions.
  std::exception_ptr exception;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_FAILURE_H_
