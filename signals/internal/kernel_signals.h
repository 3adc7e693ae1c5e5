// The source of real signals: the dedicated thread that waits for them, and the
// protocol by which receivers come and go without one being lost.
//
// A signal is, at any moment, in one of these places; Leave() empties them in
// this order, and it says in kernel_signals.cc how:
//   1. in a handler's frame that was set up but has not run yet;
//   2. in a handler that is past its look at whether to forward;
//   3. pending on the service's thread, or left in a slot (direct_handoff.h),
//      or taken by a leader (leader.h), which itself sends it again;
//   4. in the queues of receivers, from which somebody takes it or none does.
// When one of several receivers goes, 4 is what matters: a signal that another
// one has in its queue too, or that somebody took, has been heard.
#ifndef TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
#define TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_

#include <pthread.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscription.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {

class KernelSignals final : public Dispatcher {
 public:
  KernelSignals();

  // At most one in a process, from Start() to Stop().
  static absl::StatusOr<std::shared_ptr<KernelSignals>> Start()
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  void Stop() ABSL_LOCKS_EXCLUDED(disposition_mutex);

  absl::Status Enter(Subscription& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  std::vector<RawSiginfo> Leave(Subscription& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);

  void Die(int signum, const std::string& report) override;

  absl::Status Verify() const ABSL_LOCKS_EXCLUDED(disposition_mutex);

 private:
  struct Fork;

  bool Forked() const override;
  void SendAgain(const std::vector<RawSiginfo>& signals) override;
  SignalSet ToLeadFor(const Subscription& subscription) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Promote(const Subscription& subscription, Waiter& waiter) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StepDown(Waiter& waiter, FutexWakes& wakes) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drain(bool waits, FutexWakes& wakes) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The standard signals of `subscription` that nobody else receives or looks
  // at. Others would have to wait until its thread gets to run.
  SignalSet Alone(const Subscription& subscription) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has `waiter` lead for those of `signals` that it is able to.
  void Lead(const SignalSet& signals, Waiter& waiter)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the slot for `signum` back. Returns how many signals were in it, of
  // which `info` is the first.
  int TakeBack(int signum, RawSiginfo& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeBackAndDeliver(int signum, FutexWakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::vector<RawSiginfo> LeaveLocked(Subscription& subscription)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
  // Has the thread take over what was changed below, and waits until it has: it
  // is then in no wait for signals that it should not take any more.
  void Synchronize() ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const int generation_;  // the process that this was made in
  pthread_t thread_;
  std::atomic<uint32_t> thread_id_{0};  // set by the thread

  // What the thread is to do; it looks when the change number moves, which the
  // doorbell tells it.
  SignalSet wanted_ ABSL_GUARDED_BY(mutex_);
  SignalSet leaving_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<uint32_t> change_{0};  // moved under mutex_
  std::atomic<uint32_t> taken_over_{0};
  // What was still on its way of those in `leaving_`.
  std::vector<RawSiginfo> left_over_ ABSL_GUARDED_BY(mutex_);

  // Who offered the slot for each standard signal.
  std::array<const Waiter*, kStandardSignals + 1> offered_by_
      ABSL_GUARDED_BY(mutex_) = {};

  // Signals, of those wanted, that the service's thread does not wait for,
  // because `leader_` does. When that one steps down they stay its own for a
  // moment: as a rule it is soon back, and need not wake the service's thread
  // twice.
  SignalSet led_ ABSL_GUARDED_BY(mutex_);
  SignalSet left_out_ ABSL_GUARDED_BY(mutex_);  // when that thread last looked
  Waiter* leader_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int had_its_turn_ ABSL_GUARDED_BY(mutex_) = 0;  // what the last one took last
  std::optional<timer_t> timer_;  // rings at the end of that moment
  // From when it is set until its bell was heard. Meanwhile it must be neither
  // set nor deleted: with that, the kernel withdraws a bell that is pending
  // (measured on Linux 6.18), and with it every other that was merged into it.
  bool timer_set_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
