// A thread in Receive() that waits for signals itself, in the place of the
// service's thread: one wake-up for a signal instead of two. This is the
// leader/followers pattern (Schmidt et al., POSA 2): one thread at a time
// leads, and the service's thread is the follower that is always there.
//
// Its own thread makes and uses a Leader; others call Interrupt() alone.
//
// It can lead where it blocks the signals and the doorbell (ScopedSignalBlock),
// so that they become pending and no handler runs. Where it does not, it may
// offer a slot instead (direct_handoff.h).
#ifndef TOCSIN_SIGNALS_INTERNAL_LEADER_H_
#define TOCSIN_SIGNALS_INTERNAL_LEADER_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <ctime>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/wakeable.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class Leader final : public BlockingCall {
 public:
  // Able if `signals` are some, and the calling thread blocks them all and the
  // doorbell.
  explicit Leader(const SignalSet& signals = {});
  Leader(const Leader&) = delete;
  Leader& operator=(const Leader&) = delete;
  // Leaves no bell pending, which would ring once the thread's mask is put
  // back, and end the process if the service is gone. Nobody calls Interrupt()
  // any more.
  ~Leader();

  bool able() const { return thread_ != 0; }

  // Those that it was made with.
  const SignalSet& able_for() const { return able_for_; }

  // Has the next Block() wait for `signals`, and not only for Interrupt().
  void WaitFor(const SignalSet& signals) { signals_ = signals; }
  // What Block() took since the last call.
  std::optional<RawSiginfo> Taken() { return std::exchange(taken_, {}); }

  void Block(const Sleeper& sleeper, absl::Time until) override;
  void Interrupt() override;

  // In a forked child, whose thread has another id than the one that forked.
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
  // Makes the timer, which rings the bell of `thread`. At RLIMIT_SIGPENDING
  // there is none, and no thread leads.
  void MakeTimer(pid_t thread);
  // Once that thread has ended: see timer_set_.
  void DeleteTimer();
  bool possible() const { return timer_.has_value(); }

  // Has `leader` lead for those of `signals` that it is able to, if nobody
  // does. `sleeper` is what wakes it.
  void Promote(const SignalSet& signals, Leader& leader, Sleeper& sleeper);
  // If it led. `took`: the signal that it took last.
  void StepDown(const Sleeper& sleeper, int took);

  // Has nobody lead for them any more. The leader itself has to look again.
  void TakeBack(const SignalSet& signals);
  void WakeLeader(FutexWakes& wakes);

  // What may be pending and taken by nobody, as a mask, because its leader has
  // stepped down and is expected back. `waits`: it is the leader that asks, and
  // that will wait for the signal that it took last.
  uint64_t ToDrain(bool waits) const;

  // What the service's thread leaves out of its wait from now on. `timer_rang`:
  // its bell was that of the timer.
  SignalSet LeaveOut(bool timer_rang);

  // In a forked child, which does not have the leader.
  void ForgetAfterFork();

 private:
  // Signals that the service's thread does not wait for, because `leader_`
  // does. When that one steps down they stay its own for a moment: as a rule it
  // is soon back, and need not wake the service's thread twice.
  SignalSet led_;
  SignalSet left_out_;  // when that thread last looked
  Sleeper* leader_ = nullptr;
  int had_its_turn_ = 0;          // what the last one took last
  std::optional<timer_t> timer_;  // rings at the end of that moment
  // From when it is set until its bell was heard. Meanwhile it must be neither
  // set nor deleted: with that, the kernel withdraws a bell that is pending
  // (measured on Linux 6.18), and with it every other that was merged into it.
  bool timer_set_ = false;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LEADER_H_
