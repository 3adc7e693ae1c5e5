#include "tocsin/signals/internal/stand_in.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <utility>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/wall_clock.h"

namespace tocsin::internal {
namespace {

// How many are able, and whether somebody waits until it is none.
constinit std::atomic<uint32_t> able_ones = 0;
constexpr uint32_t kAwaited = uint32_t{1} << 31;

bool Blocks(const sigset_t& mask, const SignalSet& signals) {
  return std::all_of(signals.begin(), signals.end(), [&](int signum) {
    return sigismember(&mask, signum) == 1;
  });
}

}  // namespace

StandIn::StandIn(const SignalSet& signals) : able_for_(signals) {
  if (signals.empty()) return;
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  if (!Blocks(mask, signals)) return;
  thread_ = static_cast<pid_t>(syscall(SYS_gettid));
  able_ones.fetch_add(1);
}

StandIn::~StandIn() {
  if (!able()) return;
  if (able_ones.fetch_sub(1) == (kAwaited | 1)) FutexWakeAll(&able_ones);
}

void StandIn::WaitFor(const SignalSet& signals, bool announce) {
  signals_ = signals;
  announce_ = announce;
}

void StandIn::Block(const Sleeper& sleeper, absl::Time until) {
  if (std::exchange(announce_, false)) RingDoorbell();
  sigset_t doorbell;
  sigemptyset(&doorbell);
  sigaddset(&doorbell, kDoorbell);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, &doorbell, &mask);
  // An Interrupt() that rang before it was blocked rang for the handler.
  if (!sleeper.woken()) {
    RawSiginfo info;
    const int signum = TakePending(
        Mask(signals_) | Bit(kDoorbell), info,
        until == absl::InfiniteFuture()
            ? absl::InfiniteDuration()
            : std::max(until - internal::Now(), absl::ZeroDuration()));
    if (signum > 0 && signum != kDoorbell) taken_ = info;
  }
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

void StandIn::Interrupt() { syscall(SYS_tgkill, getpid(), thread_, kDoorbell); }

void StandIn::AwaitNone() {
  for (uint32_t seen = able_ones.fetch_or(kAwaited) | kAwaited;
       seen != kAwaited; seen = able_ones.load()) {
    FutexWait(able_ones, seen);
  }
  able_ones.fetch_and(~kAwaited);
}

void StandIn::ForgetAfterFork() { able_ones.store(0); }

}  // namespace tocsin::internal
