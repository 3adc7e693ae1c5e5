// The windows of the forwarding handler, of the close protocol, of direct
// hand-offs, spill slots and leaders and of the service's thread, each held
// open at its step.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tests/steps.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/kernel_signals.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/tests/scoped_thread.h"

// The C library's sigaction(2) by a name that ThreadSanitizer leaves alone: it
// would run the handler later.
extern "C" int __sigaction(int, const struct sigaction*, struct sigaction*);

namespace tocsin {
namespace {

bool InPlace(int signum) {
  return internal::FindHandler(signum) == internal::HandlerIs::kInPlace;
}

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

int SetTimer(timer_t timer, const itimerspec& time) {
  return static_cast<int>(syscall(SYS_timer_settime, timer, 0, &time, nullptr));
}

// Has it ring, and returns once it has.
void RingTimer(timer_t timer) {
  itimerspec time = {.it_interval = {},
                     .it_value = {.tv_sec = 0, .tv_nsec = 1}};
  ASSERT_EQ(SetTimer(timer, time), 0);
  do {
    ASSERT_EQ(timer_gettime(timer, &time), 0);
  } while (time.it_value.tv_sec != 0 || time.it_value.tv_nsec != 0);
}

// The library has one timer only, the service's, and sets it by this program's
// own timer_settime(). While `timer_waits`, it does not ring by itself.
std::atomic<bool> timer_waits = false;
std::atomic<int> timer_sets = 0;
std::atomic<timer_t> leader_timer;

}  // namespace
}  // namespace tocsin

extern "C" int timer_settime(timer_t timer, int, const itimerspec* time,
                             itimerspec*) noexcept {
  tocsin::leader_timer = timer;
  itimerspec then = *time;
  if (tocsin::timer_waits) then.it_value = {.tv_sec = 1000, .tv_nsec = 0};
  const int result = tocsin::SetTimer(timer, then);
  ++tocsin::timer_sets;
  return result;
}

namespace tocsin {
namespace {

// What a signal brings along.
struct Siginfo {
  int code;
  int error;
  int value;

  bool operator==(const Siginfo&) const = default;
};

Siginfo Queued(int value) { return {SI_QUEUE, 0, value}; }

constexpr uint32_t kMostHandled = 4000;
uint32_t handled = 0;  // by the __atomic builtins
Siginfo handled_siginfo[kMostHandled];

// It may run inside of a sanitizer's runtime, so nothing in it is instrumented.
#if defined(__clang__)
__attribute__((disable_sanitizer_instrumentation))
#else
__attribute__((no_sanitize("thread", "address", "undefined")))
#endif
void Handle(int, siginfo_t* info, void*) {
  const uint32_t at = __atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST);
  if (at >= kMostHandled) return;
  handled_siginfo[at].code = info->si_code;
  handled_siginfo[at].error = info->si_errno;
  handled_siginfo[at].value = info->si_value.sival_int;
}

// Past ThreadSanitizer, as above.
void SetRaw(int signum, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ASSERT_EQ(__sigaction(signum, &action, nullptr), 0);
}

sigset_t SetOf(const SignalSet& signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int signum : signals) sigaddset(&set, signum);
  return set;
}

const SignalSet& Used() {
  static const SignalSet& used =
      *new SignalSet({SIGUSR1, SIGTERM, SIGRTMIN, SIGRTMIN + 1});
  return used;
}

// Every thread blocks the signals of Used(), but for a Sender. There was a
// handler for them before us.
class Races : public ::testing::Test {
 public:
  Races() {
    const sigset_t used = SetOf(Used());
    pthread_sigmask(SIG_BLOCK, &used, &before_);
    struct sigaction action {};
    action.sa_sigaction = Handle;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    for (int signum : Used()) {
      EXPECT_EQ(__sigaction(signum, &action, nullptr), 0);
    }
    __atomic_store_n(&handled, 0, __ATOMIC_SEQ_CST);
  }
  ~Races() override {
    Effects();
    for (int signum : Used()) SetDisposition(signum, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  // What of the signals had its previous effect so far, or is pending to have
  // it.
  static std::vector<Siginfo> Effects() {
    const uint32_t count = std::min(
        __atomic_exchange_n(&handled, 0, __ATOMIC_SEQ_CST), kMostHandled);
    std::vector<Siginfo> effects(handled_siginfo, handled_siginfo + count);
    const sigset_t used = SetOf(Used());
    const timespec now = {};
    siginfo_t info;
    while (sigtimedwait(&used, &info, &now) > 0) {
      effects.push_back({info.si_code, info.si_errno, info.si_value.sival_int});
    }
    return effects;
  }

 private:
  sigset_t before_;
};

// A thread beside the test's, in a scope of its own.
class Beside {
 public:
  explicit Beside(std::function<void()> body)
      : thread_([this, body = std::move(body)] {
          task_ = TaskOfThisThread();
          handle_ = pthread_self();
          begun_.count_down();
          body();
          over_ = true;
        }) {
    begun_.wait();
  }

  const std::string& task() const { return task_; }
  bool over() const { return over_; }
  void Cancel() { thread_.scope().Cancel(); }
  // Sends `signum` to this thread.
  void Interrupt(int signum) { EXPECT_EQ(pthread_kill(handle_, signum), 0); }
  void Join() { thread_.Join(); }

  // These wait for that, or for its end.
  void AwaitAsleep() { thread_.AwaitAsleep(); }
  void AwaitStep(const AtStep& step) const {
    while (!over_ && !step.passed()) sched_yield();
  }

 private:
  std::latch begun_{1};
  std::string task_;
  pthread_t handle_ = {};
  std::atomic<bool> over_ = false;
  ScopedThread thread_;
};

void Nothing() {}

// All that became of the signals: the receiver has them, or they had their
// previous effect.
std::vector<Siginfo> Fates(SignalReceiver& receiver) {
  std::vector<Siginfo> fates = Races::Effects();
  for (auto event = receiver.TryReceive(); event.ok();
       event = receiver.TryReceive()) {
    fates.push_back(Queued(event->value.value_or(sigval{}).sival_int));
  }
  return fates;
}

// A thread that takes a signal in its handler, by which it sends that to
// itself, so many times.
class Sender : public Beside {
 public:
  Sender(int signum, int value, int times = 1)
      : Sender(signum, [=] {
          for (int i = 0; i < times; ++i) {
            EXPECT_EQ(pthread_sigqueue(pthread_self(), signum,
                                       sigval{.sival_int = value + i}),
                      0);
          }
        }) {}
  Sender(int signum, std::function<void()> send)
      : Beside([=] {
          const sigset_t only = SetOf({signum});
          pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
          send();
          pthread_sigmask(SIG_BLOCK, &only, nullptr);
        }) {}
};

// Holds the service's thread just before it waits for signals without an end,
// past its look at what it is to do.
class ServiceThreadHeld {
 public:
  ServiceThreadHeld() {
    // Asleep in its wait.
    const std::string task = ServiceThread();
    while (StatusField(task, "State") != "S" ||
           Contains(StatusMask(task, "SigBlk"), SIGSTKFLT)) {
      sched_yield();
    }
    // Each of the three has a place of its own, a later one a lower one, so
    // that they hold different waits.
    std::optional<AtStep> places[] = {std::nullopt, std::nullopt};
    for (std::optional<AtStep>& place : places) place.emplace("", Nothing);
    HeldAt first(kStep);
    places[1].reset();
    internal::RingDoorbell();
    first.AwaitThread();
    // After a bell it looks first whether anything else is pending. But it may
    // have woken by itself, and not have heard the bell yet.
    std::optional<HeldAt> look;
    if (Contains(StatusMask(task, "SigPnd"), SIGSTKFLT)) {
      look.emplace(kStep);
      first.Release();
      look->AwaitThread();
    }
    places[0].reset();
    wait_.emplace(kStep);
    first.Release();
    look.reset();
    wait_->AwaitThread();
  }
  void Release() { wait_->Release(); }

 private:
  static constexpr char kStep[] = "ServiceThread: about to wait";
  std::optional<HeldAt> wait_;
};

// Where a signal can be when its last receiver closes. -----------------------

class CloseRaces : public Races {
 protected:
  std::unique_ptr<SignalService> service_ = StartService();
};

TEST_F(CloseRaces, ASignalWhoseHandlerHasNotBegunHasItsOldEffect) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt begins("Handler: begins");
  Sender sender(SIGUSR1, 7);
  begins.AwaitThread();
  receiver.Close();
  begins.Release();
  sender.Join();
  EXPECT_THAT(Effects(), ElementsAre(Queued(7)));
  EXPECT_FALSE(receiver.TryReceive().ok());
}

// Also if that came after the close.
TEST_F(CloseRaces, ASignalWhoseHandlerHasNotBegunGoesToTheHandlerOfThen) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt begins("Handler: begins");
  Sender sender(SIGUSR1, 7);
  begins.AwaitThread();
  receiver.Close();
  static std::atomic<int> then;
  then = 0;
  SetRaw(SIGUSR1, [](int) { ++then; });
  begins.Release();
  sender.Join();
  EXPECT_EQ(then, 1);
  EXPECT_THAT(Effects(), IsEmpty());
}

TEST_F(CloseRaces, AHandlerThatHasNotLookedYetIsWaitedFor) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt counted("Handler: is counted");
  AtStep waits("Disposition: waits for a handler", Nothing);
  Sender sender(SIGUSR1, 7);
  counted.AwaitThread();
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  EXPECT_FALSE(closer.over());
  counted.Release();
  sender.Join();
  closer.Join();
  EXPECT_THAT(Fates(receiver), ElementsAre(Queued(7)));
}

TEST_F(CloseRaces, AHandlerThatIsAboutToForwardIsWaitedFor) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt forwards("Handler: about to forward");
  AtStep waits("Disposition: waits for a handler", Nothing);
  Sender sender(SIGUSR1, 7);
  forwards.AwaitThread();
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  EXPECT_FALSE(closer.over());
  forwards.Release();
  sender.Join();
  closer.Join();
  EXPECT_THAT(Fates(receiver), ElementsAre(Queued(7)));
}

// While another one is being waited for.
TEST_F(CloseRaces, AHandlerThatBeginsAfterwardsForwardsNothing) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN});
  HeldAt forwards("Handler: about to forward");
  Sender first(SIGRTMIN, 1);
  forwards.AwaitThread();
  HeldAt begins("Handler: begins");
  Sender second(SIGRTMIN, 2);
  begins.AwaitThread();
  AtStep waits("Disposition: waits for a handler", Nothing);
  AtStep also_forwards("Handler: about to forward", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  begins.Release();
  second.Join();
  EXPECT_FALSE(also_forwards.passed());
  forwards.Release();
  first.Join();
  closer.Join();
  EXPECT_THAT(Fates(receiver), UnorderedElementsAre(Queued(1), Queued(2)));
}

TEST_F(CloseRaces, TheOldDispositionIsThereBeforeForwardingStops) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt restored("Unsubscribe: dispositions are restored");
  Beside closer([&] { receiver.Close(); });
  restored.AwaitThread();
  EXPECT_FALSE(InPlace(SIGUSR1));
  // No handler of the program runs here, which might call the service.
  const uint64_t blocked = StatusMask(closer.task(), "SigBlk");
  EXPECT_TRUE(Contains(blocked, SIGUSR2));
  EXPECT_TRUE(Contains(blocked, SIGPROF));
  EXPECT_FALSE(Contains(blocked, SIGSEGV));
  restored.Release();
  closer.Join();
}

// The service's thread takes the doorbell first, and so none of these before
// the close has it look.
TEST_F(CloseRaces, WhatIsPendingOnTheServiceThreadIsSentAgain) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN});
  ServiceThreadHeld held;
  Sender(SIGRTMIN, 7).Join();
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  held.Release();
  closer.Join();
  EXPECT_THAT(Effects(), ElementsAre(Queued(7)));
  EXPECT_EQ(service_->stats().redelivered, 1u);
  EXPECT_FALSE(receiver.TryReceive().ok());
  // Once.
  SignalReceiver again = OpenReceiver(*service_, {SIGRTMIN});
  again.Close();
  EXPECT_THAT(Effects(), IsEmpty());
  EXPECT_EQ(service_->stats().redelivered, 1u);
}

// More than the close takes of what is pending on the process.
TEST_F(CloseRaces, AllThatIsPendingOnTheServiceThreadIsSentAgain) {
  constexpr int kSignals = 1100;
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN});
  ServiceThreadHeld held;
  Sender(SIGRTMIN, 0, kSignals).Join();
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  held.Release();
  closer.Join();
  EXPECT_EQ(Effects().size(), kSignals);
  EXPECT_EQ(service_->stats().redelivered, kSignals);
}

TEST_F(CloseRaces, WhatIsPendingOnTheProcessStaysOrIsSentAgain) {
  constexpr int kSignals = 1100;
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN});
  ServiceThreadHeld held;
  for (int i = 0; i < kSignals; ++i) QueueSelf(SIGRTMIN, i);
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  held.Release();
  closer.Join();
  EXPECT_EQ(Effects().size(), kSignals);
}

TEST_F(CloseRaces, WhatTheServiceThreadHasInHandIsQueued) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN});
  HeldAt taken("ServiceThread: has taken a signal");
  QueueSelf(SIGRTMIN, 7);
  taken.AwaitThread();
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  EXPECT_FALSE(closer.over());
  taken.Release();
  closer.Join();
  const auto event = receiver.TryReceive();
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(event->value->sival_int, 7);
  EXPECT_THAT(Effects(), IsEmpty());
}

TEST_F(CloseRaces, WhatALeaderHasTakenIsSentAgain) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt over("Leader: wait is over");
  absl::Status status;
  Beside listener([&] {
    const ScopedSignalBlock block({SIGUSR1});
    status = receiver.Receive().status();
    // And no bell is left, which would ring when the mask is put back.
    EXPECT_FALSE(Contains(StatusMask(TaskOfThisThread(), "SigPnd"), SIGSTKFLT));
  });
  AwaitLeader(listener.task(), SIGUSR1);
  QueueSelf(SIGUSR1, 7);
  over.AwaitThread();
  receiver.Close();
  over.Release();
  listener.Join();
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_THAT(Effects(), ElementsAre(Queued(7)));
}

// Nobody else opens or closes one, but signals go on.
TEST_F(CloseRaces, TheServiceThreadDoesNotWaitForWhoChangesDispositions) {
  SignalReceiver witness = OpenReceiver(*service_, {SIGRTMIN});
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt restored("Unsubscribe: dispositions are restored");
  Beside closer([&] { receiver.Close(); });
  restored.AwaitThread();
  internal::RingDoorbell();  // has it look, before it takes the next
  QueueSelf(SIGRTMIN, 7);
  EXPECT_EQ(Next(witness).value->sival_int, 7);
  restored.Release();
  closer.Join();
}

// Where that is not blocked by who started the service: its thread would run
// the old handler for what is forwarded, with a siginfo that is not the
// signal's.
TEST_F(CloseRaces, WhatIsLeavingStaysBlockedOnTheServiceThread) {
  service_.reset();
  std::latch looks(1);
  std::latch goes_on(1);
  auto service = *SignalService::Start({.on_replaced = [&](const SignalSet&) {
    looks.count_down();
    goes_on.wait();
  }});
  struct sigaction action {};
  action.sa_sigaction = Handle;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ASSERT_EQ(__sigaction(SIGUSR2, &action, nullptr), 0);
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR2});
  SignalReceiver other = OpenReceiver(*service, {SIGTERM});
  const internal::KernelAction ours = internal::GetAction(SIGTERM);
  SetRaw(SIGTERM, SIG_IGN);
  internal::RingDoorbell();
  looks.wait();
  internal::SetAction(SIGTERM, ours);
  Sender(SIGUSR2, 7).Join();
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { receiver.Close(); });
  closer.AwaitStep(waits);
  goes_on.count_down();
  closer.Join();
  EXPECT_THAT(Fates(receiver), ElementsAre(Queued(7)));
  service.reset();
  SetDisposition(SIGUSR2, SIG_DFL);
}

// Other code replaces our handler, a second receiver installs it again, and
// the other code puts back what it had found.
class PutBackRaces : public CloseRaces {
 protected:
  void PutBack() {
    first_.emplace(OpenReceiver(*service_, {SIGUSR1}));
    struct sigaction found;
    ASSERT_EQ(__sigaction(SIGUSR1, nullptr, &found), 0);
    SetRaw(SIGUSR1, [](int) {});
    second_.emplace(OpenReceiver(*service_, {SIGUSR1}));
    held_.emplace();
    ASSERT_EQ(__sigaction(SIGUSR1, &found, nullptr), 0);
    EXPECT_EQ(internal::FindHandler(SIGUSR1), internal::HandlerIs::kPutBack);
    first_->Close();
  }

  std::optional<SignalReceiver> first_;
  std::optional<SignalReceiver> second_;
  std::optional<ServiceThreadHeld> held_;  // has not noticed yet
};

TEST_F(PutBackRaces, ACloseThatFindsItRestoresTheFirstDisposition) {
  PutBack();
  AtStep waits("ServiceThread: is waited for", Nothing);
  Beside closer([&] { second_->Close(); });
  closer.AwaitStep(waits);
  EXPECT_EQ(Disposition(SIGUSR1).sa_sigaction, Handle);
  held_->Release();
  closer.Join();
}

TEST_F(PutBackRaces, SoDoesOneAfterItWasNoticed) {
  PutBack();
  internal::RingDoorbell();
  held_->Release();
  while (!InPlace(SIGUSR1)) sched_yield();
  second_->Close();
  EXPECT_EQ(Disposition(SIGUSR1).sa_sigaction, Handle);
}

// What is left of the service when it ends. ----------------------------------

class StopRaces : public Races {
 protected:
  // Has the service end while 7 is pending on its thread.
  static void EndWithOnePending(ReceiverOptions options) {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN}, options);
    ServiceThreadHeld held;
    Sender(SIGRTMIN, 7).Join();
    AtStep waits("ServiceThread: is waited for", Nothing);
    Beside stopper([&] { service.reset(); });
    stopper.AwaitStep(waits);
    held.Release();
    stopper.Join();
    EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));
  }
};

TEST_F(StopRaces, WhatIsPendingOnItsThreadIsSentAgain) {
  EndWithOnePending({});
  EXPECT_THAT(Effects(), ElementsAre(Queued(7)));
}

TEST_F(StopRaces, WhatIsPendingOnItsThreadIsDiscardedWhereThatWasAskedFor) {
  EndWithOnePending({.on_close = ReceiverOptions::OnClose::kDiscard});
  EXPECT_THAT(Effects(), IsEmpty());
}

TEST_F(StopRaces, ABellWhoseHandlerHasNotBegunDoesNoHarm) {
  Child child(Fork([] {
    auto service = StartService();
    HeldAt begins("Handler: begins");
    Beside stranger([] { raise(SIGSTKFLT); });
    begins.AwaitThread();
    service.reset();
    begins.Release();
    stranger.Join();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// Direct hand-off. -----------------------------------------------------------

// A thread that waits and has offered its slot.
class HandoffRaces : public CloseRaces {
 protected:
  void AwaitSlot() {
    while (!internal::IsWaitedFor(SIGUSR1)) sched_yield();
    listener_.AwaitAsleep();
  }

  SignalReceiver receiver_ = OpenReceiver(*service_, {SIGUSR1});
  absl::StatusOr<SignalEvent> event_ = absl::UnknownError("not back");
  std::latch go_{1};
  Beside listener_{[this] {
    go_.wait();
    event_ = receiver_.Receive();
  }};
};

TEST_F(HandoffRaces, WhoTakesItBackWaitsForTheHandlerThatFillsIt) {
  go_.count_down();
  AwaitSlot();
  HeldAt fills("Handler: about to hand over");
  AtStep waits("DirectHandoff: waits for a handler", Nothing);
  Sender sender(SIGUSR1, 7);
  fills.AwaitThread();
  listener_.Cancel();
  listener_.AwaitStep(waits);
  EXPECT_FALSE(listener_.over());
  fills.Release();
  sender.Join();
  listener_.Join();
  ASSERT_TRUE(event_.ok()) << event_.status();
  EXPECT_EQ(event_->value->sival_int, 7);
}

// Or the handler would write to a stack that has gone.
TEST_F(HandoffRaces, WhoTakesItBackWaitsUntilTheHandlerHasDoneWithItsWord) {
  SetDisposition(SIGUSR2, [](int) {});
  go_.count_down();
  AwaitSlot();
  HeldAt marked("Handler: has marked the sleeper");
  AtStep waits("DirectHandoff: waits for a handler", Nothing);
  Sender sender(SIGUSR1, 7);
  marked.AwaitThread();
  listener_.Interrupt(SIGUSR2);
  listener_.AwaitStep(waits);
  EXPECT_FALSE(listener_.over());
  marked.Release();
  sender.Join();
  listener_.Join();
  ASSERT_TRUE(event_.ok()) << event_.status();
  EXPECT_EQ(event_->value->sival_int, 7);
}

TEST_F(HandoffRaces, AHandlerThatFindsAnotherAtItForwards) {
  go_.count_down();
  AwaitSlot();
  HeldAt fills("Handler: about to hand over");
  AtStep waits("DirectHandoff: waits for a handler", Nothing);
  Sender first(SIGUSR1, 1);
  fills.AwaitThread();
  AtStep forwards("Handler: about to forward", Nothing);
  Sender second(SIGUSR1, 2);
  second.Join();
  EXPECT_TRUE(forwards.passed());
  if (forwards.passed()) listener_.AwaitStep(waits);  // it was woken
  fills.Release();
  first.Join();
  listener_.Join();
  ASSERT_TRUE(event_.ok()) << event_.status();
  EXPECT_EQ(event_->count, 2);
}

TEST_F(HandoffRaces, ASignalThatComesWhileItIsBeingOfferedIsReceived) {
  HeldAt takes("DirectHandoff: about to offer a slot");
  go_.count_down();
  takes.AwaitThread();
  Sender(SIGUSR1, 7).Join();
  takes.Release();
  listener_.Join();
  ASSERT_TRUE(event_.ok()) << event_.status();
  EXPECT_EQ(event_->value->sival_int, 7);
}

// Slots, where the kernel has no room. ---------------------------------------

// The service's thread is held while a timer rings: where it waits, it may take
// the timer's signal itself, and no handler runs.
class SlotRaces : public Races {
 protected:
  // A one-shot timer of SIGRTMIN, for which the kernel makes room when it is
  // made.
  static timer_t MakeTimer(int value) {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN;
    event.sigev_value.sival_int = value;
    timer_t timer = {};
    EXPECT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    return timer;
  }
  static void LeaveNoRoom() {
    const rlimit none = {};
    EXPECT_EQ(setrlimit(RLIMIT_SIGPENDING, &none), 0);
  }
};

TEST_F(SlotRaces, OneThatIsBeingFilledIsLeftAlone) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const timer_t timers[] = {MakeTimer(1), MakeTimer(2)};
    LeaveNoRoom();
    std::optional<ServiceThreadHeld> held(std::in_place);
    HeldAt fills("Handler: about to fill a spill slot");
    Sender first(SIGRTMIN, [&] { RingTimer(timers[0]); });
    fills.AwaitThread();
    Sender(SIGRTMIN, [&] { RingTimer(timers[1]); }).Join();
    held.reset();
    EXPECT_EQ(Next(receiver).value->sival_int, 2);
    EXPECT_EQ(service->stats().received, 1u);
    fills.Release();
    first.Join();
    EXPECT_EQ(Next(receiver).value->sival_int, 1);
    EXPECT_EQ(service->stats().received, 2u);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST_F(SlotRaces, HandlersAtTheSameTimeFillSeveral) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN, SIGWINCH});
    const timer_t timers[] = {MakeTimer(1), MakeTimer(2)};
    LeaveNoRoom();
    ServiceThreadHeld held;
    HeldAt fills("Handler: about to fill a spill slot");
    Sender first(SIGRTMIN, [&] { RingTimer(timers[0]); });
    fills.AwaitThread();
    Sender(SIGRTMIN, [&] { RingTimer(timers[1]); }).Join();
    fills.Release();
    first.Join();
    SendSelf(SIGWINCH);  // which is taken after the bell
    held.Release();
    std::vector<int> values;
    for (auto event = Next(receiver); event.signum == SIGRTMIN;
         event = Next(receiver)) {
      values.push_back(event.value.value_or(sigval{}).sival_int);
    }
    EXPECT_THAT(values, UnorderedElementsAre(1, 2));
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST_F(SlotRaces, OneIsFreeOnlyWhenItsSignalWasTaken) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const timer_t timers[] = {MakeTimer(1), MakeTimer(2)};
    LeaveNoRoom();
    HeldAt frees("Forwarding: about to free a spill slot");
    {
      ServiceThreadHeld held;
      Sender(SIGRTMIN, [&] { RingTimer(timers[0]); }).Join();
    }
    frees.AwaitThread();
    Sender(SIGRTMIN, [&] { RingTimer(timers[1]); }).Join();
    frees.Release();
    EXPECT_EQ(Next(receiver).value->sival_int, 1);
    EXPECT_EQ(Next(receiver).value->sival_int, 2);
    EXPECT_EQ(service->stats().received, 2u);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// The service's thread may have looked for what is spilled just before.
TEST_F(SlotRaces, OneThatIsFilledBeforeACloseIsNotForgotten) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const timer_t timer = MakeTimer(1);
    LeaveNoRoom();
    HeldAt looked("ServiceThread: has taken what was spilled");
    internal::RingDoorbell();
    looked.AwaitThread();
    Sender(SIGRTMIN, [&] { RingTimer(timer); }).Join();
    AtStep waits("ServiceThread: is waited for", Nothing);
    Beside closer([&] { receiver.Close(); });
    closer.AwaitStep(waits);
    // The thread finds it at its next look, which the close waits for too.
    AtStep waits_on("ServiceThread: is waited for", Nothing);
    AtStep finds("Forwarding: about to free a spill slot",
                 [&] { closer.AwaitStep(waits_on); });
    looked.Release();
    closer.Join();
    EXPECT_EQ(Fates(receiver).size(), 1u);
    EXPECT_EQ(service->stats().delivered, 1u);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// Leaders. -------------------------------------------------------------------

class LeaderRaces : public CloseRaces {
 protected:
  const ScopedSignalBlock block_{{SIGUSR1}};
};

TEST_F(LeaderRaces, ACancelThatComesAsASignalDoesLeavesNoBell) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt over("Leader: wait is over");
  absl::Status status = absl::UnknownError("not back");
  Beside listener([&] {
    status = receiver.Receive().status();
    EXPECT_FALSE(Contains(StatusMask(TaskOfThisThread(), "SigPnd"), SIGSTKFLT));
  });
  AwaitLeader(listener.task(), SIGUSR1);
  SendSelf(SIGUSR1);
  over.AwaitThread();
  listener.Cancel();
  EXPECT_TRUE(Contains(StatusMask(listener.task(), "SigPnd"), SIGSTKFLT));
  over.Release();
  listener.Join();
  EXPECT_TRUE(status.ok()) << status;
}

// Its handler looked for a leader after it had forwarded, as there was none
// before. The service's thread takes a bell before SIGRTMIN.
TEST_F(LeaderRaces, WhatWasOnItsWayToTheServiceThreadIsReceived) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1, SIGRTMIN});
  HeldAt forwards("Handler: about to forward");
  Sender sender(SIGUSR1, 7);
  forwards.AwaitThread();
  int first = 0;
  Beside listener([&] { first = Next(receiver).signum; });
  AwaitLeader(listener.task(), SIGUSR1);
  forwards.Release();
  sender.Join();
  SendSelf(SIGRTMIN);
  listener.Join();
  EXPECT_EQ(first, SIGUSR1);
  receiver.Close();
}

// The service's timer rings when this says so.
class LeaderTimerRaces : public LeaderRaces {
 protected:
  LeaderTimerRaces() {
    timer_waits = true;
    timer_sets = 0;
  }
  ~LeaderTimerRaces() override {
    receiver_.Close();
    listener_.Join();
    timer_waits = false;
  }

  // Has the listener receive one more, and lead again.
  void SendOne() {
    AwaitLeader(listener_.task(), SIGUSR1);
    const int before = heard_;
    SendSelf(SIGUSR1);
    while (heard_ == before) sched_yield();
    AwaitLeader(listener_.task(), SIGUSR1);
  }

  SignalReceiver receiver_ = OpenReceiver(*service_, {SIGUSR1});
  std::atomic<int> heard_ = 0;
  Beside listener_{[this] {
    while (receiver_.Receive().ok()) ++heard_;
  }};
};

// Or the bell might be withdrawn, and others that were merged into it.
TEST_F(LeaderTimerRaces, TheTimerIsLeftAloneUntilItsBellWasHeard) {
  SendOne();
  EXPECT_EQ(timer_sets, 1);
  SignalReceiver witness = OpenReceiver(*service_, {SIGRTMIN});
  SendSelf(SIGRTMIN);
  EXPECT_EQ(Next(witness).signum, SIGRTMIN);  // after a bell that was not its
  SendOne();
  EXPECT_EQ(timer_sets, 1);
  RingTimer(leader_timer);
  SendSelf(SIGRTMIN);
  EXPECT_EQ(Next(witness).signum, SIGRTMIN);
  SendOne();
  EXPECT_EQ(timer_sets, 2);
}

// The bell by which it ends is merged into the timer's, which must not be
// withdrawn.
TEST_F(LeaderTimerRaces, TheServiceEndsWhileTheTimersBellIsPending) {
  SendOne();
  receiver_.Close();
  listener_.Join();
  ServiceThreadHeld held;
  RingTimer(leader_timer);
  EXPECT_TRUE(Contains(StatusMask(ServiceThread(), "SigPnd"), SIGSTKFLT));
  Beside stopper([&] { service_.reset(); });
  stopper.AwaitAsleep();
  held.Release();
  stopper.Join();
}

// Opening. -------------------------------------------------------------------

class OpenRaces : public CloseRaces {};

TEST_F(OpenRaces, ASignalHasItsOldEffectUntilTheHandlerIsThere) {
  HeldAt installs("Disposition: about to install the handler");
  std::optional<SignalReceiver> receiver;
  Beside opener([&] { receiver.emplace(OpenReceiver(*service_, {SIGUSR1})); });
  installs.AwaitThread();
  const bool in_place = InPlace(SIGUSR1);
  EXPECT_FALSE(in_place);
  const uint64_t blocked = StatusMask(opener.task(), "SigBlk");
  EXPECT_TRUE(Contains(blocked, SIGUSR2));
  EXPECT_TRUE(Contains(blocked, SIGPROF));
  EXPECT_FALSE(Contains(blocked, SIGSEGV));
  if (!in_place) {
    Sender(SIGUSR1, 1).Join();
    EXPECT_THAT(Effects(), ElementsAre(Queued(1)));
  }
  installs.Release();
  opener.Join();
  Sender(SIGUSR1, 2).Join();
  EXPECT_EQ(Next(*receiver).value->sival_int, 2);
}

// Or the service's thread would forward it to itself, for ever.
TEST_F(OpenRaces, TheServiceThreadBlocksSigprofBeforeItsHandlerIsThere) {
  ServiceThreadHeld held;
  AtStep waits("ServiceThread: is waited for", Nothing);
  std::optional<SignalReceiver> receiver;
  Beside opener([&] { receiver.emplace(OpenReceiver(*service_, {SIGPROF})); });
  opener.AwaitStep(waits);
  EXPECT_FALSE(InPlace(SIGPROF));
  held.Release();
  opener.Join();
  SendSelf(SIGPROF);
  EXPECT_EQ(Next(*receiver).signum, SIGPROF);
  receiver.reset();
  // And profilers see it again.
  while (Contains(StatusMask(ServiceThread(), "SigBlk"), SIGPROF)) {
    sched_yield();
  }
}

// Nor while it is received.
TEST_F(OpenRaces, TheServiceThreadBlocksSigprofWhileItIsReceived) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGPROF});
  ServiceThreadHeld held;
  EXPECT_TRUE(Contains(StatusMask(ServiceThread(), "SigBlk"), SIGPROF));
}

// Nor what it has let other code's handler in for, and takes up.
TEST_F(OpenRaces, TheServiceThreadBlocksWhatItTakesUp) {
  SetRaw(SIGHUP, SIG_IGN);
  SignalReceiver polite =
      OpenReceiver(*service_, {SIGHUP, SIGUSR1}, {.honor_ignored = true});
  HeldAt installs("Disposition: about to install the handler");
  // It lets that in, and takes it up the next time.
  AtStep handles("ServiceThread: has looked at the handlers",
                 [] { SetRaw(SIGHUP, [](int) {}); });
  internal::RingDoorbell();
  installs.AwaitThread();
  EXPECT_TRUE(handles.passed());
  EXPECT_TRUE(Contains(StatusMask(ServiceThread(), "SigBlk"), SIGHUP));
  installs.Release();
  polite.Close();
  SetDisposition(SIGHUP, SIG_DFL);
}

// It would restore what was there before us, in the place of our handler.
TEST_F(OpenRaces, AHandlerThatMayHaveFoundTheSignalClosedIsWaitedFor) {
  internal::KernelAction ours;
  {
    SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
    ours = internal::GetAction(SIGUSR1);
  }
  internal::SetAction(SIGUSR1, ours);  // as other code may put it back
  HeldAt counted("Handler: is counted");
  AtStep waits("Disposition: waits for a handler", Nothing);
  Sender sender(SIGUSR1, 7);
  counted.AwaitThread();
  std::optional<SignalReceiver> receiver;
  Beside opener([&] { receiver.emplace(OpenReceiver(*service_, {SIGUSR1})); });
  opener.AwaitStep(waits);
  EXPECT_FALSE(opener.over());
  counted.Release();
  sender.Join();
  opener.Join();
  EXPECT_THAT(Next(*receiver).value->sival_int, 7);
}

// The end. -------------------------------------------------------------------

// Whoever reads stderr may hang.
TEST(Die, WritesWhatStderrHasRoomForAndEndsTheProcess) {
  for (int room : {0, PIPE_BUF}) {
    Pipe output;
    const int size = fcntl(output.writer(), F_GETPIPE_SZ);
    const std::string filling(static_cast<size_t>(size - room), 'x');
    EXPECT_EQ(write(output.writer(), filling.data(), filling.size()),
              size - room);
    Child child(Fork([&] {
      dup2(output.writer(), STDERR_FILENO);
      (*internal::KernelSignals::Start())
          ->Die(SIGTERM, std::string(2 * PIPE_BUF, 'y'), internal::LastWords());
    }));
    EXPECT_EQ(KillingSignal(child.Wait()), SIGTERM);
    output.CloseWriter();
    int written = 0;
    for (char c; (c = output.Take()) != '\0';) written += c == 'y';
    EXPECT_EQ(written, room);
  }
}

// The handler. ---------------------------------------------------------------

using HandlerRaces = CloseRaces;

TEST_F(HandlerRaces, NoOtherSignalInterruptsIt) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  HeldAt forwards("Handler: about to forward");
  Sender sender(SIGUSR1, 7);
  forwards.AwaitThread();
  const uint64_t blocked = StatusMask(sender.task(), "SigBlk");
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    EXPECT_EQ(Contains(blocked, signum), signum != SIGKILL && signum != SIGSTOP)
        << signum;
  }
  forwards.Release();
}

TEST_F(HandlerRaces, ItRunsOnTheAlternateStackOfAThreadThatHasOne) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1});
  static char stack[256 * 1024];
  const char* frame = nullptr;
  AtStep forwards("Handler: about to forward", [&] {
    frame = static_cast<const char*>(__builtin_frame_address(0));
  });
  Sender(SIGUSR1, [] {
    const stack_t alternate = {
        .ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
    stack_t before;
    EXPECT_EQ(sigaltstack(&alternate, &before), 0);
    EXPECT_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
    EXPECT_EQ(sigaltstack(&before, nullptr), 0);
  }).Join();
  EXPECT_GE(frame, stack);
  EXPECT_LT(frame, stack + sizeof(stack));
}

// Fairness. ------------------------------------------------------------------

using FairnessRaces = CloseRaces;

// The kernel hands out the lower number first.
TEST_F(FairnessRaces, EachStandardSignalHasItsTurnBeforeOneHasASecond) {
  SignalReceiver receiver = OpenReceiver(*service_, {SIGUSR1, SIGTERM});
  HeldAt taken("ServiceThread: has taken a signal");
  SendSelf(SIGUSR1);
  taken.AwaitThread();
  for (int signum : {SIGUSR1, SIGTERM}) SendSelf(signum);
  HeldAt waits("ServiceThread: about to wait");
  taken.Release();
  waits.AwaitThread();
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  waits.Release();
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
}

TEST_F(FairnessRaces, ARealTimeSignalHasSixtyFourTurnsInARow) {
  constexpr int kEach = 200;
  SignalReceiver receiver = OpenReceiver(*service_, {SIGRTMIN, SIGRTMIN + 1},
                                         {.capacity = 2 * kEach});
  ServiceThreadHeld held;
  for (int i = 0; i < kEach; ++i) {
    QueueSelf(SIGRTMIN, i);
    QueueSelf(SIGRTMIN + 1, i);
  }
  held.Release();
  std::vector<int> in_a_row;
  for (int i = 0, last = 0; i < 2 * kEach; ++i) {
    const int signum = Next(receiver).signum;
    if (std::exchange(last, signum) != signum) in_a_row.push_back(0);
    ++in_a_row.back();
  }
  EXPECT_THAT(in_a_row, ElementsAre(64, 64, 64, 64, 64, 64, 8, 8));
}

// Forks. ---------------------------------------------------------------------

class ForkRaces : public Races {
 protected:
  // The exit status of a child that opens a receiver for SIGUSR1 and closes it
  // again: 0, and 9 if it waits for a handler, which in it is none.
  static int OpenAndCloseInAChild() {
    if (!ServiceThread().empty()) AwaitState(ServiceThread(), "S");
    Child child(Fork([] {
      AtStep waits("Disposition: waits for a handler", [] { _exit(9); });
      auto own = StartService();
      OpenReceiver(*own, {SIGUSR1}).Close();
      _exit(HasFailure() ? 1 : 0);
    }));
    return ExitStatus(child.Wait());
  }

  // That a fork waits until who holds a lock at `step` has gone on.
  static void ExpectThatAForkWaits(HeldAt& step) {
    step.AwaitThread();
    std::atomic<bool> forked = false;
    Beside forker([&] {
      Child child(fork());
      if (child.pid() == 0) _exit(0);
      forked = true;
      EXPECT_EQ(ExitStatus(child.Wait()), 0);
    });
    forker.AwaitAsleep();
    EXPECT_FALSE(forked);
    step.Release();
  }
};

// ThreadSanitizer ends a process that starts a thread after it was forked from
// one with several.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST_F(ForkRaces, AHandlerThatRunsInTheParentIsNotWaitedForInTheChild) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt forwards("Handler: about to forward");
  Sender sender(SIGUSR1, 7);
  forwards.AwaitThread();
  EXPECT_EQ(OpenAndCloseInAChild(), 0);
  forwards.Release();
  EXPECT_EQ(Next(receiver).value->sival_int, 7);
}

// Also one that had not begun when the service ended.
TEST_F(ForkRaces, NorOneThatTheServiceOfTheParentHasLeftBehind) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt begins("Handler: begins");
  Sender sender(SIGUSR1, 7);
  begins.AwaitThread();
  service.reset();
  HeldAt counted("Handler: is counted");
  begins.Release();
  counted.AwaitThread();
  EXPECT_EQ(OpenAndCloseInAChild(), 0);
  counted.Release();
  sender.Join();
  EXPECT_THAT(Effects(), ElementsAre(Queued(7)));
}
#endif

TEST_F(ForkRaces, AForkWaitsForWhoChangesDispositions) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt restored("Unsubscribe: dispositions are restored");
  Beside closer([&] { receiver.Close(); });
  ExpectThatAForkWaits(restored);
}

TEST_F(ForkRaces, AForkWaitsForWhoOffersASlot) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  HeldAt takes("DirectHandoff: about to offer a slot");
  Beside listener([&] { EXPECT_FALSE(receiver.Receive().ok()); });
  ExpectThatAForkWaits(takes);
  receiver.Close();
}

}  // namespace
}  // namespace tocsin
