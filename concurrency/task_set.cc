#include "tocsin/concurrency/task_set.h"

#include <atomic>
#include <utility>

#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/worker_slots.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin::inline v0_2 {

namespace {

// A function of its own, so that its callers construct no other options.
bool CancelOnErrorByDefault() { return TaskSet::Options().cancel_on_error; }

}  // namespace

inline auto& TaskSet::SlotsOf(ThreadPool* pool) {
  if (pool != nullptr) return *pool->slots_;
  internal::WorkerSlots* slots =
      internal::default_slots.load(std::memory_order_acquire);
  return slots != nullptr ? *slots : *ThreadPool::Default().slots_;
}

static_assert(TaskSet::kFailuresKept == internal::GroupState::kFailuresKept);

TaskSet::TaskSet()
    : scope_(nullptr),
      state_(internal::Scope::Of(scope_), SlotsOf(nullptr),
             CancelOnErrorByDefault()) {}

TaskSet::TaskSet(Options options)
    : scope_(nullptr),
      state_(internal::Scope::Of(scope_), SlotsOf(options.pool),
             std::move(options.name), options.max_running,
             options.cancel_on_error) {}

TaskSet::TaskSet(Entered)
    : scope_(internal::current_scope),
      state_(internal::Scope::Of(scope_), SlotsOf(nullptr),
             CancelOnErrorByDefault()) {
  state_.Enter();
}

TaskSet::TaskSet(Entered, Options options)
    : scope_(internal::current_scope),
      state_(internal::Scope::Of(scope_), SlotsOf(options.pool),
             std::move(options.name), options.max_running,
             options.cancel_on_error) {
  state_.Enter();
}

TaskSet::~TaskSet() = default;

}  // namespace tocsin::inline v0_2
