// What went wrong in a task of a group.
//
// A value: each thread has its own.
#ifndef TOCSIN_CONCURRENCY_TASK_FAILURE_H_
#define TOCSIN_CONCURRENCY_TASK_FAILURE_H_

#include <exception>
#include <string>

#include "absl/base/config.h"
#include "absl/status/status.h"

namespace tocsin {

struct TaskFailure {
  std::string task;  // its name
  absl::Status status;
#ifdef ABSL_HAVE_EXCEPTIONS
  std::exception_ptr exception;  // null unless the task threw
#endif
};

}  // namespace tocsin

#endif  // TOCSIN_CONCURRENCY_TASK_FAILURE_H_
