#include "tocsin/signals/internal/end_watch.h"

#include <sys/eventfd.h>
#include <sys/wait.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/signals/internal/refused_call.h"
#include "tocsin/signals/internal/service_mask.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<EndWatch>> EndWatch::Start() {
  siginfo_t info;
  // No process is its own child.
  if (waitid(P_PID, static_cast<id_t>(getpid()), &info,
             WEXITED | WNOHANG | WNOWAIT) == 0 ||
      errno != ECHILD) {
    return RefusedCall("waitid", "ChildProcess", errno);
  }
  auto watch = absl::WrapUnique(new EndWatch);
  watch->fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (watch->fd_ < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("eventfd for ChildProcess: ", ErrorText(errno)));
  }
  const ScopedMask mask;  // which the thread inherits
  if (const int error =
          StartThread<&EndWatch::Run, "tocsin-child", BirthMask::kInherited>(
              watch->thread_, watch.get());
      error != 0) {
    return NoThread("ChildProcess without a pidfd", error);
  }
  watch->started_ = true;
  return watch;
}

EndWatch::~EndWatch() {
  // A forked process does not have the thread.
  if (started_ && getpid() == process_) {
    if (child_ == kNotTold) Watch(static_cast<pid_t>(kNone));
    pthread_join(thread_, nullptr);
  }
  if (fd_ >= 0) close(fd_);
}

void EndWatch::Watch(pid_t child) {
  child_ = static_cast<uint32_t>(child);
  FutexWakeOne(&child_);
}

void EndWatch::Run() {
  while (child_ == kNotTold) FutexWait(child_, kNotTold);
  const uint32_t child = child_;
  if (child == kNone) return;
  siginfo_t info;
  int result;
  do {
    result = waitid(P_PID, child, &info, WEXITED | WNOWAIT);
  } while (result != 0 && errno == EINTR);
  lost_ = result != 0;
  eventfd_write(fd_, 1);
}

}  // namespace tocsin::inline v0_2::internal
