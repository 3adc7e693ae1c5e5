// How an event reads.
#include "tocsin/signals/signal_event.h"

#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tocsin {
namespace {

using Origin = SignalEvent::Origin;
using Change = ChildStatus::Change;

// Of no process: above the kernel's limit, which is 2^22.
constexpr pid_t kNobody = 4'999'999;

SignalEvent Event(int signum, Origin origin) {
  SignalEvent event;
  event.signum = signum;
  event.origin = origin;
  return event;
}

template <typename T>
std::string Words(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

TEST(SignalEvent, IsOfNoSignalAndOfAnotherOriginAtFirst) {
  const SignalEvent event;
  EXPECT_EQ(event.signum, 0);
  EXPECT_EQ(event.count, 1);
  EXPECT_EQ(event.origin, Origin::kOther);
  EXPECT_FALSE(event.sender.has_value());
  EXPECT_FALSE(event.value.has_value());
  EXPECT_FALSE(event.child.has_value());
  EXPECT_FALSE(event.timer_overrun.has_value());
  EXPECT_FALSE(event.fd.has_value());
}

// As Abseil's.
struct Sink {
  void Append(absl::string_view more) { text.append(more.data(), more.size()); }
  std::string text;
};

template <typename T>
std::string Stringified(const T& value) {
  Sink sink;
  AbslStringify(sink, value);
  return sink.text;
}

TEST(InWords, IsTheSameForAbseil) {
  EXPECT_EQ(Stringified(Event(SIGHUP, Origin::kTerminal)),
            "SIGHUP from the terminal");
  EXPECT_EQ(Stringified(Origin::kTerminal), "terminal");
}

TEST(InWords, AnOriginHasAName) {
  const std::pair<Origin, std::string> names[] = {
      {Origin::kUser, "user"},
      {Origin::kQueue, "queue"},
      {Origin::kKernel, "kernel"},
      {Origin::kTerminal, "terminal"},
      {Origin::kTimer, "timer"},
      {Origin::kChild, "child"},
      {Origin::kMessageQueue, "message queue"},
      {Origin::kIo, "io"},
      {Origin::kOther, "other"},
  };
  for (const auto& [origin, name] : names) EXPECT_EQ(Words(origin), name);
}

TEST(InWords, TheSenderHasTheNameOfItsCommand) {
  std::ifstream file("/proc/self/comm");
  std::string name;
  std::getline(file, name);
  SignalEvent event = Event(SIGTERM, Origin::kUser);
  event.sender = {getpid(), 4711};
  EXPECT_EQ(Words(event), absl::StrCat("SIGTERM from pid ", getpid(), " (",
                                       name, ", uid 4711)"));
}

TEST(InWords, ASenderThatIsGoneHasANumber) {
  SignalEvent event = Event(SIGTERM, Origin::kUser);
  event.sender = {kNobody, 0};
  EXPECT_EQ(Words(event), "SIGTERM from pid 4999999 (uid 0)");
  event.count = 2;
  EXPECT_EQ(Words(event), "SIGTERM (2 times) from pid 4999999 (uid 0)");
  event.origin = Origin::kQueue;
  event.value = sigval{.sival_int = -3};
  EXPECT_EQ(Words(event),
            "SIGTERM (2 times) from pid 4999999 (uid 0) with value -3");
  event.origin = Origin::kMessageQueue;
  event.count = 1;
  EXPECT_EQ(Words(event), "SIGTERM from pid 4999999 (uid 0) with value -3");
}

TEST(InWords, WithoutASenderItIsWhereItCameFrom) {
  const std::pair<Origin, std::string> origins[] = {
      {Origin::kUser, "SIGHUP from outside of this pid namespace"},
      {Origin::kQueue, "SIGHUP from outside of this pid namespace"},
      {Origin::kKernel, "SIGHUP from the kernel"},
      {Origin::kTerminal, "SIGHUP from the terminal"},
      {Origin::kTimer, "SIGHUP from the timer"},
      {Origin::kChild, "SIGHUP from the kernel"},
      {Origin::kMessageQueue, "SIGHUP from the kernel"},
      {Origin::kIo, "SIGHUP from the kernel"},
      {Origin::kOther, "SIGHUP from the kernel"},
  };
  for (const auto& [origin, words] : origins) {
    EXPECT_EQ(Words(Event(SIGHUP, origin)), words);
  }
}

TEST(InWords, ATimerTellsOfExpirationsIfSomeWereMissed) {
  SignalEvent event = Event(SIGALRM, Origin::kTimer);
  event.value = sigval{.sival_int = 4};
  event.timer_overrun = 0;
  EXPECT_EQ(Words(event), "SIGALRM from the timer with value 4");
  event.timer_overrun = 1;
  EXPECT_EQ(Words(event),
            "SIGALRM from the timer with value 4, 1 expirations missed");
}

TEST(InWords, ADescriptorIsNamed) {
  SignalEvent event = Event(SIGIO, Origin::kIo);
  event.fd = 0;
  EXPECT_EQ(Words(event), "SIGIO from the kernel for fd 0");
}

TEST(InWords, AChildTellsWhatBecameOfIt) {
  const std::pair<Change, std::string> changes[] = {
      {Change::kExited, "exited with status 5"},
      {Change::kKilled, "was killed by SIGTRAP"},
      {Change::kDumped, "dumped core on SIGTRAP"},
      {Change::kTrapped, "was trapped by SIGTRAP"},
      {Change::kStopped, "was stopped by SIGTRAP"},
      {Change::kContinued, "was continued by SIGTRAP"},
  };
  for (const auto& [change, words] : changes) {
    SignalEvent event = Event(SIGCHLD, Origin::kChild);
    event.sender = {12, 0};
    event.child = {.pid = 12, .change = change, .code = SIGTRAP};
    EXPECT_EQ(Words(event), "SIGCHLD: child 12 " + words);
    event.count = 3;
    EXPECT_EQ(Words(event), "SIGCHLD (3 times): child 12 " + words);
  }
}

}  // namespace
}  // namespace tocsin
