#include "tests/sharing_plugin.h"

#include "absl/time/time.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/worker_slot.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/wait.h"

namespace {

void InScope(const std::function<void(tocsin::CancelScope&)>& body) {
  tocsin::CancelScope scope;
  body(scope);
}

void InTask(const std::function<void(std::stop_token)>& body) {
  tocsin::TaskGroup group;
  tocsin::Event over;  // so that this thread does not run the task itself
  group.Spawn([&](std::stop_token stop) {
    body(stop);
    over.Set();
  });
  over.Wait().IgnoreError();
  group.Wait().IgnoreError();
}

absl::Status Check() { return tocsin::CheckCancelled(); }

absl::Status Sleep() { return tocsin::Sleep(absl::InfiniteDuration()); }

bool IsWorker() {
  return tocsin::internal::worker_slot != nullptr &&
         tocsin::internal::CurrentTask() != nullptr;
}

}  // namespace

constexpr SharingPlugin sharing_plugin = {.in_scope = InScope,
                                          .in_task = InTask,
                                          .check = Check,
                                          .sleep = Sleep,
                                          .is_worker = IsWorker};
