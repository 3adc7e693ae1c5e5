// A thread in Receive() that waits for signals itself, instead of the service's
// thread: one wake-up for a signal instead of two. This is the leader/followers
// pattern (Schmidt et al., POSA 2): one thread at a time leads, and the
// service's thread is the follower that is always there.
//
// A thread makes and uses its own Leader; other threads call only Interrupt().
//
// A thread can lead if it blocks the signals and the doorbell
// (ScopedSignalBlock), so that they become pending and no handler runs.
// Otherwise it may offer a slot instead (direct_handoff.h).
#ifndef TOCSIN_SIGNALS_INTERNAL_LEADER_H_
#define TOCSIN_SIGNALS_INTERNAL_LEADER_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <ctime>
#include <optional>
#include <utility>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/wakeable.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class Leader final : public BlockingCall {
 public:
  // Able if `signals` is not empty, and the calling thread blocks all of them
  // and the doorbell.
  explicit Leader(const SignalSet& signals = {});
  Leader(const Leader&) = delete;
  Leader& operator=(const Leader&) = delete;
  // Leaves no bell pending: it would ring once the thread's mask is restored,
  // and end the process if the service is gone. No thread calls Interrupt() any
  // more.
  ~Leader();

  bool able() const { return thread_ != 0; }

  // The signals that it was made with.
  const SignalSet& able_for() const { return able_for_; }

  // Makes the next Block() wait for `signals`, and not only for Interrupt().
  void WaitFor(const SignalSet& signals) { signals_ = signals; }
  // What Block() took since the last call.
  std::optional<RawSiginfo> Taken() { return std::exchange(taken_, {}); }

  void Block(const Sleeper& sleeper, Instant until) override;
  void Interrupt() override;

  // Called in a forked child, whose thread has another id than the one that
  // forked.
  static void ForgetAfterFork();

 private:
  const SignalSet able_for_;
  pid_t thread_ = 0;
  SignalSet signals_;
  std::optional<RawSiginfo> taken_;
  std::atomic<bool> rung_{false};
};

// Which thread leads, and for which signals. At most one does at a time.
class Leadership {
 public:
  // Makes the timer, which rings the bell of `thread`. At RLIMIT_SIGPENDING,
  // or where a filter refuses it, there is none, and no thread leads.
  void MakeTimer(pid_t thread);
  // Called once that thread has ended: see timer_set_.
  void DeleteTimer();
  bool possible() const { return timer_.has_value(); }

  // Makes `leader` lead for those of `signals` that it is able to, if no thread
  // leads. `sleeper` is what wakes it.
  void Promote(const SignalSet& signals, Leader& leader, Sleeper& sleeper);
  // Ends the lead of `sleeper`, if it leads. `took`: the signal that it took
  // last.
  void StepDown(const Sleeper& sleeper, int took);

  // Makes no thread lead for them any more. The leader itself has to look
  // again, and the service's thread if this is true.
  bool TakeBack(const SignalSet& signals);
  void WakeLeader(FutexWakes& wakes);

  // The signals, as a mask, that may be pending with no thread to take them,
  // because the leader has stepped down and is expected back. `waits`: the
  // caller goes on to wait, as the leader does; the signal that the leader took
  // last is left to that wait.
  uint64_t ToDrain(bool waits) const;
  // One of them was pending and was drained: the next drain leaves none out.
  void EndTurn() { had_its_turn_ = 0; }

  // Returns what the service's thread leaves out of its wait from now on.
  // `timer_rang`: its bell was rung by the timer.
  SignalSet LeaveOut(bool timer_rang);

  // Called in a forked child, which does not have the leader.
  void ForgetAfterFork();

 private:
  // Signals that the service's thread does not wait for, because `leader_`
  // does. When the leader steps down, they stay reserved for it for a moment:
  // it is usually soon back, and then need not wake the service's thread twice.
  SignalSet led_;
  SignalSet left_out_;  // when the service's thread last looked
  Sleeper* leader_ = nullptr;
  int had_its_turn_ = 0;          // what the last leader took last
  std::optional<timer_t> timer_;  // rings at the end of that moment
  // True from when the timer is set until its bell is taken. Meanwhile it must
  // be neither set nor deleted: the kernel would then withdraw a pending bell
  // (measured on Linux 6.18), and with it every other bell that was merged into
  // it.
  bool timer_set_ = false;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LEADER_H_
