// The short way of a signal: from the handler to the thread that waits for it.
// What these tests see of it is also what the long way must not change.
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/internal/forwarder.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

// Receives on a thread of its own until the receiver is closed.
class Listener {
 public:
  // It sits for `signum`.
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

  // Waits until its thread sits and sleeps.
  void AwaitSeat() const {
    started_.WaitForNotification();
    while (!internal::IsWaitedFor(signum_)) sched_yield();
    AwaitState(task_, "S");
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
    AwaitSeat();
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
  BlockingQueue<SignalEvent> events_;
  std::string task_;
  absl::Notification started_;
  std::thread thread_;
};

// How often a task has been scheduled.
int Switches(const std::string& task) {
  return std::stoi(StatusField(task, "voluntary_ctxt_switches")) +
         std::stoi(StatusField(task, "nonvoluntary_ctxt_switches"));
}

TEST(Seat, SparesTheServiceThread) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGHUP});
  Listener listener(receiver, SIGUSR1);
  const std::string thread = ServiceThread();
  AwaitState(thread, "S");
  listener.AwaitSeat();
  const int before = Switches(thread);
  for (int i = 0; i < 20; ++i) {
    const int signum = i % 2 == 0 ? SIGUSR1 : SIGHUP;
    SendSelf(signum);
    EXPECT_EQ(listener.Next().signum, signum);
    listener.AwaitSeat();
  }
  EXPECT_EQ(Switches(thread), before);
  EXPECT_EQ(service->stats().received, 20u);
  EXPECT_EQ(service->stats().redirected, 20u);
}

TEST(Seat, MergesWhatComesBeforeItsThreadRuns) {
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

TEST(Seat, ThatIsFullLeavesTheRestToTheServiceThread) {
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

TEST(Seat, GivesWhatIsLeftInItToTheOldDispositionAtTheClose) {
  static std::atomic<int> handled = 0;
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

TEST(Seat, IsLeftBeforeAnotherReceiverComesIn) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  Listener listener(first, SIGUSR1);
  listener.Hold();
  QueueSelf(SIGUSR1, 1);
  SignalReceiver second = OpenReceiver(*service, {SIGUSR1});
  EXPECT_FALSE(second.TryReceive().has_value());
  // The first one's thread cannot run; the second one hears all the same.
  QueueSelf(SIGUSR1, 2);
  EXPECT_EQ(Next(second).value->sival_int, 2);
  listener.Release();
  const SignalEvent event = listener.Next();
  EXPECT_EQ(event.value->sival_int, 1);
  EXPECT_EQ(event.count, 2);
}

TEST(Seat, IsNotForWhatSeveralReceive) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver second = OpenReceiver(*service, {SIGHUP, SIGUSR1, SIGWINCH});
  SignalReceiver third = OpenReceiver(*service, {SIGHUP});
  Listener listener(second, SIGWINCH);
  listener.AwaitSeat();
  EXPECT_FALSE(internal::IsWaitedFor(SIGHUP));
  EXPECT_FALSE(internal::IsWaitedFor(SIGUSR1));
}

TEST(Seat, IsLeftBeforeAShutdownLooksOn) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  Listener listener(receiver, SIGTERM);
  listener.Hold();
  TaskGroup group;
  Shutdown shutdown(*service, group, {.signals = {SIGTERM}});
  ASSERT_TRUE(shutdown.status().ok());
  SendSelf(SIGTERM);
  while (shutdown.phase() == Shutdown::Phase::kRunning) sched_yield();
  EXPECT_TRUE(group.Wait().ok());
  listener.Release();
  EXPECT_EQ(listener.Next().signum, SIGTERM);
}

// ThreadSanitizer ends a process that starts a thread after it was forked from
// one with several.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST(Seat, OfTheParentIsNoneOfTheChild) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Listener listener(receiver, SIGUSR1);
  listener.Hold();
  QueueSelf(SIGUSR1, 1);
  Child child(Fork([] {
    auto own = StartService();
    SignalReceiver mine = OpenReceiver(*own, {SIGUSR1});
    EXPECT_FALSE(mine.TryReceive().has_value());
    QueueSelf(SIGUSR1, 2);
    EXPECT_EQ(Next(mine).value->sival_int, 2);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  listener.Release();
  EXPECT_EQ(listener.Next().value->sival_int, 1);
}
#endif

// The thread that waited longest sits; one that gives up leaves the seat to the
// next that comes.
TEST(Seat, GoesToTheNextThreadOfTheSameReceiver) {
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
    second.AwaitSeat();
    QueueSelf(SIGUSR1, value);
    EXPECT_EQ(second.Next().value->sival_int, value);
  }
}

}  // namespace
}  // namespace tocsin
