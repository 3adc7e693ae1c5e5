#include "tocsin/signals/internal/service_thread.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/pending_signals.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/service_mask.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/internal/signal_routes.h"

namespace tocsin::inline v0_2::internal {
namespace {

// How many real-time signals are taken before the number of the last one yields
// to the others; a standard signal yields each time.
constexpr int kRealTimeBatch = 64;

// The kernel hands out what is pending on the thread before what is pending on
// the process. A close takes no more than this of the latter: a timer can send
// signals as fast as they are taken, and those left pending are not lost.
constexpr int kMostOfProcess = 1024;

}  // namespace

int ServiceThread::Start(const sigset_t& blocked) {
  stays_blocked_ = blocked;
  // The thread inherits the mask of this one.
  const int error =
      StartThread<&ServiceThread::Run, "tocsin-signals", BirthMask::kInherited>(
          thread_, this);
  if (error != 0) return error;
  while (id_.load() == 0) FutexWait(id_, 0);
  return 0;
}

void ServiceThread::Synchronize() {
  uint32_t change;
  {
    MutexLock lock(routes_.mutex_);
    change = change_.fetch_add(1) + 1;
  }
  RingDoorbell();
  // No other thread changes it: the caller holds the disposition mutex.
  for (uint32_t seen; (seen = taken_over_.load()) != change;) {
    TOCSIN_STEP("ServiceThread: is waited for");
    FutexWait(taken_over_, seen);
  }
}

void ServiceThread::Run() {
  uint64_t wanted = 0;
  Instant look_at = Now();
  {
    // Profilers see it from the start.
    MutexLock lock(routes_.mutex_);
    routes_.unblocked_.insert(SIGPROF);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGPROF);
    pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
  }
  id_.store(static_cast<uint32_t>(syscall(SYS_gettid)));
  FutexWakeAll(&id_);
  uint32_t change = change_.load() - 1;
  bool rung = false;
  bool rung_by_timer = false;
  // The kernel hands out the lowest pending number first. So that a storm of
  // one signal does not starve those above it, each number is taken once, and
  // then not waited for until a look at the others has found nothing.
  uint64_t had_their_turn = 0;
  int in_a_row = 0;
  while (true) {
    RawSiginfo info;
    if (rung || change_.load(std::memory_order_acquire) != change) {
      rung = false;
      look_at = Now();
      // Read before it takes what was spilled: a close waits until the thread
      // has looked again, at all that handlers had spilled by then.
      change = change_.load();
      while (TakeSpilled(info)) routes_.Dispatch(info, /*redirected=*/true);
      TOCSIN_STEP("ServiceThread: has taken what was spilled");
      uint64_t left = 0;
      {
        MutexLock lock(routes_.mutex_);
        if (routes_.stopping_) return;
        // Our handler must not run here: it would forward to itself for ever.
        BlockHere(routes_.wanted_);
        for (int signum : routes_.wanted_) routes_.unblocked_.erase(signum);
        int of_process = 0;
        while (of_process < kMostOfProcess &&
               TakePending(Mask(routes_.leaving_), info, absl::ZeroDuration()) >
                   0) {
          if (!Unwrap(info)) ++of_process;
          routes_.left_over_.push_back(info);
        }
        routes_.leaving_ = {};
        left = Mask(routes_.leadership_.LeaveOut(
            /*timer_rang=*/std::exchange(rung_by_timer, false)));
        wanted = (Mask(routes_.wanted_) & ~left) | Bit(kDoorbell);
        taken_over_.store(change);
        FutexWakeAll(&taken_over_);
      }
      // Forwarded signals still come to this thread, each with a bell. Those
      // that were forwarded earlier, without one, are here already.
      while (TakeNext(left, info)) {
        const bool redirected = Unwrap(info);
        routes_.Dispatch(info, redirected);
      }
    }
    if (look_at <= Now()) {
      look_at = routes_.LookAtHandlers();
      TOCSIN_STEP("ServiceThread: has looked at the handlers");
      if (!LetHandlersIn()) look_at = After(kWhileTheyChange);
    }
    const absl::Duration timeout =
        had_their_turn != 0 ? absl::ZeroDuration()
                            : TimeUntil(std::min(routes_.Alarm(), look_at));
    TOCSIN_STEP("ServiceThread: about to wait");
    const int signum = TakePending(wanted & ~had_their_turn, info, timeout);
    if (signum == -EAGAIN) {
      had_their_turn = 0;
      routes_.RingAlarm();
    }
    if (signum <= 0) continue;  // -EINTR: the process was stopped and continued
    if (signum < SIGRTMIN || ++in_a_row == kRealTimeBatch) {
      had_their_turn |= Bit(signum);
      in_a_row = 0;
    }
    if (signum == kDoorbell) {
      rung = true;
      rung_by_timer |= info.Full().si_code == SI_TIMER;
      continue;
    }
    TOCSIN_STEP("ServiceThread: has taken a signal");
    const bool redirected = Unwrap(info);
    routes_.Dispatch(info, redirected);
  }
}

bool ServiceThread::LetHandlersIn() {
  // Who holds it may hang, in a fork() that has both: the alarms go on.
  if (!disposition_mutex.TryLock()) return false;
  SignalSet unblocked;
  for (int signum : HandledByOthers()) {
    if (sigismember(&stays_blocked_, signum) == 0) unblocked.insert(signum);
  }
  unblocked.insert(SIGPROF);
  sigset_t mask = ServiceMask();
  {
    MutexLock lock(routes_.mutex_);
    for (int signum : routes_.wanted_) unblocked.erase(signum);
    // What was forwarded is still pending here.
    for (int signum : routes_.leaving_) unblocked.erase(signum);
    unblocked.erase(kDoorbell);
    routes_.unblocked_ = unblocked;
  }
  disposition_mutex.Unlock();
  for (int signum : unblocked) sigdelset(&mask, signum);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  return true;
}

}  // namespace tocsin::inline v0_2::internal
