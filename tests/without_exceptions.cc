#include "tests/without_exceptions.h"

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"

#ifdef ABSL_HAVE_EXCEPTIONS
#error "This is to be compiled without exceptions."
#endif

namespace tocsin::without_exceptions {

void SpawnFailing(TaskGroup& group, const std::string& name,
                  const absl::Status& why) {
  group.Spawn([why] { return why; }, {.name = name});
}

std::vector<std::string> Describe(const std::vector<TaskFailure>& failures) {
  std::vector<std::string> texts;
  for (const TaskFailure& failure : failures) {
    texts.push_back(absl::StrCat(failure.task, ": ", failure.status.ToString(),
                                 failure.exception != nullptr ? " threw" : ""));
  }
  return texts;
}

}  // namespace tocsin::without_exceptions
