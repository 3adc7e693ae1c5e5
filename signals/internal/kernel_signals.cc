#include "tocsin/signals/internal/kernel_signals.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/forwarding.h"
#include "tocsin/signals/internal/pending_signals.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/process.h"

namespace tocsin::internal {

bool DirectHandoff::Offer(int signum, Sleeper& sleeper) {
  if (offered_by_[signum] != nullptr) return false;
  offered_by_[signum] = &sleeper;
  OfferSlot(signum, sleeper);
  return true;
}

int DirectHandoff::TakeBack(int signum, RawSiginfo& info) {
  if (!IsStandard(signum)) return 0;
  if (std::exchange(offered_by_[signum], nullptr) == nullptr) return 0;
  return TakeSlot(signum, info);
}

namespace {

// How long signals are left to a leader, at most, that does not wait for them.
constexpr absl::Duration kAbsence = absl::Milliseconds(10);

}  // namespace

void Leadership::MakeTimer(pid_t thread) {
  sigevent ring = {};
  ring.sigev_notify = SIGEV_THREAD_ID;
  ring.sigev_signo = kDoorbell;
  ring._sigev_un._tid = thread;
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &ring, &timer) == 0) timer_ = timer;
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
  // The service's thread looks, and leaves them to this one.
  if (left_out_ != led) RingDoorbell();
}

void Leadership::StepDown(const Sleeper& sleeper, int took) {
  if (leader_ != &sleeper) return;
  leader_ = nullptr;
  had_its_turn_ = took;
  // Not each time: to set a timer takes longer than all else here.
  if (timer_set_) return;
  timer_set_ = true;
  itimerspec time = {};
  time.it_value = absl::ToTimespec(kAbsence);
  timer_settime(*timer_, 0, &time, nullptr);
}

void Leadership::TakeBack(const SignalSet& signals) {
  for (int signum : signals) led_.erase(signum);
}

void Leadership::WakeLeader(FutexWakes& wakes) {
  if (leader_ != nullptr) leader_->WakeLater(wakes);
}

uint64_t Leadership::ToDrain(bool waits) const {
  if (leader_ != nullptr) return 0;
  uint64_t signals = Mask(led_);
  // The lowest number comes first in a wait: without a look at the others, a
  // storm of it would starve them.
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

std::vector<RawSiginfo> Unsubscribe(KernelSignals& kernel,
                                    Subscription& subscription) {
  SignalSet last;  // those that nobody else receives
  {
    MutexLock lock(kernel.mutex_);
    if (!kernel.IsRegistered(subscription)) return {};
    const SignalSet others = kernel.Subscribed(&subscription);
    for (int signum : subscription.signals()) {
      if (!others.contains(signum)) last.insert(signum);
    }
  }
  uint64_t conflicts = 0;
  for (int signum : last) {
    if (!RestoreDisposition(signum)) ++conflicts;
  }
  TOCSIN_STEP("Unsubscribe: dispositions are restored");
  // Place 1: handlers that have not run yet will send theirs to the process
  // again.
  for (int signum : last) StopForwarding(signum);
  if (!last.empty()) {
    // Place 2: these have forwarded theirs now.
    for (int signum : last) AwaitHandlers(signum);
    // Place 3: the thread takes them out of its pending signals.
    {
      MutexLock lock(kernel.mutex_);
      for (int signum : last) {
        kernel.wanted_.erase(signum);
        RawSiginfo info;
        if (kernel.handoff_.TakeBack(signum, info) > 0) {
          kernel.left_over_.push_back(info);
        }
      }
      kernel.leadership_.TakeBack(last);
      kernel.leaving_ = last;
    }
    kernel.thread_.Synchronize();
  }
  FutexWakes wakes;
  MutexLock lock(kernel.mutex_);
  kernel.stats_.conflicts += conflicts;
  kernel.Unregister(subscription);
  subscription.MarkClosed(wakes);
  return std::exchange(kernel.left_over_, {});
}

namespace {

// How many of one real-time signal are taken in a row before the others get a
// look; standard signals have one each.
constexpr int kRealTimeBatch = 64;

// What is pending on the thread, the kernel hands out before what is pending on
// the process. Of the latter a close takes no more than this: a timer can send
// them as fast as they are taken, and where they are they are not lost.
constexpr int kMostOfProcess = 1024;

}  // namespace

sigset_t ServiceMask(bool receives_sigprof) {
  sigset_t mask;
  sigfillset(&mask);  // without the C library's own, which setuid(2) waits for
  for (int fault :
       {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
    sigdelset(&mask, fault);
  }
  if (!receives_sigprof) sigdelset(&mask, SIGPROF);
  return mask;
}

int ServiceThread::Start() {
  auto run = [](void* self) -> void* {
    pthread_setname_np(pthread_self(), "tocsin-signals");
    static_cast<ServiceThread*>(self)->Run();
    return nullptr;
  };
  // The thread is born with the mask of this one.
  const int error = pthread_create(&thread_, nullptr, run, this);
  if (error != 0) return error;
  while (id_.load() == 0) FutexWait(id_, 0);
  return 0;
}

void ServiceThread::Synchronize() {
  uint32_t change;
  {
    MutexLock lock(kernel_.mutex_);
    change = change_.fetch_add(1) + 1;
  }
  RingDoorbell();
  // Nobody else moves it on: the caller holds the disposition mutex.
  for (uint32_t seen; (seen = taken_over_.load()) != change;) {
    TOCSIN_STEP("ServiceThread: is waited for");
    FutexWait(taken_over_, seen);
  }
}

void ServiceThread::Run() {
  uint64_t wanted = 0;
  bool receives_sigprof = true;
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
      while (TakeSpilled(info)) kernel_.Dispatch(info, /*redirected=*/true);
      uint64_t left = 0;
      {
        MutexLock lock(kernel_.mutex_);
        if (kernel_.stopping_) return;
        if (receives_sigprof != kernel_.wanted_.contains(SIGPROF)) {
          receives_sigprof = !receives_sigprof;
          const sigset_t mask = ServiceMask(receives_sigprof);
          pthread_sigmask(SIG_SETMASK, &mask, nullptr);
        }
        int of_process = 0;
        while (of_process < kMostOfProcess &&
               TakePending(Mask(kernel_.leaving_), info, absl::ZeroDuration()) >
                   0) {
          if (!Unwrap(info)) ++of_process;
          kernel_.left_over_.push_back(info);
        }
        kernel_.leaving_ = {};
        left = Mask(kernel_.leadership_.LeaveOut(
            /*timer_rang=*/std::exchange(rung_by_timer, false)));
        wanted = (Mask(kernel_.wanted_) & ~left) | Bit(kDoorbell);
        change = change_.load();
        taken_over_.store(change);
        FutexWakeAll(&taken_over_);
      }
      // What is forwarded comes to this thread all the same, and each with a
      // bell; and so did what was forwarded before.
      while (TakeNext(left, info)) {
        const bool redirected = Unwrap(info);
        kernel_.Dispatch(info, redirected);
      }
    }
    const absl::Duration timeout = had_their_turn != 0
                                       ? absl::ZeroDuration()
                                       : kernel_.Alarm() - internal::Now();
    TOCSIN_STEP("ServiceThread: about to wait");
    const int signum = TakePending(wanted & ~had_their_turn, info, timeout);
    if (signum == -EAGAIN) {
      had_their_turn = 0;
      kernel_.RingAlarm();
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
    kernel_.Dispatch(info, redirected);
  }
}

namespace {

// Blocks signals in the calling thread. While dispositions change and locks are
// held, no handler of the program's runs here, which might call us again.
class ScopedMask {
 public:
  ScopedMask() {
    const sigset_t mask = ServiceMask(/*receives_sigprof=*/true);
    pthread_sigmask(SIG_SETMASK, &mask, &previous_);
  }
  ScopedMask(const ScopedMask&) = delete;
  ScopedMask& operator=(const ScopedMask&) = delete;
  ~ScopedMask() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

 private:
  sigset_t previous_;
};

// Of this process among those that were forked from each other: one more than
// its parent's.
constinit std::atomic<int> process_generation = 0;

constinit KernelSignals* alive ABSL_GUARDED_BY(disposition_mutex) = nullptr;

}  // namespace

KernelSignals::KernelSignals()
    : generation_(process_generation), thread_(*this) {}

absl::StatusOr<std::shared_ptr<KernelSignals>> KernelSignals::Start() {
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != nullptr) {
    return absl::AlreadyExistsError(
        "a SignalService is alive in this process, and there can be only one; "
        "pass it on by reference");
  }
  auto kernel = std::make_shared<KernelSignals>();
  if (const int error = kernel->thread_.Start(); error != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "pthread_create for the signal service: ", ErrorText(error)));
  }
  SetServiceThread(kernel->thread_.id());
  {
    MutexLock lock(kernel->mutex_);
    kernel->leadership_.MakeTimer(kernel->thread_.id());
  }
  Forward(kDoorbell);  // so that a stranger's does not end the process
  alive = kernel.get();
  return kernel;
}

void KernelSignals::Stop() {
  std::vector<RawSiginfo> again;
  {
    ScopedMask mask;
    MutexLock disposition_lock(disposition_mutex);
    if (alive != this) return;  // in a forked child
    std::vector<Subscription*> open;
    {
      MutexLock lock(mutex_);
      open = registered_;
    }
    for (Subscription* subscription : open) {
      std::vector<RawSiginfo> signals = Unsubscribe(*this, *subscription);
      if (subscription->options_.on_close ==
          ReceiverOptions::OnClose::kRedeliver) {
        again.insert(again.end(), signals.begin(), signals.end());
      }
    }
    RestoreDisposition(kDoorbell);
    StopForwarding(kDoorbell);
    AwaitHandlers(kDoorbell);
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
    alive = nullptr;
  }
  Return(again, ReceiverOptions::OnClose::kRedeliver);
}

absl::Status KernelSignals::Enter(Subscription& subscription) {
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != this) {
    return absl::FailedPreconditionError(
        "forked: this SignalService belongs to the parent process; start one "
        "in the child");
  }
  if (subscription.options_.honor_ignored) {
    for (int signum : SignalSet(subscription.signals_)) {
      if (IsIgnored(signum)) subscription.signals_.erase(signum);
    }
  }
  SignalSet first;
  {
    FutexWakes wakes;
    MutexLock lock(mutex_);
    // Nobody has a slot for what several receive.
    for (int signum : subscription.signals_) TakeBackAndDeliver(signum, wakes);
    Register(subscription);  // the last that can throw
    // Nor leads for it: who does looks again.
    leadership_.TakeBack(subscription.signals_);
    leadership_.WakeLeader(wakes);
    for (int signum : subscription.signals_) {
      if (!wanted_.contains(signum)) first.insert(signum);
      wanted_.insert(signum);
    }
    thread_.NoteChange();
  }
  // The thread must block SIGPROF before a handler forwards one to it, or it
  // would be its own handler that takes it there, for ever.
  if (first.contains(SIGPROF)) thread_.Synchronize();
  for (int signum : first) Forward(signum);
  // Nothing to wait for: what is forwarded stays pending on the thread until it
  // waits for it.
  RingDoorbell();
  return absl::OkStatus();
}

std::vector<RawSiginfo> KernelSignals::Leave(Subscription& subscription) {
  ScopedMask mask;
  MutexLock disposition_lock(disposition_mutex);
  if (alive != this) return {};  // stopped, or in a forked child
  return Unsubscribe(*this, subscription);
}

absl::Status KernelSignals::Verify() const {
  MutexLock disposition_lock(disposition_mutex);
  std::string displaced;
  {
    MutexLock lock(mutex_);
    for (int signum : wanted_) {
      if (HandlerInPlace(signum)) continue;
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

// For the end of a process in which nothing may work any more. A reader of
// stderr that hangs must not keep it from ending: what does not fit is left
// out.
void KernelSignals::Die(int signum, const std::string& report) {
  pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&out, 1, 0) == 1) {
    // A pipe that is ready takes so much without blocking (pipe(7)).
    const size_t size = std::min(report.size(), size_t{PIPE_BUF});
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, report.data(), size);
  }
  DieBySignal(signum);
}

void KernelSignals::SendAgain(const std::vector<RawSiginfo>& signals) {
  for (const RawSiginfo& info : signals) GiveBack(info);
}

SignalSet KernelSignals::Alone(const Subscription& subscription) const {
  SignalSet alone;
  if (subscription.observed_) return alone;
  for (int signum : subscription.signals_) {
    if (!IsStandard(signum) || shared_.contains(signum)) continue;
    // While it leaves, it is still registered.
    if (wanted_.contains(signum)) alone.insert(signum);
  }
  return alone;
}

SignalSet KernelSignals::ToLeadFor(const Subscription& subscription) {
  if (!leadership_.possible()) return {};
  // Its descriptor is to become readable also while no thread waits.
  if (subscription.fd_ >= 0) return {};
  return Alone(subscription);
}

void KernelSignals::Promote(const Subscription& subscription, Waiter& waiter) {
  const SignalSet alone = Alone(subscription);
  if (waiter.leader.able()) {
    leadership_.Promote(alone, waiter.leader, waiter.sleeper);
    return;
  }
  for (int signum : alone) {
    if (handoff_.Offer(signum, waiter.sleeper)) waiter.offered.insert(signum);
  }
}

void KernelSignals::StepDown(Waiter& waiter, FutexWakes& wakes) {
  leadership_.StepDown(waiter.sleeper, waiter.took);
  for (int signum : std::exchange(waiter.offered, {})) {
    if (handoff_.IsOfferedBy(signum, waiter.sleeper)) {
      TakeBackAndDeliver(signum, wakes);
    }
  }
}

void KernelSignals::Drain(bool waits, FutexWakes& wakes) {
  uint64_t left = leadership_.ToDrain(waits);
  RawSiginfo info;
  while (TakeNext(left, info)) {
    Deliver(info, /*redirected=*/false, internal::Now(), wakes);
  }
}

void KernelSignals::TakeBackAndDeliver(int signum, FutexWakes& wakes) {
  RawSiginfo info;
  const int count = handoff_.TakeBack(signum, info);
  if (count == 0) return;
  const absl::Time now = internal::Now();
  for (int i = 0; i < count; ++i) {
    Deliver(info, /*redirected=*/true, now, wakes);
  }
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
  // The child has this thread only, and the parent's handlers. A signal that
  // comes before this is dealt with in the handler, by its look at the process.
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    ++process_generation;
    if (KernelSignals* mine = std::exchange(alive, nullptr)) {
      mine->wanted_.insert(kDoorbell);
      for (int signum : mine->wanted_) RestoreDisposition(signum);
      for (int signum : mine->wanted_) StopForwarding(signum);
      mine->leadership_.ForgetAfterFork();
      for (Subscription* subscription : mine->registered_) {
        subscription->ForgetWaiters();
      }
      mine->registered_.clear();
      mine->handoff_.ForgetAfterFork();
      mine->mutex_.Unlock();
    }
    // Also where no service is alive any more.
    ForgetHandlersAfterFork();
    Leader::ForgetAfterFork();
    disposition_mutex.Unlock();
  }

  [[maybe_unused]] static const int registered;
};

const int KernelSignals::Fork::registered =
    pthread_atfork(Prepare, InParent, InChild);

}  // namespace tocsin::internal
