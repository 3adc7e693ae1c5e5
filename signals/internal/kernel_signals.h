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

// Who has offered the slot for each standard signal.
class DirectHandoff {
 public:
  // Offers it for `sleeper`. False if somebody has.
  bool Offer(int signum, Sleeper& sleeper);
  bool IsOfferedBy(int signum, const Sleeper& sleeper) const {
    return offered_by_[signum] == &sleeper;
  }
  // Takes the slot for `signum` back. Returns how many signals were in it, of
  // which `info` is the first.
  int TakeBack(int signum, RawSiginfo& info);

  // In a forked child, which has none of the threads that offered.
  void ForgetAfterFork() { offered_by_.fill(nullptr); }

 private:
  std::array<const Sleeper*, kStandardSignals + 1> offered_by_ = {};
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

class KernelSignals;

// Takes `subscription` out of the registry, and the handlers and the service's
// thread off the signals that nobody else receives. Returns those that were on
// their way to it and must be sent again. Does nothing the second time.
std::vector<RawSiginfo> Unsubscribe(KernelSignals& kernel,
                                    Subscription& subscription)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// All signals but the faults, which are raised on the thread that caused them:
// a blocked one would skip the program's crash handler. SIGPROF stays open too,
// so that a profiler sees this thread, unless it is itself received.
sigset_t ServiceMask(bool receives_sigprof);

// The dedicated thread, which waits for all that nobody else waits for, and
// dispatches it.
class ServiceThread {
 public:
  explicit ServiceThread(KernelSignals& kernel) : kernel_(kernel) {}
  ServiceThread(const ServiceThread&) = delete;
  ServiceThread& operator=(const ServiceThread&) = delete;

  // Starts it, with the mask of the calling thread, and returns when it runs.
  // 0, or the error of pthread_create(3).
  int Start();
  void Join() { pthread_join(thread_, nullptr); }
  pid_t id() const { return static_cast<pid_t>(id_.load()); }

  // Has it look at what the caller changes under the kernel's mutex; the bell
  // tells it to.
  void NoteChange() { change_.fetch_add(1); }
  // Has it take over what was changed, and waits until it has: it is then in no
  // wait for signals that it should not take any more.
  void Synchronize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

 private:
  void Run();

  KernelSignals& kernel_;
  pthread_t thread_;
  std::atomic<uint32_t> id_{0};      // set by the thread
  std::atomic<uint32_t> change_{0};  // moved under the kernel's mutex
  std::atomic<uint32_t> taken_over_{0};
};

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
  friend class ServiceThread;
  friend std::vector<RawSiginfo> Unsubscribe(KernelSignals&, Subscription&);

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
  // Delivers what is in the slot for `signum`, and takes that back.
  void TakeBackAndDeliver(int signum, FutexWakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int generation_;  // the process that this was made in
  ServiceThread thread_;

  // What the thread is to do: which signals to wait for, and which of its
  // pending ones to take out, into `left_over_`.
  SignalSet wanted_ ABSL_GUARDED_BY(mutex_);
  SignalSet leaving_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // What was still on its way of those in `leaving_`.
  std::vector<RawSiginfo> left_over_ ABSL_GUARDED_BY(mutex_);

  DirectHandoff handoff_ ABSL_GUARDED_BY(mutex_);
  Leadership leadership_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
