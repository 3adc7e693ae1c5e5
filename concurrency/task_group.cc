#include "tocsin/concurrency/task_group.h"

namespace tocsin::inline v0_2 {

absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body,
                          TaskGroup::Options options) {
  TaskGroup group(std::move(options));
  return group.RunBody([&] { return body(group); });
}

}  // namespace tocsin::inline v0_2
