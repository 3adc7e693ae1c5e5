#include "tocsin/signals/internal/leader.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/pending_signals.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin::inline v0_2::internal {
namespace {

// How long signals are left, at most, to a leader that does not wait for them.
constexpr absl::Duration kAbsence = absl::Milliseconds(10);

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

void Leader::Block(const Sleeper&, Instant until) {
  RawSiginfo info;
  const int signum =
      TakePending(Mask(signals_) | Bit(kDoorbell), info, TimeUntil(until));
  TOCSIN_STEP("Leader: wait is over");
  if (signum > 0 && signum != kDoorbell) taken_ = info;
}

void Leader::Interrupt() {
  rung_.store(true);
  syscall(SYS_tgkill, getpid(), thread_, kDoorbell);
}

void Leader::ForgetAfterFork() { this_thread = 0; }

void Leadership::MakeTimer(pid_t thread) {
  sigevent ring = {};
  ring.sigev_notify = SIGEV_THREAD_ID;
  ring.sigev_signo = kDoorbell;
  ring._sigev_un._tid = thread;
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &ring, &timer) != 0) return;
  timer_ = timer;
  // A filter may refuse this one alone. Without it no bell would make the
  // service's thread take back what a leader has left.
  const itimerspec never = {};
  if (syscall(SYS_timer_settime, timer, 0, &never, nullptr) != 0) {
    DeleteTimer();
    timer_.reset();
  }
}

void Leadership::DeleteTimer() {
  if (timer_.has_value()) timer_delete(*timer_);
}

void Leadership::Promote(const SignalSet& signals, Leader& leader,
                         Sleeper& sleeper) {
  SignalSet led;
  for (int signum : leader.able_for()) {
    if (signals.contains(signum)) led.insert(signum);
  }
  if (leader_ != nullptr || led.empty()) {
    leader.WaitFor({});
    return;
  }
  leader_ = &sleeper;
  led_ = led;
  RingForEach(true);
  leader.WaitFor(led);
  // Makes the service's thread look and leave them to this one.
  if (left_out_ != led) RingDoorbell();
}

void Leadership::StepDown(const Sleeper& sleeper, int took) {
  if (leader_ != &sleeper) return;
  leader_ = nullptr;
  had_its_turn_ = took;
  // Not each time: setting a timer takes longer than all else here.
  if (timer_set_) return;
  timer_set_ = true;
  itimerspec time = {};
  time.it_value = absl::ToTimespec(kAbsence);
  timer_settime(*timer_, 0, &time, nullptr);
}

bool Leadership::TakeBack(const SignalSet& signals) {
  const uint64_t led = Mask(led_);
  for (int signum : signals) led_.erase(signum);
  return Mask(led_) != led;
}

void Leadership::WakeLeader(FutexWakes& wakes) {
  if (leader_ != nullptr) leader_->WakeLater(wakes);
}

uint64_t Leadership::ToDrain(bool waits) const {
  if (leader_ != nullptr) return 0;
  uint64_t signals = Mask(led_);
  // A wait takes the lowest number first: without a look at the others, a storm
  // of that signal would starve them.
  if (waits && had_its_turn_ != 0) signals &= ~Bit(had_its_turn_);
  return signals;
}

SignalSet Leadership::LeaveOut(bool timer_rang) {
  if (timer_rang) timer_set_ = false;
  if (leader_ == nullptr) led_ = {};
  RingForEach(!led_.empty());
  left_out_ = led_;
  return left_out_;
}

void Leadership::ForgetAfterFork() {
  led_ = {};
  leader_ = nullptr;
}

}  // namespace tocsin::inline v0_2::internal
