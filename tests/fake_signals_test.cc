#include "tocsin/signals/testing/fake_signals.h"

#include <csignal>
#include <latch>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/signal_receiver.h"

namespace tocsin {
namespace {

using Cause = SignalEvent::Cause;

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
  sent.cause = Cause::kTerminal;
  ASSERT_TRUE(signals.Send(sent).ok());
  SignalEvent got = Next(receiver);
  EXPECT_EQ(got.cause, Cause::kTerminal);
  EXPECT_FALSE(got.sender.has_value());
  EXPECT_EQ(Words(got), "SIGINT from the terminal");

  sent = {};
  sent.signum = SIGCHLD;
  sent.cause = Cause::kChild;
  sent.child = {.pid = 12, .change = ChildStatus::Change::kExited, .code = 3};
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.cause, Cause::kChild);
  EXPECT_EQ(got.child->pid, 12);
  EXPECT_EQ(Words(got), "SIGCHLD: child 12 exited with status 3");

  sent = {};
  sent.signum = SIGALRM;
  sent.cause = Cause::kTimer;
  sent.value = sigval{.sival_int = 9};
  sent.timer_overrun = 2;
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.cause, Cause::kTimer);
  EXPECT_EQ(Words(got),
            "SIGALRM from the timer with value 9, 2 expirations missed");

  sent = {};
  sent.signum = SIGRTMIN;
  sent.cause = Cause::kQueue;
  sent.value = sigval{.sival_int = 5};
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(Words(got),
            "SIGRTMIN from outside of this pid namespace with value 5");

  sent = {};
  sent.signum = SIGIO;
  sent.cause = Cause::kIo;
  sent.fd = 4;
  ASSERT_TRUE(signals.Send(sent).ok());
  got = Next(receiver);
  EXPECT_EQ(got.cause, Cause::kIo);
  EXPECT_EQ(Words(got), "SIGIO from the kernel for fd 4");
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
    sent.cause = Cause::kChild;
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
  const std::tuple<int, Cause, std::string> causes[] = {
      {SIGRTMIN, Cause::kUser, "user"},
      {SIGRTMIN, Cause::kQueue, "queue"},
      {SIGRTMIN, Cause::kKernel, "kernel"},
      {SIGINT, Cause::kTerminal, "terminal"},
      {SIGRTMIN, Cause::kTimer, "timer"},
      {SIGCHLD, Cause::kChild, "child"},
      {SIGRTMIN, Cause::kMessageQueue, "message queue"},
      {SIGRTMIN, Cause::kIo, "io"},
      {SIGRTMIN, Cause::kOther, "other"},
  };
  for (const auto& [signum, cause, name] : causes) {
    SignalEvent sent;
    sent.signum = signum;
    sent.cause = cause;
    ASSERT_TRUE(signals.Send(sent).ok());
    const SignalEvent got = Next(receiver);
    EXPECT_EQ(got.cause, cause);
    std::ostringstream out;
    out << got.cause;
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

}  // namespace
}  // namespace tocsin
