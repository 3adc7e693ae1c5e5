#include "tocsin/signals/shutdown.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/task_tree.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/last_hook.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/service_manager.h"
#include "tocsin/signals/signal_receiver.h"

namespace tocsin::inline v0_2 {

using internal::MutexLock;

namespace {

// Two signals for one Ctrl+C are closer together, and a person's second one
// comes later.
constexpr absl::Duration kOneKeystroke = absl::Milliseconds(250);

// Not a helper that inherited NOTIFY_SOCKET. systemd tells since release 248.
bool IsTheServicesProcess() {
  const char* pid = std::getenv("SYSTEMD_EXEC_PID");
  return pid == nullptr || pid == absl::StrCat(getpid());
}

std::string Words(const SignalEvent& event) {
  std::ostringstream out;
  out << event;
  return out.str();
}

}  // namespace

// Moves through the phases: observes the signals on the service's thread, which
// changes the phase, and carries each phase out on a thread of its own, because
// that may take any time.
class Shutdown::Phases final : private internal::SynchronousObserver {
 public:
  Phases(internal::Dispatcher& dispatcher, TaskSet& tasks,
         const ShutdownPolicy& policy)
      : dispatcher_(dispatcher), tasks_(tasks), policy_(policy) {}
  Phases(const Phases&) = delete;
  Phases& operator=(const Phases&) = delete;

  // On an error End() undoes what it has done.
  absl::Status Begin(SignalService& service);

  Phase phase() const;
  std::stop_token drain_token() const { return drain_.get_token(); }
  std::optional<SignalEvent> cause() const;

  // Afterwards nothing is forced. Waits for callbacks that are running.
  void End();

  std::optional<Stop> HandOver();

 private:
  void OnSignal(const SignalEvent& event) override;
  internal::Instant alarm() const override;
  void OnAlarm() override;

  template <void (Phases::*kRun)()>
  absl::Status StartThread();
  // Each on a thread of its own, so that callbacks of the drain hold up no
  // stop, and nothing holds up the end.
  void BeginDrain();
  absl::Duration TimeToStop() const;
  void BeginStop();
  absl::Duration TimeToCleanUp() const;
  void Report();
  std::string ReportText() const;
  void IgnoreBrokenPipesFrom(BrokenPipe policy);
  // Blocks until the phase is past `phase`. False if the shutdown is over.
  bool AwaitEndOf(Phase phase);
  bool AwaitForce();
  // True if it forces the end.
  bool Hear(const SignalEvent& event, internal::Instant now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HearAgain(const SignalEvent& event, internal::Instant now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Move(Phase phase, internal::Instant began, absl::Duration lasts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False if it was before.
  bool Force() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // On the service's thread. Takes no lock of others and no memory.
  void Die() ABSL_LOCKS_EXCLUDED(mutex_);

  internal::Dispatcher& dispatcher_;
  TaskSet& tasks_;
  const ShutdownPolicy policy_;
  std::stop_source drain_;

  mutable internal::SlimMutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kRunning;
  std::optional<SignalEvent> cause_ ABSL_GUARDED_BY(mutex_);
  internal::Instant phase_began_ ABSL_GUARDED_BY(mutex_);
  internal::Instant phase_ends_ ABSL_GUARDED_BY(mutex_) = internal::kNever;
  std::optional<SignalEvent> second_ ABSL_GUARDED_BY(mutex_);  // that forced it
  bool forced_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  // Written before `reported_`.
  std::string report_;
  std::atomic<uint32_t> reported_{0};
  // Of phase_, forced_ and over_. The threads sleep on it.
  std::atomic<uint32_t> moves_{0};

  bool ignores_broken_pipes_ = false;
  bool keeps_broken_pipes_ = false;
  bool observes_ = false;
  std::optional<SignalReceiver> receiver_;
  std::unique_ptr<internal::LastHook> hook_;  // may be null
  const internal::LastWords last_words_;
  std::vector<pthread_t> threads_;
};

absl::StatusOr<std::unique_ptr<Shutdown>> Shutdown::Start(
    SignalService& service, TaskSet& tasks, ShutdownPolicy policy) {
  auto phases = std::make_unique<Phases>(*service.dispatcher_, tasks, policy);
  auto shutdown = absl::WrapUnique(new Shutdown(std::move(phases)));
  if (absl::Status status = shutdown->phases_->Begin(service); !status.ok()) {
    return status;
  }
  return shutdown;
}

Shutdown::Shutdown(std::unique_ptr<Phases> phases)
    : phases_(std::move(phases)) {}

// Callbacks may call phase(), which needs `phases_`, until they have returned.
Shutdown::~Shutdown() { phases_->End(); }

Shutdown::Phase Shutdown::phase() const { return phases_->phase(); }

std::optional<Shutdown::Stop> Shutdown::HandOver() {
  return phases_->HandOver();
}

std::stop_token Shutdown::drain_token() const { return phases_->drain_token(); }

std::optional<SignalEvent> Shutdown::cause() const { return phases_->cause(); }

template <void (Shutdown::Phases::*kRun)()>
absl::Status Shutdown::Phases::StartThread() {
  pthread_t thread;
  const int error =
      internal::StartThread<kRun, "tocsin-shutdown">(thread, this);
  if (error != 0) return internal::NoThread("Shutdown", error);
  threads_.push_back(thread);
  return absl::OkStatus();
}

absl::Status Shutdown::Phases::Begin(SignalService& service) {
  if (policy_.signals == SignalSet()) return absl::OkStatus();
  if (absl::Status status = dispatcher_.Observe(*this); !status.ok()) {
    return status;
  }
  observes_ = true;
  IgnoreBrokenPipesFrom(BrokenPipe::kFails);
  auto hook = internal::LastHook::Start(policy_.on_forced);
  if (!hook.ok()) return hook.status();
  hook_ = *std::move(hook);
  threads_.reserve(3);
  for (absl::Status started :
       {StartThread<&Phases::BeginDrain>(), StartThread<&Phases::BeginStop>(),
        StartThread<&Phases::Report>()}) {
    if (!started.ok()) return started;
  }
  // Nobody reads from it. It keeps the signals coming to the observer.
  ReceiverOptions options;
  options.honor_ignored = policy_.honor_ignored;
  options.on_close = ReceiverOptions::OnClose::kDiscard;
  absl::StatusOr<SignalReceiver> receiver =
      service.Open(policy_.signals, options, /*observed=*/true);
  if (!receiver.ok()) return receiver.status();
  receiver_ = *std::move(receiver);
  return absl::OkStatus();
}

void Shutdown::Phases::End() {
  if (observes_) dispatcher_.StopObserving();
  {
    MutexLock lock(mutex_);
    over_ = true;
    moves_.fetch_add(1);
  }
  internal::FutexWakeAll(&moves_);
  for (pthread_t thread : threads_) pthread_join(thread, nullptr);
  if (ignores_broken_pipes_ && !keeps_broken_pipes_) {
    dispatcher_.KillOnBrokenPipes();
  }
}

std::optional<Shutdown::Stop> Shutdown::Phases::HandOver() {
  if (std::exchange(observes_, false)) dispatcher_.StopObserving();
  MutexLock lock(mutex_);
  if (!cause_.has_value()) return std::nullopt;
  keeps_broken_pipes_ = true;
  return Stop{cause_->signum,
              phase_ == Phase::kDraining
                  ? internal::Add(phase_ends_, policy_.grace)
                  : phase_ends_,
              std::move(hook_)};
}

Shutdown::Phase Shutdown::Phases::phase() const {
  MutexLock lock(mutex_);
  return phase_;
}

std::optional<SignalEvent> Shutdown::Phases::cause() const {
  MutexLock lock(mutex_);
  return cause_;
}

void Shutdown::Phases::OnSignal(const SignalEvent& event) {
  const internal::Instant now = dispatcher_.Now();
  {
    MutexLock lock(mutex_);
    if (!Hear(event, now)) return;
  }
  Die();
}

bool Shutdown::Phases::Hear(const SignalEvent& event, internal::Instant now) {
  if (phase_ != Phase::kRunning) return HearAgain(event, now);
  cause_ = event;
  if (policy_.drain > absl::ZeroDuration()) {
    Move(Phase::kDraining, now, policy_.drain);
  } else {
    Move(Phase::kStopping, now, policy_.grace);
  }
  return false;
}

bool Shutdown::Phases::HearAgain(const SignalEvent& event,
                                 internal::Instant now) {
  const bool draining = phase_ == Phase::kDraining;
  const bool interrupt = event.signum == SIGINT;
  bool forces = false;
  switch (policy_.on_second_signal) {
    case SecondSignal::kInterruptForces:
      if (!interrupt || now < internal::Add(phase_began_, kOneKeystroke)) break;
      if (draining) Move(Phase::kStopping, now, policy_.grace);
      forces = !draining;
      break;
    case SecondSignal::kAnyForces:
      forces = !draining || interrupt || event.signum != cause_->signum;
      break;
    case SecondSignal::kIgnore:
      break;
  }
  if (!forces || !Force()) return false;
  second_ = event;
  return true;
}

internal::Instant Shutdown::Phases::alarm() const {
  MutexLock lock(mutex_);
  return phase_ends_;
}

void Shutdown::Phases::OnAlarm() {
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kDraining) {
      return Move(Phase::kStopping, phase_ends_, policy_.grace);
    }
    if (!Force()) return;
  }
  Die();
}

void Shutdown::Phases::Move(Phase phase, internal::Instant began,
                            absl::Duration lasts) {
  phase_ = phase;
  phase_began_ = began;
  phase_ends_ = internal::Add(began, lasts);
  moves_.fetch_add(1);
  internal::FutexWakeAll(&moves_);
}

void Shutdown::Phases::IgnoreBrokenPipesFrom(BrokenPipe policy) {
  if (policy_.broken_pipe < policy) return;
  if (dispatcher_.IgnoreBrokenPipes()) ignores_broken_pipes_ = true;
}

void Shutdown::Phases::BeginDrain() {
  if (!AwaitEndOf(Phase::kRunning)) return;
  IgnoreBrokenPipesFrom(BrokenPipe::kFailsWhileStopping);
  // A manager that does not listen must not change how the program ends.
  if (IsTheServicesProcess()) {
    NotifyStopping(policy_.extend_timeout ? TimeToStop() : absl::ZeroDuration())
        .IgnoreError();
  }
  drain_.request_stop();
}

// A second more than we take: whoever is to be forced is to say why.
absl::Duration Shutdown::Phases::TimeToStop() const {
  return std::max(policy_.drain, absl::ZeroDuration()) + policy_.grace +
         absl::Seconds(1);
}

void Shutdown::Phases::BeginStop() {
  if (!AwaitEndOf(Phase::kDraining)) return;
  // The other thread is about to, or already runs callbacks.
  while (!drain_.stop_requested()) sched_yield();
  tasks_.Cancel(absl::CancelledError(Words(*cause())), TimeToCleanUp());
}

absl::Duration Shutdown::Phases::TimeToCleanUp() const {
  MutexLock lock(mutex_);
  if (phase_ends_ == internal::kNever) return absl::InfiniteDuration();
  const internal::Instant now = dispatcher_.Now();
  return phase_ends_ > now ? absl::FromChrono(phase_ends_ - now)
                           : absl::ZeroDuration();
}

bool Shutdown::Phases::AwaitEndOf(Phase phase) {
  while (true) {
    const uint32_t moves = moves_.load();
    {
      MutexLock lock(mutex_);
      if (phase_ > phase) return true;
      if (over_) return false;
    }
    if (phase == Phase::kDraining) TOCSIN_STEP("Shutdown: about to sleep");
    internal::FutexWait(moves_, moves);
  }
}

bool Shutdown::Phases::AwaitForce() {
  while (true) {
    const uint32_t moves = moves_.load();
    {
      MutexLock lock(mutex_);
      if (forced_) return true;
      if (over_) return false;
    }
    internal::FutexWait(moves_, moves);
  }
}

bool Shutdown::Phases::Force() {
  if (std::exchange(forced_, true)) return false;
  phase_ends_ = internal::kNever;
  return true;
}

void Shutdown::Phases::Die() {
  moves_.fetch_add(1);
  internal::FutexWakeAll(&moves_);
  const internal::Instant until = dispatcher_.ReportUntil();
  dispatcher_.KillLivingChildren();
  if (hook_ != nullptr) hook_->Call(until);
  while (reported_.load(std::memory_order_acquire) == 0 &&
         internal::Now() < until) {
    internal::FutexWait(reported_, 0, until);
  }
  const bool reported = reported_.load(std::memory_order_acquire) != 0;
  int signum;
  {
    MutexLock lock(mutex_);
    signum = cause_->signum;
  }
  dispatcher_.Die(signum,
                  reported ? absl::string_view(report_)
                           : "tocsin: the end is forced, and nothing "
                             "can be told of what has not ended.\n",
                  last_words_);
}

void Shutdown::Phases::Report() {
  if (!AwaitForce()) return;
  TOCSIN_STEP("Shutdown: about to report");
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
#endif
    report_ = ReportText();
#ifdef ABSL_HAVE_EXCEPTIONS
  } catch (const std::bad_alloc&) {
    return;
  }
#endif
  reported_.store(1, std::memory_order_release);
  internal::FutexWakeAll(&reported_);
}

std::string Shutdown::Phases::ReportText() const {
  std::optional<SignalEvent> second;
  {
    MutexLock lock(mutex_);
    second = second_;
  }
  const SignalEvent first = *cause();
  const std::string why =
      second.has_value()
          ? absl::StrCat("a second signal came, ", Words(*second))
          : absl::StrCat("the grace of ", absl::FormatDuration(policy_.grace),
                         " is over");
  std::string text = absl::StrCat("tocsin: stopping since ", Words(first),
                                  " at ", absl::FormatTime(first.received_at),
                                  " and ", why, ". What has not ended:\n");
  const std::vector<std::string> lines = internal::TaskTree();
  for (const std::string& line : lines) {
    absl::StrAppend(&text, "tocsin:   ", line, "\n");
  }
  if (lines.empty()) {
    absl::StrAppend(&text, "tocsin:   nothing that the library knows of\n");
  }
  return text;
}

}  // namespace tocsin::inline v0_2
