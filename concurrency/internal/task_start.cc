#include "tocsin/concurrency/internal/task_start.h"

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/base/config.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/scope.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

absl::Status Starting::Run(absl::FunctionRef<absl::Status()> call) {
  Scope scope(stop_.get_token());
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
    absl::Status status = call();
    const bool cancelled = scope.IsCancellation(status);
    return End(std::move(status), cancelled);
  } catch (...) {
    {
      MutexLock lock(mutex_);
      if (phase_ == Phase::kStarted) throw;
    }
    return End(StatusOfException("the task"), false);
  }
#else
  absl::Status status = call();
  const bool cancelled = scope.IsCancellation(status);
  return End(std::move(status), cancelled);
#endif
}

void Starting::NeverRan() {
  absl::Status why = ScopeState::CheckCurrent();
  if (why.ok()) why = absl::CancelledError("the task group was cancelled");
  End(std::move(why), true).IgnoreError();
}

absl::Status Starting::End(absl::Status status, bool cancelled) {
  const std::atomic<uint32_t>* word = nullptr;
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kStarted) return status;
    if (phase_ == Phase::kPending && status.ok()) {
      status = absl::FailedPreconditionError(
          "the task ended without having called started()");
    }
    phase_ = Phase::kEnded;
    end_ = std::move(status);
    cancelled_ = cancelled;
    if (sleeper_ != nullptr) word = sleeper_->WakeLater();
  }
  if (word != nullptr) FutexWakeOne(word);
  return absl::OkStatus();
}

absl::Status Starting::Announce(absl::FunctionRef<void()> store) {
  const std::atomic<uint32_t>* word = nullptr;
  {
    MutexLock lock(mutex_);
    switch (phase_) {
      case Phase::kPending:
        break;
      case Phase::kStarted:
        return absl::FailedPreconditionError("started() was called before");
      case Phase::kAbandoned:
        return absl::CancelledError("Start() was cancelled");
      case Phase::kEnded:
        return absl::FailedPreconditionError(
            "started() was called after the task had ended");
    }
    store();
    phase_ = Phase::kStarted;
    if (sleeper_ != nullptr) word = sleeper_->WakeLater();
  }
  if (word != nullptr) FutexWakeOne(word);
  return absl::OkStatus();
}

absl::Status Starting::Await() {
  Sleeper sleeper("Start()");
  absl::Status cancelled;
  while (true) {
    {
      MutexLock lock(mutex_);
      sleeper_ = &sleeper;
      if (phase_ == Phase::kPending && !cancelled.ok()) {
        phase_ = Phase::kAbandoned;
      }
      if (phase_ != Phase::kPending) sleeper_ = nullptr;
      if (phase_ == Phase::kStarted) return absl::OkStatus();
      if (phase_ == Phase::kEnded) return end_;
      if (phase_ == Phase::kAbandoned) break;
    }
    cancelled = sleeper.Sleep();
    if (!cancelled.ok()) TOCSIN_STEP("Start: wait is over");
  }
  TOCSIN_STEP("Start: gives up");
  stop_.request_stop();
  // Waits for the task's end, because from here on an error of the task is
  // returned by this call and not reported to its group.
  Sleeper until_end({.call = "Start()"}, Sleeper::Unscoped());
  while (true) {
    {
      MutexLock lock(mutex_);
      sleeper_ = phase_ == Phase::kEnded ? nullptr : &until_end;
      if (phase_ == Phase::kEnded) {
        return end_.ok() || cancelled_ ? cancelled : end_;
      }
    }
    until_end.Sleep().IgnoreError();
  }
}

}  // namespace tocsin::inline v0_2::internal
