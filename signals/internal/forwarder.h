// The part of the service that runs in signal handlers, and the system calls
// that go with it.
//
// Only the service's thread blocks signals. So the kernel hands a signal to
// some other thread, where our handler runs; its one act is to queue the signal
// again, siginfo and all, for the service's thread (rt_tgsigqueueinfo(2)). The
// kernel's queue is the only queue, and the handler writes no memory that a
// thread reads, but for counters, seats and slots.
//
// A seat is the short way for a standard signal: while the one thread that is
// to have it waits in Receive(), the handler leaves the signal there in memory
// and wakes that thread, which is one wake-up less, and none where the handler
// runs on that very thread.
//
// The kernel lets nobody send another thread a siginfo that claims to come from
// kill(2) or from the kernel. A forwarded one is therefore marked: si_code is a
// random number of this process, and the true si_code is in si_errno, which
// signals on Linux do not use.
//
// What a close must wait for, so that no signal is lost on the way:
//   1. RestoreDisposition(): signals from now on have their old effect;
//   2. StopForwarding(): handlers that start from now on, for a signal that
//      came before, give it back to the process instead;
//   3. AwaitHandlers(): handlers that had started before have forwarded theirs;
//   4. ClearSeat() gives what is still in the seat, and the service's thread
//      takes what is still pending on it (kernel_signals.cc).
#ifndef TOCSIN_SIGNALS_INTERNAL_FORWARDER_H_
#define TOCSIN_SIGNALS_INTERNAL_FORWARDER_H_

#include <sys/types.h>

#include <csignal>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {

// What wakes the service's thread to look at its state. Linux never generates
// this signal; one from a stranger, or several merged into one, do no harm.
inline constexpr int kDoorbell = SIGSTKFLT;

// Serialises what changes dispositions. The service's thread never takes it, so
// one may wait for that thread while holding it.
extern SlimMutex disposition_mutex;

// Names the thread that handlers forward to; before the first Forward().
void SetServiceThread(pid_t thread)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Installs the handler for `signum` and keeps the disposition it replaces.
void Forward(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Puts that back, to the last flag. False if somebody has replaced our handler
// meanwhile: then theirs stays.
bool RestoreDisposition(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
void StopForwarding(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
void AwaitHandlers(int signum);

// Whether `signum` is ignored, by the disposition that Forward() found if it is
// being forwarded.
bool IsIgnored(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Whether our handler is in place.
bool HandlerInPlace(int signum);

// A mask as in the kernel.
inline uint64_t Bit(int signum) { return uint64_t{1} << (signum - 1); }
inline uint64_t Mask(const SignalSet& signals) {
  uint64_t mask = 0;
  for (int signum : signals) mask |= Bit(signum);
  return mask;
}

// Waits until one of `signals` (a mask) is pending on the calling thread or the
// process, and takes it. Returns its number or a negated errno: -EAGAIN once
// `timeout` is over, -EINTR after a stop.
int TakePending(uint64_t signals, RawSiginfo& info,
                absl::Duration timeout = absl::InfiniteDuration());

// Takes the mark off a forwarded siginfo. False if it bears none.
bool Unwrap(RawSiginfo& info);

// Takes a signal that the kernel's queue had no room for (RLIMIT_SIGPENDING),
// and that a handler kept in a slot. False if there is none. The bell rings for
// each.
bool TakeSpilled(RawSiginfo& info);

// Sends a signal that we took to the process again, as it was: the disposition
// in force decides what becomes of it.
void GiveBack(const RawSiginfo& info);

void RingDoorbell();

// Whether the doorbell rings for every signal that is forwarded, because the
// service's thread leaves some to a stand-in (stand_in.h).
void RingForEach(bool ring);

// From now on the handler of `signum` leaves it in its seat and wakes
// `sleeper`. Seats are taken and cleared under one lock, the service's.
void TakeSeat(int signum, Sleeper& sleeper);
// Ends that: the sleeper is not touched any more. Returns how many signals were
// left in the seat, of which `info` is the first. Waits for a handler that is
// about to leave one.
int ClearSeat(int signum, RawSiginfo& info);
// Whether somebody sits there and no signal was left yet. For tests.
bool IsWaitedFor(int signum);

// Signals whose siginfo could not be kept because the process was at its
// RLIMIT_SIGPENDING for long: they arrived as a bare number.
uint64_t LostSiginfoCount();

// In a forked child: what handlers did in the parent did not happen here.
void ForgetHandlersAfterFork();

// Sets the disposition of `signum` to the default, as the kernel sees it, and
// puts back what was there.
class ScopedDefaultDisposition {
 public:
  explicit ScopedDefaultDisposition(int signum)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
  ScopedDefaultDisposition(const ScopedDefaultDisposition&) = delete;
  ScopedDefaultDisposition& operator=(const ScopedDefaultDisposition&) = delete;
  ~ScopedDefaultDisposition();

 private:
  const int signum_;
  uint64_t previous_[4];
};

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_FORWARDER_H_
