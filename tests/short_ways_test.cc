// The short ways of a signal to threads that wait for it. To one thread, past
// the service's: a direct hand-off, where a handler leaves it, and leading in
// that thread's place. To many: one wake-up for all.
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/internal/direct_handoff.h"
#include "tocsin/signals/internal/leader.h"
#include "tocsin/signals/internal/signal_handler.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

// Receives on a thread of its own until the receiver is closed.
class Listener {
 public:
  // It offers a slot for `signum`.
  Listener(SignalReceiver& receiver, int signum)
      : receiver_(receiver), signum_(signum), thread_([this] {
          task_ = TaskOfThisThread();
          started_.Notify();
          for (const SignalEvent& event : receiver_) {
            EXPECT_TRUE(events_.Push(event).ok());
          }
          events_.Close();
        }) {}
  ~Listener() {
    Release();
    receiver_.Close();
    thread_.join();
  }

  // Waits until its thread has offered it and sleeps.
  void AwaitSlot() const {
    while (!internal::IsWaitedFor(signum_)) sched_yield();
    AwaitState(task(), "S");
  }

  const std::string& task() const {
    started_.WaitForNotification();
    return task_;
  }

  SignalEvent Next() {
    auto event = events_.Pop();
    if (!event.ok()) ADD_FAILURE() << event.status();
    return event.value_or(SignalEvent{});
  }
  // Waits for the receiver's end, and fails if there is an event before it.
  void ExpectEnd() {
    EXPECT_EQ(events_.Pop().status().code(), absl::StatusCode::kOutOfRange);
  }

  // Lets it go no further than into a handler of the program, which it enters
  // from its sleep, until Release().
  void Hold() {
    AwaitSlot();
    HoldAsItIs();
  }
  void HoldAsItIs() {
    SetDisposition(SIGUSR2, [](int) {
      held_ = true;
      while (held_) sched_yield();
    });
    pthread_kill(thread_.native_handle(), SIGUSR2);
    while (!held_) sched_yield();
  }
  void Release() { held_ = false; }

 private:
  static inline std::atomic<bool> held_ = false;

  SignalReceiver& receiver_;
  const int signum_;
  BlockingQueue<SignalEvent> events_{kUnbounded};
  std::string task_;
  absl::Notification started_;
  std::thread thread_;
};

// Keeps the service's thread in a handler of the program. It leaves only
// SIGPROF and the faults unblocked.
class ServiceThreadHeld {
 public:
  ServiceThreadHeld() {
    SetDisposition(SIGPROF, [](int) {
      held_ = true;
      while (held_) sched_yield();
    });
    const std::string thread = ServiceThread();
    AwaitState(thread, "S");
    const std::string id = thread.substr(thread.rfind('/') + 1);
    syscall(SYS_tgkill, getpid(), std::stoi(id), SIGPROF);
    while (!held_) sched_yield();
  }
  ~ServiceThreadHeld() { held_ = false; }

 private:
  static inline std::atomic<bool> held_ = false;
};

TEST(DirectHandoff, SparesTheServiceThread) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGHUP});
  Listener listener(receiver, SIGUSR1);
  const ServiceThreadHeld held;
  for (int i = 0; i < 20; ++i) {
    listener.AwaitSlot();
    const int signum = i % 2 == 0 ? SIGUSR1 : SIGHUP;
    SendSelf(signum);
    EXPECT_EQ(listener.Next().signum, signum);
  }
  EXPECT_EQ(service->stats().received, 20u);
  EXPECT_EQ(service->stats().redirected, 20u);
}

TEST(DirectHandoff, MergesWhatComesBeforeItsThreadRuns) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGHUP, SIGRTMIN});
  Listener listener(receiver, SIGUSR1);
  listener.Hold();
  for (int value : {1, 2, 3}) QueueSelf(SIGUSR1, value);
  QueueSelf(SIGHUP, 4);
  EXPECT_EQ(service->stats().received, 0u);
  listener.Release();
  SignalEvent event = listener.Next();
  EXPECT_EQ(event.signum, SIGHUP);
  EXPECT_EQ(event.value->sival_int, 4);
  event = listener.Next();
  EXPECT_EQ(event.signum, SIGUSR1);
  EXPECT_EQ(event.count, 3);
  EXPECT_EQ(event.value->sival_int, 1);
  const SignalServiceStats stats = service->stats();
  EXPECT_EQ(stats.received, 4u);
  EXPECT_EQ(stats.delivered, 2u);
  EXPECT_EQ(stats.merged, 2u);
}

TEST(DirectHandoff, ThatIsFullLeavesTheRestToTheServiceThread) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Listener listener(receiver, SIGUSR1);
  listener.Hold();
  for (int i = 0; i <= 1000; ++i) SendSelf(SIGUSR1);
  while (service->stats().received != 1) sched_yield();
  listener.Release();
  for (int count = 0; count < 1001; count += listener.Next().count) {
  }
  EXPECT_EQ(service->stats().received, 1001u);
}

TEST(DirectHandoff, GivesWhatIsLeftInItToTheOldDispositionAtTheClose) {
  static std::atomic<int> handled;
  handled = 0;
  SetDisposition(SIGUSR1, [](int) { ++handled; });
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Listener listener(receiver, SIGUSR1);
  listener.Hold();
  SendSelf(SIGUSR1);
  EXPECT_EQ(handled, 0);
  receiver.Close();
  EXPECT_EQ(handled, 1);
  EXPECT_EQ(service->stats().redelivered, 1u);
  listener.Release();
  listener.ExpectEnd();
}

TEST(DirectHandoff, IsTakenBackBeforeAnotherReceiverComesIn) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  Listener listener(first, SIGUSR1);
  listener.Hold();
  QueueSelf(SIGUSR1, 1);
  SignalReceiver second = OpenReceiver(*service, {SIGUSR1});
  EXPECT_FALSE(second.TryReceive().ok());
  // The first one's thread cannot run; the second one hears all the same.
  QueueSelf(SIGUSR1, 2);
  EXPECT_EQ(Next(second).value->sival_int, 2);
  listener.Release();
  const SignalEvent event = listener.Next();
  EXPECT_EQ(event.value->sival_int, 1);
  EXPECT_EQ(event.count, 2);
}

// One that has left the signal alone until then.
TEST(DirectHandoff, IsTakenBackBeforeAReceiverTakesItsSignalUp) {
  SetDisposition(SIGHUP, SIG_IGN);
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGHUP});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  Listener listener(first, SIGHUP);
  listener.Hold();
  QueueSelf(SIGHUP, 1);
  SetDisposition(SIGHUP, [](int) {});
  while (polite.signals() != SignalSet({SIGHUP, SIGTERM})) sched_yield();
  listener.Release();
  EXPECT_EQ(listener.Next().value->sival_int, 1);
  EXPECT_FALSE(polite.TryReceive().ok());
  // And is not offered any more.
  const SignalReceiver again = OpenReceiver(*service, {SIGHUP});
  QueueSelf(SIGHUP, 2);
  EXPECT_EQ(listener.Next().value->sival_int, 2);
  EXPECT_EQ(Next(polite).value->sival_int, 2);
  service.reset();
  SetDisposition(SIGHUP, SIG_DFL);
}

TEST(DirectHandoff, IsNotForWhatSeveralReceive) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver second = OpenReceiver(*service, {SIGHUP, SIGUSR1, SIGWINCH});
  SignalReceiver third = OpenReceiver(*service, {SIGHUP});
  Listener listener(second, SIGWINCH);
  listener.AwaitSlot();
  EXPECT_FALSE(internal::IsWaitedFor(SIGHUP));
  EXPECT_FALSE(internal::IsWaitedFor(SIGUSR1));
}

TEST(DirectHandoff, IsNotForWhatAnotherReceiverHasTakenUp) {
  SetDisposition(SIGHUP, SIG_IGN);
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGHUP, SIGWINCH});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  Listener listener(first, SIGWINCH);
  listener.AwaitSlot();
  EXPECT_TRUE(internal::IsWaitedFor(SIGHUP));
  SetDisposition(SIGHUP, [](int) {});
  while (polite.signals() != SignalSet({SIGHUP, SIGTERM})) sched_yield();
  SendSelf(SIGWINCH);
  EXPECT_EQ(listener.Next().signum, SIGWINCH);
  listener.AwaitSlot();
  EXPECT_FALSE(internal::IsWaitedFor(SIGHUP));
  service.reset();
  SetDisposition(SIGHUP, SIG_DFL);
}

TEST(DirectHandoff, IsTakenBackBeforeAShutdownLooksOn) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  Listener listener(receiver, SIGTERM);
  listener.Hold();
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(*service, group, {.signals = {SIGTERM}}).value();
  SendSelf(SIGTERM);
  while (shutdown->phase() == Shutdown::Phase::kRunning) sched_yield();
  EXPECT_TRUE(group.Wait().ok());
  listener.Release();
  EXPECT_EQ(listener.Next().signum, SIGTERM);
}

// ThreadSanitizer ends a process that starts a thread after it was forked from
// one with several.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST(DirectHandoff, OfTheParentIsNoneOfTheChild) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Listener listener(receiver, SIGUSR1);
  listener.AwaitSlot();
  {
    Child child(Fork([] { EXPECT_FALSE(internal::IsWaitedFor(SIGUSR1)); }));
    EXPECT_EQ(ExitStatus(child.Wait()), 0);
  }
  listener.Hold();
  QueueSelf(SIGUSR1, 1);
  Child child(Fork([] {
    auto own = StartService();
    SignalReceiver mine = OpenReceiver(*own, {SIGUSR1});
    EXPECT_FALSE(mine.TryReceive().ok());
    QueueSelf(SIGUSR1, 2);
    EXPECT_EQ(Next(mine).value->sival_int, 2);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  listener.Release();
  EXPECT_EQ(listener.Next().value->sival_int, 1);
}
#endif

// The thread that waited longest offers it; one that gives up leaves that to
// the next that comes.
TEST(DirectHandoff, GoesToTheNextThreadOfTheSameReceiver) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  {
    CancelScope scope;
    absl::Status status;
    std::thread first([&] {
      CancelScope inner(scope.stop_token());
      status = receiver.Receive().status();
    });
    scope.Cancel();
    first.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  }
  Listener second(receiver, SIGUSR1);
  for (int value : {1, 2}) {
    second.AwaitSlot();
    QueueSelf(SIGUSR1, value);
    EXPECT_EQ(second.Next().value->sival_int, value);
  }
}

TEST(Leader, SparesTheServiceThread) {
  const ScopedSignalBlock block({SIGUSR1, SIGHUP});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGHUP});
  Listener listener(receiver, SIGUSR1);
  AwaitLeader(listener.task(), SIGUSR1);
  const ServiceThreadHeld held;
  for (int i = 0; i < 20; ++i) {
    const int signum = i % 2 == 0 ? SIGUSR1 : SIGHUP;
    SendSelf(signum);
    EXPECT_EQ(listener.Next().signum, signum);
  }
  EXPECT_EQ(service->stats().received, 20u);
  EXPECT_EQ(service->stats().redirected, 0u);
}

// Also while it is away: what is pending then, TryReceive() finds.
TEST(Leader, FindsWhatCameWhileItWasAway) {
  const ScopedSignalBlock block({SIGUSR1, SIGHUP, SIGTERM});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGHUP, SIGTERM});
  const std::string task = TaskOfThisThread();
  std::optional<ServiceThreadHeld> held;
  std::thread sender([&] {
    AwaitLeader(task, SIGUSR1);
    held.emplace();
    QueueSelf(SIGUSR1, 1);
  });
  EXPECT_EQ(Next(receiver).value->sival_int, 1);
  sender.join();
  for (int signum : {SIGTERM, SIGUSR1}) QueueSelf(signum, 2);
  EXPECT_EQ(receiver.TryReceive().value().signum, SIGUSR1);
  // The storm of the lower number does not keep the other one back.
  QueueSelf(SIGUSR1, 3);
  EXPECT_EQ(receiver.TryReceive().value().signum, SIGTERM);
  EXPECT_EQ(receiver.TryReceive().value().value->sival_int, 3);
  EXPECT_FALSE(receiver.TryReceive().ok());
}

TEST(Leader, ThatStaysAwayIsReplaced) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  const std::string task = TaskOfThisThread();
  for (uint64_t received : {2u, 4u}) {
    std::thread sender([&] {
      AwaitLeader(task, SIGUSR1);
      SendSelf(SIGUSR1);
    });
    Next(receiver);
    sender.join();
    SendSelf(SIGUSR1);
    while (service->stats().received != received) sched_yield();
    EXPECT_TRUE(receiver.TryReceive().ok());
  }
}

TEST(Leader, IsWokenForWhatComesAnotherWay) {
  const ScopedSignalBlock block({SIGUSR1, SIGRTMIN});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGRTMIN});
  Listener listener(receiver, SIGUSR1);
  AwaitLeader(listener.task(), SIGUSR1);
  // Through the handler, on a thread that does not block it.
  for (int i = 0; i < 10; ++i) {
    AwaitLeader(listener.task(), SIGUSR1);
    std::thread([] {
      sigset_t mask;
      sigemptyset(&mask);
      pthread_sigmask(SIG_SETMASK, &mask, nullptr);
      pthread_kill(pthread_self(), SIGUSR1);
    }).join();
    EXPECT_EQ(listener.Next().signum, SIGUSR1);
  }
  EXPECT_EQ(service->stats().redirected, 10u);
  AwaitLeader(listener.task(), SIGUSR1);
  SendSelf(SIGRTMIN);
  EXPECT_EQ(listener.Next().signum, SIGRTMIN);
}

TEST(Leader, GoesWhenItsScopeIsCancelled) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  const std::string task = TaskOfThisThread();
  CancelScope scope;
  std::thread canceller([&] {
    AwaitLeader(task, SIGUSR1);
    scope.Cancel();
  });
  EXPECT_EQ(receiver.Receive().status().code(), absl::StatusCode::kCancelled);
  canceller.join();
}

TEST(Leader, SharesWithAReceiverThatComesIn) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  Listener listener(first, SIGUSR1);
  AwaitLeader(listener.task(), SIGUSR1);
  SignalReceiver second = OpenReceiver(*service, {SIGUSR1});
  // It does not lead any more.
  while (!Contains(StatusMask(listener.task(), "SigBlk"), SIGUSR1)) {
    sched_yield();
  }
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(second).signum, SIGUSR1);
  EXPECT_EQ(listener.Next().signum, SIGUSR1);
}

TEST(Leader, SharesWithAReceiverThatTakesItsSignalUp) {
  const ScopedSignalBlock block({SIGHUP});
  SetDisposition(SIGHUP, SIG_IGN);
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGHUP});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  Listener listener(first, SIGHUP);
  AwaitLeader(listener.task(), SIGHUP);
  SetDisposition(SIGHUP, [](int) {});
  while (!Contains(StatusMask(listener.task(), "SigBlk"), SIGHUP)) {
    sched_yield();
  }
  SendSelf(SIGHUP);
  EXPECT_EQ(Next(polite).signum, SIGHUP);
  EXPECT_EQ(listener.Next().signum, SIGHUP);
  service.reset();
  SetDisposition(SIGHUP, SIG_DFL);
}

TEST(Leader, LetsAShutdownLookOn) {
  const ScopedSignalBlock block({SIGTERM});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  Listener listener(receiver, SIGTERM);
  AwaitLeader(listener.task(), SIGTERM);
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(*service, group, {.signals = {SIGTERM}}).value();
  SendSelf(SIGTERM);
  while (shutdown->phase() == Shutdown::Phase::kRunning) sched_yield();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(listener.Next().signum, SIGTERM);
}

TEST(Leader, ThatIsAwayLetsAShutdownLookOn) {
  const ScopedSignalBlock block({SIGTERM});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  const std::string task = TaskOfThisThread();
  std::optional<ServiceThreadHeld> held;
  std::thread sender([&] {
    AwaitLeader(task, SIGTERM);
    held.emplace();
    SendSelf(SIGTERM);
  });
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  sender.join();
  TaskGroup group;
  auto shutdown =
      Shutdown::Start(*service, group, {.signals = {SIGTERM}}).value();
  SendSelf(SIGTERM);
  EXPECT_FALSE(receiver.TryReceive().ok());
  held.reset();
  while (shutdown->phase() == Shutdown::Phase::kRunning) sched_yield();
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
}

// A signal that races with the close is received or pending afterwards.
TEST(Leader, LosesAndDoublesNothingAtAClose) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  for (int i = 0; i < 300; ++i) {
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    int heard = 0;
    std::thread listener([&] {
      for ([[maybe_unused]] const SignalEvent& event : receiver) ++heard;
    });
    std::thread sender([] { SendSelf(SIGUSR1); });
    receiver.Close();
    sender.join();
    listener.join();
    const timespec now = {};
    if (sigtimedwait(&mask, nullptr, &now) == SIGUSR1) ++heard;
    ASSERT_EQ(heard, 1);
  }
}

TEST(Leader, MayBeCancelledWhileTheServiceEnds) {
  const ScopedSignalBlock block({SIGUSR1});
  for (int i = 0; i < 300; ++i) {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    CancelScope scope;
    std::thread listener([&, stop = scope.stop_token()] {
      CancelScope inner(stop);
      EXPECT_FALSE(receiver.Receive().ok());
    });
    std::thread canceller([&] { scope.Cancel(); });
    service.reset();
    listener.join();
    canceller.join();
  }
}

// A bell that comes when a signal has ended the wait already would end the
// process once it is not blocked any more: the handler is gone by then.
TEST(Leader, LeavesNoBellBehind) {
  for (int i = 0; i < 300; ++i) {
    const ScopedSignalBlock block({SIGUSR1});
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    CancelScope scope;
    std::thread canceller([&] { scope.Cancel(); });
    std::thread sender([] { SendSelf(SIGUSR1); });
    while (receiver.Receive().ok()) {
    }
    canceller.join();
    sender.join();
    EXPECT_FALSE(Contains(StatusMask(TaskOfThisThread(), "SigPnd"), SIGSTKFLT));
    receiver.Close();
    const timespec now = {};
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    while (receiver.TryReceive().ok() ||
           sigtimedwait(&mask, nullptr, &now) == SIGUSR1) {
    }
  }
}

// Each of a few has its turn, though the kernel hands out the lowest first.
TEST(Leader, StarvesNoneInAStorm) {
  const ScopedSignalBlock block({SIGUSR1, SIGTERM});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGTERM});
  const std::string task = TaskOfThisThread();
  std::optional<ServiceThreadHeld> held;
  std::thread sender([&] {
    AwaitLeader(task, SIGUSR1);
    held.emplace();
    SendSelf(SIGUSR1);
  });
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  sender.join();
  for (int signum : {SIGUSR1, SIGTERM}) SendSelf(signum);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
}

// However it is received. Whoever receives sends the signals, so that they are
// pending each time.
TEST(Leader, TakesSignalsThatArePendingAllTheTimeInTurn) {
  const ScopedSignalBlock block({SIGHUP, SIGTERM});
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGHUP, SIGTERM},
                   {.on_close = ReceiverOptions::OnClose::kDiscard});
  for (const auto& receive : std::vector<std::function<int()>>{
           [&] { return receiver.Receive()->signum; },
           [&] { return receiver.ReceiveFor(absl::Hours(1))->signum; },
           [&] {
             absl::StatusOr<SignalEvent> event = receiver.TryReceive();
             return event.ok() ? event->signum : receiver.Receive()->signum;
           }}) {
    int in_a_row = 0;
    int last = 0;
    for (int i = 0; i < 600; ++i) {
      for (int signum : {SIGHUP, SIGTERM}) SendSelf(signum);
      const int signum = receive();
      in_a_row = signum == last ? in_a_row + 1 : 1;
      last = signum;
      // More than two where the leader and the service's thread take over from
      // each other.
      ASSERT_LT(in_a_row, 10) << "at " << i;
    }
  }
}

// ThreadSanitizer: see above.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST(Leader, OfTheParentIsNoneOfTheChild) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Listener listener(receiver, SIGUSR1);
  AwaitLeader(listener.task(), SIGUSR1);
  Child child(Fork([&] {
    QueueSelf(SIGUSR1, 2);
    EXPECT_FALSE(receiver.TryReceive().ok());
    ASSERT_TRUE(Contains(StatusMask("self", "ShdPnd"), SIGUSR1));
    auto own = StartService();
    SignalReceiver mine = OpenReceiver(*own, {SIGUSR1});
    EXPECT_EQ(Next(mine).value->sival_int, 2);
    own.reset();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  QueueSelf(SIGUSR1, 1);
  EXPECT_EQ(listener.Next().value->sival_int, 1);
}
#endif

bool HasBell() {
  return Contains(StatusMask(TaskOfThisThread(), "SigPnd"), SIGSTKFLT);
}

TEST(Leader, TakesTheBellThatNobodyElseTakes) {
  const ScopedSignalBlock block({SIGUSR1});
  {
    internal::Leader leader({SIGUSR1});
    leader.Interrupt();
    EXPECT_TRUE(HasBell());
  }
  EXPECT_FALSE(HasBell());
}

TEST(Leader, WaitsForABellAndForWhatItIsTold) {
  const ScopedSignalBlock block({SIGUSR1, SIGHUP});
  const internal::Sleeper sleeper("a test");
  internal::Leader leader({SIGUSR1, SIGHUP});
  SendSelf(SIGUSR1);
  SendSelf(SIGHUP);
  leader.Interrupt();
  leader.Block(sleeper, internal::Instant::min());
  EXPECT_FALSE(leader.Taken().has_value());
  EXPECT_FALSE(HasBell());
  leader.WaitFor({SIGUSR1});
  leader.Block(sleeper, internal::Instant::min());
  EXPECT_EQ(leader.Taken().value().signum(), SIGUSR1);
  EXPECT_FALSE(leader.Taken().has_value());
  // Nothing it waits for is left.
  leader.Block(sleeper, internal::Instant::min());
  EXPECT_FALSE(leader.Taken().has_value());
  leader.WaitFor({SIGHUP});
  leader.Block(sleeper, internal::Instant::min());
  EXPECT_EQ(leader.Taken().value().signum(), SIGHUP);
}

TEST(Leader, IsAbleWhereAllItsSignalsAndTheBellAreBlocked) {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGUSR1);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &only, &before);
  EXPECT_FALSE(internal::Leader({SIGUSR1}).able());  // not the bell
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const ScopedSignalBlock block({SIGUSR1});
  EXPECT_TRUE(internal::Leader({SIGUSR1}).able());
  EXPECT_FALSE(internal::Leader({SIGUSR1, SIGHUP}).able());
  EXPECT_FALSE(internal::Leader().able());
}

// Whether `listener` offers a slot for SIGUSR1, or else leads, as soon as it
// does one of the two.
bool OffersSlot(const Listener& listener) {
  while (Contains(StatusMask(listener.task(), "SigBlk"), SIGUSR1)) {
    if (internal::IsWaitedFor(SIGUSR1)) return true;
    sched_yield();
  }
  return false;
}

TEST(Leader, IsNoneThatDoesNotBlockTheBell) {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGUSR1);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &only, &before);
  {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    Listener listener(receiver, SIGUSR1);
    EXPECT_TRUE(OffersSlot(listener));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(Leader, IsNoneOfAReceiverThatGaveOutItsDescriptor) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  EXPECT_TRUE(receiver.fd().ok());
  Listener listener(receiver, SIGUSR1);
  EXPECT_TRUE(OffersSlot(listener));
}

TEST(Leader, IsNoneWhereThereIsNoRoomForItsTimer) {
  Child child(Fork([] {
    const rlimit none = {};
    ASSERT_EQ(setrlimit(RLIMIT_SIGPENDING, &none), 0);
    const ScopedSignalBlock block({SIGUSR1});
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    Listener listener(receiver, SIGUSR1);
    EXPECT_TRUE(OffersSlot(listener));
    SendSelf(SIGUSR1);
    EXPECT_EQ(listener.Next().signum, SIGUSR1);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(Leader, IsOneAtATime) {
  const ScopedSignalBlock block({SIGUSR1, SIGUSR2});
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver second = OpenReceiver(*service, {SIGUSR2});
  Listener one(first, SIGUSR1);
  AwaitLeader(one.task(), SIGUSR1);
  Listener other(second, SIGUSR2);
  AwaitState(other.task(), "S");
  SendSelf(SIGUSR2);
  EXPECT_EQ(other.Next().signum, SIGUSR2);
  // The first one still does, and the service's thread leaves that to it.
  EXPECT_FALSE(Contains(StatusMask(one.task(), "SigBlk"), SIGUSR1));
  AwaitState(ServiceThread(), "S");
  EXPECT_TRUE(Contains(StatusMask(ServiceThread(), "SigBlk"), SIGUSR1));
}

// A leader that has not run since the close does not take it either, nor does
// the service's thread in its place.
TEST(Leader, LeavesASignalAloneAfterTheClose) {
  const ScopedSignalBlock block({SIGUSR1, SIGTERM});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
  std::optional<Listener> listener;
  listener.emplace(receiver, SIGUSR1);
  AwaitLeader(listener->task(), SIGUSR1);
  listener->HoldAsItIs();
  receiver.Close();
  SendSelf(SIGUSR1);
  internal::RingDoorbell();
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(witness).signum, SIGTERM);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  const timespec now = {};
  EXPECT_EQ(sigtimedwait(&mask, nullptr, &now), SIGUSR1);
  listener.reset();
}

TEST(Leader, OfAForkedChildIsRungOnItsOwnThread) {
  const ScopedSignalBlock block({SIGUSR1});
  const auto rings = [] {
    internal::Leader leader({SIGUSR1});
    leader.Interrupt();
    EXPECT_TRUE(HasBell());
  };
  rings();
  // Also where no service is alive, as it may start one.
  for (bool alive : {true, false}) {
    auto service = alive ? StartService() : nullptr;
    Child child(Fork(rings));
    EXPECT_EQ(ExitStatus(child.Wait()), 0) << alive;
  }
}

// More threads than there are bits: some share theirs.
constexpr int kMany = 40;

TEST(WaitingRoom, WakesAllAndEachForItsOwn) {
  auto service = StartService();
  std::vector<SignalReceiver> receivers;
  for (int i = 0; i < kMany; ++i) {
    const int own = i % 2 == 0 ? SIGUSR1 : SIGHUP;
    receivers.push_back(OpenReceiver(*service, {own, SIGWINCH}));
  }
  BlockingQueue<int> heard(kUnbounded);
  std::vector<std::thread> threads;
  for (SignalReceiver& receiver : receivers) {
    threads.emplace_back([&] {
      for (const SignalEvent& event : receiver) {
        EXPECT_TRUE(heard.Push(event.signum).ok());
      }
    });
  }
  for (int round = 0; round < 50; ++round) {
    for (int signum : {SIGUSR1, SIGWINCH, SIGHUP}) {
      SendSelf(signum);
      for (int i = 0; i < (signum == SIGWINCH ? kMany : kMany / 2); ++i) {
        EXPECT_EQ(heard.Pop().value(), signum);
      }
    }
  }
  EXPECT_EQ(heard.size(), 0u);
  for (SignalReceiver& receiver : receivers) receiver.Close();
  for (std::thread& thread : threads) thread.join();
}

// Also those that are first in no line, as several threads share a receiver.
TEST(WaitingRoom, IsLeftByOneWhoseScopeIsCancelled) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGRTMIN});
  std::vector<std::stop_source> stops(kMany);
  BlockingQueue<int> heard(kUnbounded);
  BlockingQueue<int> cancelled(kUnbounded);
  std::vector<std::thread> threads;
  for (int i = 0; i < kMany; ++i) {
    threads.emplace_back([&, i] {
      {
        CancelScope scope(stops[i].get_token());
        for (const SignalEvent& event : receiver) {
          EXPECT_TRUE(heard.Push(event.value->sival_int).ok());
        }
      }
      EXPECT_TRUE(cancelled.Push(i).ok());
    });
  }
  for (int i = 0; i < kMany; ++i) {
    QueueSelf(SIGRTMIN, i);
    EXPECT_EQ(heard.Pop().value(), i);
    stops[i].request_stop();
    EXPECT_EQ(cancelled.Pop().value(), i);
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tocsin
