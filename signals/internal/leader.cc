#include "tocsin/signals/internal/leader.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/signals/internal/pending_signals.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin::internal {
namespace {

// Asked of the kernel once.
constinit thread_local pid_t this_thread = 0;

bool Blocks(const sigset_t& mask, const SignalSet& signals) {
  return std::all_of(signals.begin(), signals.end(), [&](int signum) {
    return sigismember(&mask, signum) == 1;
  });
}

}  // namespace

Leader::Leader(const SignalSet& signals) : able_for_(signals) {
  if (signals.empty()) return;
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  if (!Blocks(mask, signals) || sigismember(&mask, kDoorbell) != 1) return;
  if (this_thread == 0) {
    this_thread = static_cast<pid_t>(syscall(SYS_gettid));
  }
  thread_ = this_thread;
}

Leader::~Leader() {
  if (!rung_.load()) return;
  RawSiginfo bell;
  TakePending(Bit(kDoorbell), bell, absl::ZeroDuration());
}

void Leader::Block(const Sleeper&, absl::Time until) {
  RawSiginfo info;
  const int signum = TakePending(
      Mask(signals_) | Bit(kDoorbell), info,
      until == absl::InfiniteFuture()
          ? absl::InfiniteDuration()
          : std::max(until - internal::Now(), absl::ZeroDuration()));
  TOCSIN_STEP("Leader: wait is over");
  if (signum > 0 && signum != kDoorbell) taken_ = info;
}

void Leader::Interrupt() {
  rung_.store(true);
  syscall(SYS_tgkill, getpid(), thread_, kDoorbell);
}

void Leader::ForgetAfterFork() { this_thread = 0; }

}  // namespace tocsin::internal
