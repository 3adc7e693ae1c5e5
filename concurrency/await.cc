#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/mutex_waker.h"
#include "tocsin/concurrency/internal/scope_links.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/wakeable.h"
#include "tocsin/concurrency/wait.h"

namespace tocsin::inline v0_2 {
namespace {

using internal::MutexLock;
using internal::MutexWaker;
using internal::scope_tree_mutex;

class AwaitCall final : public internal::BlockingCall {
 public:
  AwaitCall(absl::Mutex& mutex, const absl::Condition& condition)
      : mutex_(mutex), condition_(condition) {}

  absl::Status Enter() {
    if (internal::current_scope == nullptr) return absl::OkStatus();
    MutexLock lock(scope_tree_mutex);
    absl::StatusOr<MutexWaker::Visits*> visits =
        MutexWaker::Get().Enter(alarm_);
    visits_ = visits.ok() ? *visits : nullptr;
    entered_in_ = internal::scope_generation;
    return visits.status();
  }

  // False if the mutex was released meanwhile.
  bool Leave() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (visits_ == nullptr) return true;
    {
      MutexLock lock(scope_tree_mutex);
      if (MutexWaker::Get().Leave(alarm_)) return true;
    }
    auto visit_is_over = [this] { return !visits_->under_way.load(); };
    mutex_.Await(absl::Condition(&visit_is_over));
    return false;
  }

  void Block(const internal::Sleeper& sleeper,
             internal::Instant until) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    // A handler may fork in the middle of the wait, and the child come back.
    if (visits_ != nullptr && entered_in_ != internal::scope_generation) {
      Enter().IgnoreError();  // without memory or a thread nobody visits it
    }
    if (visits_ != nullptr) {
      MutexLock lock(scope_tree_mutex);
      MutexWaker::Get().Set(alarm_, until);
    }
    auto over = [&] {
      return sleeper.woken() || condition_.Eval() ||
             (until != internal::kNever && until <= internal::Now());
    };
    mutex_.Await(absl::Condition(&over));
  }

  void Interrupt() override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    MutexWaker::Get().Request(mutex_);
  }

 private:
  absl::Mutex& mutex_;
  const absl::Condition& condition_;
  MutexWaker::Visits* visits_ = nullptr;
  int entered_in_ = -1;  // which process
  MutexWaker::Alarm alarm_{mutex_};
};

}  // namespace

absl::Status Await(absl::Mutex& mutex, const absl::Condition& condition) {
  mutex.AssertReaderHeld();
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  if (condition.Eval()) return absl::OkStatus();
  AwaitCall call(mutex, condition);
  if (absl::Status status = call.Enter(); !status.ok()) return status;
  internal::Sleeper sleeper("Await()", internal::kNever, &call);
  while (true) {
    absl::Status status = sleeper.Sleep();
    const bool holds = condition.Eval();
    if ((holds || !status.ok()) && call.Leave()) {
      return holds ? absl::OkStatus() : status;
    }
  }
}

}  // namespace tocsin::inline v0_2
