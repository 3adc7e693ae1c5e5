#include "tocsin/concurrency/task_group.h"

#include <atomic>
#include <utility>

#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/worker_slots.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {

namespace {

// Apart, so that nothing else of the options is made for it.
bool CancelOnErrorByDefault() { return TaskGroup::Options().cancel_on_error; }

}  // namespace

inline auto& TaskGroup::SlotsOf(ThreadPool* pool) {
  if (pool != nullptr) return *pool->slots_;
  internal::WorkerSlots* slots =
      internal::default_slots.load(std::memory_order_acquire);
  return slots != nullptr ? *slots : *ThreadPool::Default().slots_;
}

static_assert(TaskGroup::kFailuresKept == internal::GroupState::kFailuresKept);

TaskGroup::TaskGroup()
    : scope_(internal::Scope::NotEntered()),
      state_(internal::Scope::Of(scope_), SlotsOf(nullptr),
             CancelOnErrorByDefault()) {}

TaskGroup::TaskGroup(Options options)
    : scope_(internal::Scope::NotEntered()),
      state_(internal::Scope::Of(scope_), SlotsOf(options.pool),
             std::move(options.name), options.max_running,
             options.cancel_on_error) {}

TaskGroup::~TaskGroup() = default;

absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body) {
  return RunTaskGroup(body, TaskGroup::Options());
}

absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body,
                          TaskGroup::Options options) {
  TaskGroup group(std::move(options));
  return group.state_.RunBody([&] { return body(group); });
}

}  // namespace tocsin
