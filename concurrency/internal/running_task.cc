#include "tocsin/concurrency/internal/running_task.h"

#include "absl/strings/str_cat.h"

namespace tocsin::inline v0_2::internal {

constinit thread_local std::atomic<RunningTask*> running_task{nullptr};

std::string NameOf(const TaskOptions* options, uint64_t number) {
  if (options != nullptr && !options->name.empty()) return options->name;
  return absl::StrCat("task ", number);
}

std::string RunningTask::name() const {
  return NameOf(task->options(), task->number);
}

}  // namespace tocsin::inline v0_2::internal
