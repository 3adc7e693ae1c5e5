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
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {

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

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LEADER_H_
