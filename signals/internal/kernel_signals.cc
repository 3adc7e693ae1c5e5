#include "tocsin/signals/internal/kernel_signals.h"

#include <pthread.h>

#include <atomic>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/signals/internal/doorbell_claim.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/leader.h"
#include "tocsin/signals/internal/needed_calls.h"
#include "tocsin/signals/internal/self_signal.h"
#include "tocsin/signals/internal/service_mask.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/internal/unsubscribe.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {
namespace {

// The generation of this process among those forked from each other: one more
// than its parent's.
constinit std::atomic<int> process_generation = 0;

constinit KernelSignals* alive ABSL_GUARDED_BY(disposition_mutex) = nullptr;

}  // namespace

KernelSignals::KernelSignals(std::function<void(const SignalSet&)> on_replaced)
    : generation_(process_generation),
      watch_(*this, std::move(on_replaced)),
      thread_(*this) {}

absl::StatusOr<std::shared_ptr<KernelSignals>> KernelSignals::Start(
    std::function<void(const SignalSet&)> on_replaced) {
  if (absl::Status calls = TryNeededCalls(); !calls.ok()) return calls;
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != nullptr) {
    return absl::AlreadyExistsError(
        "a SignalService is alive in this process, and there can be only one; "
        "pass it on by reference");
  }
  auto kernel = std::make_shared<KernelSignals>(std::move(on_replaced));
  if (absl::Status claimed = ClaimDoorbell(); !claimed.ok()) return claimed;
  if (const int error = kernel->thread_.Start(mask.previous()); error != 0) {
    ReleaseDoorbell();
    return NoThread("the signal service", error);
  }
  SetServiceThread(kernel->thread_.id());
  {
    MutexLock lock(kernel->mutex_);
    kernel->leadership_.MakeTimer(kernel->thread_.id());
  }
  alive = kernel.get();
  return kernel;
}

void KernelSignals::Stop() {
  std::vector<RawSiginfo> again;
  {
    ScopedMask mask;
    MutexLock disposition_lock(disposition_mutex);
    if (alive != this) return;  // in a forked child
    const auto first_open = [&] {
      MutexLock lock(mutex_);
      return registry_.first();
    };
    while (Subscriber* subscription = first_open()) {
      std::vector<RawSiginfo> signals =
          Unsubscribe(*this, thread_, *subscription);
      if (subscription->options().on_close ==
          ReceiverOptions::OnClose::kRedeliver) {
        again.insert(again.end(), signals.begin(), signals.end());
      }
    }
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      thread_.NoteChange();
    }
    RingDoorbell();
    thread_.Join();
    {
      MutexLock lock(mutex_);
      leadership_.DeleteTimer();
    }
    ReleaseDoorbell();
    alive = nullptr;
  }
  Return(again, ReceiverOptions::OnClose::kRedeliver);
}

absl::Status KernelSignals::Enter(Subscriber& subscription) {
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != this) {
    return absl::FailedPreconditionError(
        "forked: this SignalService belongs to the parent process; start one "
        "in the child");
  }
  if (subscription.options().honor_ignored) {
    for (int signum : SignalSet(subscription.signals())) {
      if (IsIgnored(signum)) subscription.LeaveAlone(signum);
    }
  }
  SignalSet first;
  bool not_blocked = false;
  bool to_look_at = !subscription.left_alone().empty();
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    // No thread offers a slot for a signal that several receive.
    for (int signum : subscription.signals()) TakeBackAndDeliver(signum, wakes);
    Register(subscription);
    // No thread leads for it either: the leader looks again.
    to_look_at |= leadership_.TakeBack(subscription.signals());
    leadership_.WakeLeader(wakes);
    for (int signum : subscription.signals()) {
      const bool received = wanted_.contains(signum);
      if (received && FindHandler(signum) != HandlerIs::kReplaced) continue;
      first.insert(signum);
      (received ? lost_ : wanted_).insert(signum);
      not_blocked |= unblocked_.contains(signum);
    }
    to_look_at |= !first.empty();
    if (to_look_at) thread_.NoteChange();
  }
  if (not_blocked) thread_.Synchronize();
  for (int signum : first) Forward(signum);
  // No need to wait: what is forwarded stays pending on the thread until the
  // thread waits for it.
  if (to_look_at) RingDoorbell();
  return absl::OkStatus();
}

std::vector<RawSiginfo> KernelSignals::Leave(Subscriber& subscription) {
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != this) return {};  // stopped, or in a forked child
  return Unsubscribe(*this, thread_, subscription);
}

absl::Status KernelSignals::Verify() const {
  MutexLock disposition_lock(disposition_mutex);
  std::string displaced;
  {
    MutexLock lock(mutex_);
    for (int signum : wanted_) {
      if (FindHandler(signum) != HandlerIs::kReplaced) continue;
      absl::StrAppend(&displaced, displaced.empty() ? "" : ", ",
                      SignalName(signum));
    }
  }
  if (displaced.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "other code of this process has replaced the signal service's handler "
      "and "
      "now gets: ",
      displaced,
      "; open the receivers after it is installed, or leave it out"));
}

bool KernelSignals::Forked() const {
  return generation_ != process_generation.load(std::memory_order_relaxed);
}

// Ends a process in which perhaps nothing works any more. A reader of stderr
// that hangs must not prevent that: what does not fit is left out.
void KernelSignals::Die(int signum, absl::string_view report,
                        const LastWords& last_words) {
  last_words.Say(report);
  DieBySignal(signum);
}

void KernelSignals::SendAgain(const std::vector<RawSiginfo>& signals) {
  for (const RawSiginfo& info : signals) GiveBack(info);
}

struct KernelSignals::Fork {
  static void Prepare() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    disposition_mutex.Lock();
    if (alive != nullptr) alive->mutex_.Lock();
  }
  static void InParent() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (alive != nullptr) alive->mutex_.Unlock();
    disposition_mutex.Unlock();
  }
  // The child has only this thread, and the parent's handlers. If a signal
  // comes earlier, the handler sees that this is another process, and acts on
  // that.
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    ++process_generation;
    if (KernelSignals* mine = std::exchange(alive, nullptr)) {
      ReleaseDoorbell();
      for (int signum : mine->wanted_) RestoreDisposition(signum);
      for (int signum : mine->wanted_) StopForwarding(signum);
      mine->leadership_.ForgetAfterFork();
      for (Subscriber& subscription : mine->registry_.all()) {
        subscription.ForgetWaiters();
      }
      mine->registry_.Clear();
      mine->handoff_.ForgetAfterFork();
      mine->mutex_.Unlock();
    }
    // Also if no service is alive.
    ForgetHandlersAfterFork();
    Leader::ForgetAfterFork();
    disposition_mutex.Unlock();
  }

  [[maybe_unused]] static const int registered;
};

const int KernelSignals::Fork::registered =
    pthread_atfork(Prepare, InParent, InChild);

}  // namespace tocsin::inline v0_2::internal
