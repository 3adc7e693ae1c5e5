#include "tocsin/signals/testing/fake_signals.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <latch>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_set.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using Origin = SignalEvent::Origin;

std::string Words(const SignalEvent& event) {
  std::ostringstream out;
  out << event;
  return out.str();
}

// K1
TEST(FakeSignals, DrivesReceiversWithoutTheOperatingSystem) {
  const auto before = Disposition(SIGTERM).sa_handler;
  FakeSignals signals;
  SignalReceiver first = OpenReceiver(signals.service(), {SIGTERM, SIGHUP});
  SignalReceiver second = OpenReceiver(signals.service(), {SIGTERM});
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, before);
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  ASSERT_TRUE(signals.Send(SIGHUP).ok());
  EXPECT_EQ(Next(first).count, 2);
  EXPECT_EQ(Next(first).signum, SIGHUP);
  const SignalEvent event = Next(second);
  EXPECT_EQ(event.sender->pid, getpid());
  EXPECT_EQ(event.received_at, signals.now());
  EXPECT_EQ(signals.service().stats().merged, 2u);
}

sigset_t Mask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

TEST(FakeSignals, TouchNeitherDispositionsNorMasks) {
  const sigset_t before = Mask();
  SignalSet all;
  std::map<int, void (*)(int)> handlers;  // a shell may have some ignored
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (!CheckReceivable({signum}).ok()) continue;
    all.insert(signum);
    handlers[signum] = Disposition(signum).sa_handler;
  }
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), all);
  for (int signum : all) {
    EXPECT_EQ(Disposition(signum).sa_handler, handlers.at(signum))
        << SignalName(signum);
    ASSERT_TRUE(signals.Send(signum).ok());
    const sigset_t now = Mask();
    EXPECT_EQ(sigismember(&now, signum), sigismember(&before, signum));
    EXPECT_EQ(receiver.TryReceive()->signum, signum);
  }
  EXPECT_EQ(Disposition(SIGSTKFLT).sa_handler, SIG_DFL);
  EXPECT_TRUE(signals.service().Verify().ok());
}

TEST(FakeSignals, MayBeSeveralNextToARealService) {
  auto service = StartService();
  FakeSignals one;
  FakeSignals two(absl::FromUnixSeconds(7));
  EXPECT_EQ(one.now(), absl::FromUnixSeconds(1'000'000'000));
  SignalReceiver real = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver first = OpenReceiver(one.service(), {SIGUSR1});
  SignalReceiver second = OpenReceiver(two.service(), {SIGUSR1});
  ASSERT_TRUE(two.Send(SIGUSR1).ok());
  EXPECT_EQ(second.TryReceive()->received_at, absl::FromUnixSeconds(7));
  two.Advance(absl::Seconds(1));
  EXPECT_EQ(one.now(), absl::FromUnixSeconds(1'000'000'000));
  EXPECT_FALSE(first.TryReceive().ok());
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(real).count, 1);
  EXPECT_FALSE(first.TryReceive().ok());
  EXPECT_FALSE(second.TryReceive().ok());
  EXPECT_EQ(service->stats().received, 1u);
  EXPECT_EQ(one.service().stats().received, 0u);
}

TEST(FakeSignals, HandsASignalToAllBeforeItReturns) {
  FakeSignals signals;
  SignalReceiver first = OpenReceiver(signals.service(), {SIGUSR1, SIGHUP});
  SignalReceiver second = OpenReceiver(signals.service(), {SIGUSR1});
  SignalReceiver third = OpenReceiver(signals.service(), {SIGUSR2, SIGUSR1});
  ASSERT_TRUE(signals.Send(SIGUSR1).ok());
  for (SignalReceiver* receiver : {&first, &second, &third}) {
    const auto event = receiver->TryReceive();
    ASSERT_TRUE(event.ok());
    EXPECT_EQ(event->signum, SIGUSR1);
    EXPECT_EQ(event->origin, Origin::kUser);
    EXPECT_EQ(event->sender->pid, getpid());
    EXPECT_EQ(event->sender->uid, getuid());
    EXPECT_FALSE(receiver->TryReceive().ok());
  }
  ASSERT_TRUE(signals.Send(SIGHUP).ok());
  EXPECT_FALSE(second.TryReceive().ok());
  EXPECT_FALSE(third.TryReceive().ok());
  const SignalServiceStats stats = signals.service().stats();
  EXPECT_EQ(stats.received, 2u);
  EXPECT_EQ(stats.redirected, 0u);
  EXPECT_EQ(stats.delivered, 4u);
  EXPECT_EQ(stats.merged + stats.dropped + stats.conflicts, 0u);
  EXPECT_EQ(stats.redelivered + stats.discarded + stats.siginfo_lost, 0u);
}

// What it is sent with that is not the sender's to say.
TEST(FakeSignals, SendsAnEventOnceAndNow) {
  FakeSignals signals(absl::FromUnixSeconds(50));
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGUSR1});
  SignalEvent sent;
  sent.signum = SIGUSR1;
  sent.origin = Origin::kUser;
  sent.count = 5;
  sent.received_at = absl::FromUnixSeconds(4);
  sent.sender = {12, 34};
  ASSERT_TRUE(signals.Send(sent).ok());
  signals.Advance(absl::Seconds(3));
  ASSERT_TRUE(signals.Send(sent).ok());
  SignalEvent got = Next(receiver);
  EXPECT_EQ(got.count, 2);
  EXPECT_EQ(got.received_at, absl::FromUnixSeconds(50));
  EXPECT_EQ(got.sender->pid, 12);
  EXPECT_EQ(got.sender->uid, 34u);
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.count, 1);
  EXPECT_EQ(got.received_at, absl::FromUnixSeconds(53));
}

TEST(FakeSignals, SayWhatIsWrongWithASignal) {
  FakeSignals signals;
  EXPECT_EQ(
      signals.Send(SIGRTMIN + 2),
      absl::NotFoundError("no open receiver is subscribed to SIGRTMIN+2"));
  EXPECT_EQ(signals.Send(SIGSTOP), CheckReceivable({SIGSTOP}));
  EXPECT_EQ(signals.Send(0), CheckReceivable({0}));
  EXPECT_EQ(signals.Send(SignalEvent()), CheckReceivable({0}));
  EXPECT_EQ(signals.service().stats().delivered, 0u);
}

TEST(FakeSignals, OpenAsTheRealOneDoes) {
  FakeSignals signals;
  for (int capacity : {1, kMaxReceiverCapacity}) {
    EXPECT_TRUE(signals.service().Open({SIGTERM}, {.capacity = capacity}).ok());
  }
  EXPECT_EQ(signals.service().Open({SIGTERM}, {.capacity = 0}).status(),
            absl::InvalidArgumentError(
                "ReceiverOptions::capacity is 0; give 1 to 1000000"));
  EXPECT_EQ(signals.service().Open({SIGTERM}, {.capacity = 1'000'001}).status(),
            absl::InvalidArgumentError(
                "ReceiverOptions::capacity is 1000001; give 1 to 1000000"));
  EXPECT_EQ(signals.service().Open({SIGKILL}).status(),
            CheckReceivable({SIGKILL}));
  EXPECT_TRUE(absl::IsNotFound(signals.Send(SIGTERM)));
}

TEST(FakeSignals, WakesAThreadThatReceives) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  std::thread reader([&] { EXPECT_EQ(Next(receiver).signum, SIGTERM); });
  EXPECT_TRUE(signals.Send(SIGTERM).ok());
  reader.join();
}

TEST(FakeSignals, TellsThatNobodyReceivesASignal) {
  FakeSignals signals;
  EXPECT_TRUE(absl::IsNotFound(signals.Send(SIGTERM)));
  EXPECT_TRUE(absl::IsInvalidArgument(signals.Send(SIGKILL)));
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  EXPECT_TRUE(signals.Send(SIGTERM).ok());
  receiver.Close();
  EXPECT_TRUE(absl::IsNotFound(signals.Send(SIGTERM)));
}

// K3
TEST(FakeSignals, TimeoutsGoByTheClockOfTheTest) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  const absl::Time start = signals.now();
  std::latch early(1);
  std::thread reader([&] {
    early.count_down();
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(receiver.ReceiveFor(absl::Hours(1)).status()));
    EXPECT_GE(signals.now(), start + absl::Hours(1));
  });
  early.wait();
  // However far the reader is, some step of these passes its timeout.
  std::latch done(1);
  std::thread joiner([&] {
    reader.join();
    done.count_down();
  });
  while (!done.try_wait()) signals.Advance(absl::Minutes(1));
  joiner.join();
}

// Those whose timeout it passes, and no others.
TEST(FakeSignals, TheClockEndsWaitsToTheNanosecond) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  SignalReceiver other = OpenReceiver(signals.service(), {SIGTERM});
  absl::StatusOr<SignalEvent> short_wait = absl::UnknownError("not back");
  absl::StatusOr<SignalEvent> long_wait = short_wait;
  absl::StatusOr<SignalEvent> endless_wait = short_wait;
  ScopedThread endless(
      [&] { endless_wait = other.ReceiveFor(absl::InfiniteDuration()); });
  endless.AwaitAsleep();
  ScopedThread longer([&] {
    long_wait = receiver.ReceiveFor(absl::Hours(1) + absl::Nanoseconds(1));
  });
  longer.AwaitAsleep();
  ScopedThread shorter(
      [&] { short_wait = receiver.ReceiveFor(absl::Hours(1)); });
  shorter.AwaitAsleep();
  signals.Advance(absl::Hours(1));
  shorter.Join();
  EXPECT_EQ(short_wait.status(),
            absl::DeadlineExceededError("the timeout of the call passed"));
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  longer.Join();
  endless.Join();
  EXPECT_TRUE(long_wait.ok()) << long_wait.status();
  EXPECT_TRUE(endless_wait.ok()) << endless_wait.status();
}

// By the real clock it would wait for an hour, or not at all.
TEST(FakeSignals, TheClockOfAScopeIsTheRealOne) {
  FakeSignals signals(absl::Now() + absl::Hours(24));
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  {
    CancelScope scope({.deadline = absl::Now() + absl::Hours(1)});
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    EXPECT_TRUE(receiver.Receive().ok());
  }
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_EQ(receiver.ReceiveFor(absl::Hours(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(FakeSignals, ATimeoutTakesWhatIsQueuedFirst) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  for (absl::Duration over :
       {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
    ASSERT_TRUE(signals.Send(SIGTERM).ok());
    EXPECT_TRUE(receiver.ReceiveFor(over).ok());
    EXPECT_TRUE(absl::IsDeadlineExceeded(receiver.ReceiveFor(over).status()));
  }
}

TEST(FakeSignals, ATimeoutOfZeroIsOverWithoutMovingTheClock) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGTERM});
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      receiver.ReceiveFor(absl::ZeroDuration()).status()));
}

TEST(FakeSignals, CarriesEveryCause) {
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(
      signals.service(), {SIGINT, SIGCHLD, SIGALRM, SIGRTMIN, SIGIO});
  SignalEvent sent;
  sent.signum = SIGINT;
  sent.origin = Origin::kTerminal;
  ASSERT_TRUE(signals.Send(sent).ok());
  SignalEvent got = Next(receiver);
  EXPECT_EQ(got.origin, Origin::kTerminal);
  EXPECT_FALSE(got.sender.has_value());
  EXPECT_EQ(Words(got), "SIGINT from the terminal");

  sent = {};
  sent.signum = SIGCHLD;
  sent.origin = Origin::kChild;
  sent.child = {.pid = 12, .change = ChildStatus::Change::kExited, .code = 3};
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.origin, Origin::kChild);
  EXPECT_EQ(got.child->pid, 12);
  EXPECT_EQ(Words(got), "SIGCHLD: child 12 exited with status 3");

  sent = {};
  sent.signum = SIGALRM;
  sent.origin = Origin::kTimer;
  sent.value = sigval{.sival_int = 9};
  sent.timer_overrun = 2;
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.origin, Origin::kTimer);
  EXPECT_EQ(Words(got),
            "SIGALRM from the timer with value 9, 2 expirations missed");

  sent = {};
  sent.signum = SIGRTMIN;
  sent.origin = Origin::kQueue;
  sent.value = sigval{.sival_int = 5};
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(Words(got),
            "SIGRTMIN from outside of this pid namespace with value 5");

  sent = {};
  sent.signum = SIGIO;
  sent.origin = Origin::kIo;
  sent.fd = 4;
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.origin, Origin::kIo);
  EXPECT_EQ(Words(got), "SIGIO from the kernel for fd 4");
}

TEST(FakeSignals, CarriesAllThatBelongsToAnOrigin) {
  FakeSignals signals;
  SignalReceiver receiver =
      OpenReceiver(signals.service(), {SIGCHLD, SIGRTMIN, SIGIO});
  SignalEvent sent;
  sent.signum = SIGRTMIN;
  sent.sender = {12, 34};
  sent.value = sigval{.sival_ptr = &signals};
  for (Origin origin : {Origin::kQueue, Origin::kMessageQueue}) {
    sent.origin = origin;
    ASSERT_TRUE(signals.Send(sent).ok());
    const SignalEvent got = Next(receiver);
    EXPECT_EQ(got.origin, origin);
    EXPECT_EQ(got.sender->pid, 12);
    EXPECT_EQ(got.sender->uid, 34u);
    EXPECT_EQ(got.value->sival_ptr, &signals);
    EXPECT_FALSE(got.child || got.timer_overrun || got.fd);
  }
  sent = {};
  sent.signum = SIGRTMIN;
  sent.origin = Origin::kTimer;
  sent.value = sigval{.sival_int = -1};
  sent.timer_overrun = 2;
  ASSERT_TRUE(signals.Send(sent).ok());
  SignalEvent got = Next(receiver);
  EXPECT_EQ(got.value->sival_int, -1);
  EXPECT_EQ(got.timer_overrun, 2);
  EXPECT_FALSE(got.sender || got.child || got.fd);

  sent = {};
  sent.signum = SIGCHLD;
  sent.origin = Origin::kChild;
  sent.sender = {12, 34};
  sent.child = {.pid = 12, .change = ChildStatus::Change::kStopped, .code = 9};
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.sender->pid, 12);
  EXPECT_EQ(got.sender->uid, 34u);
  EXPECT_EQ(got.child->code, 9);
  EXPECT_FALSE(got.value || got.timer_overrun || got.fd);

  sent = {};
  sent.signum = SIGIO;
  sent.origin = Origin::kIo;
  sent.fd = 4;
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.fd, 4);
  EXPECT_FALSE(got.sender || got.child || got.value || got.timer_overrun);
}

TEST(FakeSignals, CarriesEveryChangeOfAChild) {
  using Change = ChildStatus::Change;
  FakeSignals signals;
  SignalReceiver receiver = OpenReceiver(signals.service(), {SIGCHLD});
  const std::pair<Change, std::string> changes[] = {
      {Change::kKilled, "SIGCHLD: child 12 was killed by SIGSTOP"},
      {Change::kDumped, "SIGCHLD: child 12 dumped core on SIGSTOP"},
      {Change::kTrapped, "SIGCHLD: child 12 was trapped by SIGSTOP"},
      {Change::kStopped, "SIGCHLD: child 12 was stopped by SIGSTOP"},
      {Change::kContinued, "SIGCHLD: child 12 was continued by SIGSTOP"},
  };
  for (const auto& [change, words] : changes) {
    SignalEvent sent;
    sent.signum = SIGCHLD;
    sent.origin = Origin::kChild;
    sent.child = {.pid = 12, .change = change, .code = SIGSTOP};
    ASSERT_TRUE(signals.Send(sent).ok());
    const SignalEvent got = Next(receiver);
    EXPECT_EQ(got.child->change, change);
    EXPECT_EQ(Words(got), words);
  }
}

TEST(FakeSignals, EveryCauseHasAName) {
  FakeSignals signals;
  SignalReceiver receiver =
      OpenReceiver(signals.service(), {SIGRTMIN, SIGCHLD, SIGINT});
  const std::tuple<int, Origin, std::string> origins[] = {
      {SIGRTMIN, Origin::kUser, "user"},
      {SIGRTMIN, Origin::kQueue, "queue"},
      {SIGRTMIN, Origin::kKernel, "kernel"},
      {SIGINT, Origin::kTerminal, "terminal"},
      {SIGRTMIN, Origin::kTimer, "timer"},
      {SIGCHLD, Origin::kChild, "child"},
      {SIGRTMIN, Origin::kMessageQueue, "message queue"},
      {SIGRTMIN, Origin::kIo, "io"},
      {SIGRTMIN, Origin::kOther, "other"},
  };
  for (const auto& [signum, origin, name] : origins) {
    SignalEvent sent;
    sent.signum = signum;
    sent.origin = origin;
    ASSERT_TRUE(signals.Send(sent).ok());
    const SignalEvent got = Next(receiver);
    EXPECT_EQ(got.origin, origin);
    std::ostringstream out;
    out << got.origin;
    EXPECT_EQ(out.str(), name);
  }
}

TEST(FakeSignals, AReceiverMayOutliveIt) {
  std::optional<FakeSignals> signals(std::in_place);
  SignalReceiver receiver = OpenReceiver(signals->service(), {SIGTERM});
  ASSERT_TRUE(signals->Send(SIGTERM).ok());
  signals.reset();
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));
}

TEST(FakeSignals, ItsEndWakesWhoeverReceives) {
  std::optional<FakeSignals> signals(std::in_place);
  SignalReceiver receiver = OpenReceiver(signals->service(), {SIGTERM});
  SignalReceiver other = OpenReceiver(signals->service(), {SIGHUP});
  std::vector<std::unique_ptr<ScopedThread>> readers;
  for (SignalReceiver* read : {&receiver, &receiver, &other}) {
    readers.push_back(std::make_unique<ScopedThread>(
        [read] { EXPECT_TRUE(absl::IsOutOfRange(read->Receive().status())); }));
    readers.back()->AwaitAsleep();
  }
  signals.reset();
}

}  // namespace
}  // namespace tocsin
