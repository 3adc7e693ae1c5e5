#include "tocsin/signals/testing/fake_signals.h"

#include <unistd.h>

#include <csignal>

#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/internal/dispatcher.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {
namespace {

int CodeOf(ChildStatus::Change change) {
  switch (change) {
    case ChildStatus::Change::kExited:
      return CLD_EXITED;
    case ChildStatus::Change::kKilled:
      return CLD_KILLED;
    case ChildStatus::Change::kDumped:
      return CLD_DUMPED;
    case ChildStatus::Change::kTrapped:
      return CLD_TRAPPED;
    case ChildStatus::Change::kStopped:
      return CLD_STOPPED;
    case ChildStatus::Change::kContinued:
      return CLD_CONTINUED;
  }
  return CLD_EXITED;
}

int CodeOf(const SignalEvent& event) {
  using Origin = SignalEvent::Origin;
  switch (event.origin) {
    case Origin::kUser:
      return SI_USER;
    case Origin::kQueue:
      return SI_QUEUE;
    case Origin::kKernel:
    case Origin::kTerminal:
      return SI_KERNEL;
    case Origin::kTimer:
      return SI_TIMER;
    case Origin::kChild:
      return event.child.has_value() ? CodeOf(event.child->change) : CLD_EXITED;
    case Origin::kMessageQueue:
      return SI_MESGQ;
    case Origin::kIo:
      return SI_SIGIO;
    case Origin::kOther:
      break;
  }
  return SI_ASYNCNL;
}

// As the kernel would fill it; the fields of different origins overlap.
internal::RawSiginfo ToSiginfo(const SignalEvent& event) {
  siginfo_t info{};
  info.si_signo = event.signum;
  info.si_code = CodeOf(event);
  if (event.sender.has_value()) {
    info.si_pid = event.sender->pid;
    info.si_uid = event.sender->uid;
  }
  if (event.child.has_value()) {
    info.si_pid = event.child->pid;
    info.si_status = event.child->code;
  }
  if (event.timer_overrun.has_value()) info.si_overrun = *event.timer_overrun;
  if (event.value.has_value()) info.si_value = *event.value;
  if (event.fd.has_value()) info.si_fd = *event.fd;
  return internal::RawSiginfo::From(info);
}

}  // namespace

class FakeSignals::Dispatcher final : public internal::Dispatcher {
 public:
  explicit Dispatcher(absl::Time now) : internal::Dispatcher(now) {}

  void Die(int signum, absl::string_view report,
           const internal::LastWords&) override {
    internal::MutexLock lock(death_mutex_);
    death_ = {signum, std::string(report)};
  }
  internal::Instant ReportUntil() const override { return internal::kNever; }
  std::optional<Death> death() const {
    internal::MutexLock lock(death_mutex_);
    return death_;
  }

 private:
  mutable internal::SlimMutex death_mutex_;
  std::optional<Death> death_ ABSL_GUARDED_BY(death_mutex_);
};

FakeSignals::FakeSignals(absl::Time now)
    : dispatcher_(std::make_shared<Dispatcher>(now)),
      service_(absl::WrapUnique(new SignalService(dispatcher_))) {}

FakeSignals::~FakeSignals() { dispatcher_->CloseAll(); }

absl::Status FakeSignals::Send(int signum) {
  SignalEvent event;
  event.signum = signum;
  event.origin = SignalEvent::Origin::kUser;
  event.sender = {getpid(), getuid()};
  return Send(event);
}

absl::Status FakeSignals::Send(const SignalEvent& event) {
  if (absl::Status status = CheckReceivable({event.signum}); !status.ok()) {
    return status;
  }
  if (!dispatcher_->Dispatch(ToSiginfo(event), /*redirected=*/false)) {
    return absl::NotFoundError(absl::StrCat(
        "no open receiver is subscribed to ", SignalName(event.signum)));
  }
  return absl::OkStatus();
}

absl::Time FakeSignals::now() const { return dispatcher_->WallNow(); }

std::optional<FakeSignals::Death> FakeSignals::death() const {
  return dispatcher_->death();
}

void FakeSignals::Advance(absl::Duration duration) {
  dispatcher_->Advance(duration);
}

}  // namespace tocsin::inline v0_2
