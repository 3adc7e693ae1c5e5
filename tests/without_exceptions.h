// A part of a program that is compiled without exceptions, whatever the rest
// is.
#ifndef TOCSIN_TESTS_WITHOUT_EXCEPTIONS_H_
#define TOCSIN_TESTS_WITHOUT_EXCEPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tocsin/concurrency/task_failure.h"
#include "tocsin/concurrency/task_group.h"

namespace tocsin::without_exceptions {

// Spawns a task that is called `name` and fails with `why`.
void SpawnFailing(TaskGroup& group, const std::string& name,
                  const absl::Status& why);

// "NAME: STATUS" of each, and " threw" where there is an exception.
std::vector<std::string> Describe(const std::vector<TaskFailure>& failures);

}  // namespace tocsin::without_exceptions

#endif  // TOCSIN_TESTS_WITHOUT_EXCEPTIONS_H_
