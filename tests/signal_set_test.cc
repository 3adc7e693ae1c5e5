#include "tocsin/signals/signal_set.h"

#include <csignal>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tocsin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SignalSet, IteratesInAscendingOrder) {
  const SignalSet set({SIGTERM, SIGRTMAX, SIGHUP, SIGTERM});
  EXPECT_THAT(std::vector<int>(set.begin(), set.end()),
              ElementsAre(SIGHUP, SIGTERM, SIGRTMAX));
  EXPECT_EQ(set.size(), 3u);
  EXPECT_TRUE(SignalSet().begin() == SignalSet().end());
  SignalSet::iterator it = set.begin();
  EXPECT_EQ(*it++, SIGHUP);
  EXPECT_EQ(*it, SIGTERM);
  EXPECT_EQ(*++it, SIGRTMAX);
  EXPECT_TRUE(++it == set.end());
}

TEST(SignalSet, HoldsEverySignalThereIs) {
  SignalSet set;
  EXPECT_TRUE(set.empty());
  for (int signum = 1; signum <= 64; ++signum) {
    EXPECT_FALSE(set.contains(signum));
    set.insert(signum);
    EXPECT_TRUE(set.contains(signum));
    EXPECT_EQ(set.size(), static_cast<size_t>(signum));
  }
  for (int signum = 64; signum >= 1; --signum) {
    set.erase(signum);
    EXPECT_FALSE(set.contains(signum));
    EXPECT_EQ(set.size(), static_cast<size_t>(signum - 1));
  }
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(set, SignalSet());
}

TEST(SignalSet, RemembersANumberThatIsNoSignal) {
  SignalSet set({0});
  EXPECT_FALSE(set.contains(0));
  EXPECT_FALSE(set == SignalSet());
  set.erase(0);
  EXPECT_FALSE(set == SignalSet());
  EXPECT_TRUE(set.begin() == set.end());
}

// Issue 18: empty() counted a number that is no signal, and size() did not.
TEST(SignalSet, IsEmptyWhereItsSizeIsZero) {
  for (const SignalSet& set :
       {SignalSet(), SignalSet({0}), SignalSet({4096}), SignalSet({SIGTERM}),
        SignalSet({SIGTERM, 4096})}) {
    EXPECT_EQ(set.empty(), set.size() == 0);
    EXPECT_EQ(set.empty(), set.begin() == set.end());
  }
}

TEST(SignalSet, OfTerminationIsTheKeyAndTheSupervisors) {
  EXPECT_EQ(SignalSet::Termination(), SignalSet({SIGINT, SIGTERM}));
}

TEST(SignalSet, ContainsWhatWasInsertedAndNotErased) {
  SignalSet set = SignalSet::Termination();
  EXPECT_TRUE(set.contains(SIGINT));
  set.erase(SIGINT);
  EXPECT_FALSE(set.contains(SIGINT));
  EXPECT_EQ(set, SignalSet({SIGTERM}));
  EXPECT_FALSE(set.contains(0));
  EXPECT_FALSE(set.contains(4096));
}

// R10
TEST(SignalName, NamesEveryNumber) {
  EXPECT_EQ(SignalName(SIGTERM), "SIGTERM");
  EXPECT_EQ(SignalName(SIGABRT), "SIGABRT");
  EXPECT_EQ(SignalName(SIGIO), "SIGIO");
  EXPECT_EQ(SignalName(SIGRTMIN), "SIGRTMIN");
  EXPECT_EQ(SignalName(SIGRTMIN + 3), "SIGRTMIN+3");
  EXPECT_EQ(SignalName(SIGRTMAX), "SIGRTMAX");
  EXPECT_EQ(SignalName(32), "signal 32");
  EXPECT_EQ(SignalName(0), "signal 0");
  EXPECT_EQ(SignalName(-1), "signal -1");
  EXPECT_EQ(SignalName(4096), "signal 4096");
}

// The C library's abbreviations, but for the one that it calls by its other
// name.
TEST(SignalName, IsTheOneOfTheManual) {
  for (int signum = 1; signum < 32; ++signum) {
    const std::string name = signum == SIGIO ? "IO" : sigabbrev_np(signum);
    EXPECT_EQ(SignalName(signum), "SIG" + name);
    for (const std::string& text : {name, "SIG" + name}) {
      const auto parsed = ParseSignal(text);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, signum) << text;
    }
  }
  for (int above = 1; above < SIGRTMAX - SIGRTMIN; ++above) {
    EXPECT_EQ(SignalName(SIGRTMIN + above),
              "SIGRTMIN+" + std::to_string(above));
  }
  EXPECT_EQ(SignalName(33), "signal 33");
  EXPECT_EQ(SignalName(SIGRTMAX + 1), "signal 65");
}

TEST(ParseSignal, ReadsWhatSignalNameWrites) {
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (signum >= 32 && signum < SIGRTMIN) continue;
    const auto parsed = ParseSignal(SignalName(signum));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, signum);
  }
}

TEST(ParseSignal, ReadsNamesNumbersAndOffsets) {
  const std::pair<std::string, int> cases[] = {
      {"TERM", SIGTERM},
      {"SIGTERM", SIGTERM},
      {"sigterm", SIGTERM},
      {"15", 15},
      {"RTMIN+3", SIGRTMIN + 3},
      {"SIGRTMIN+0", SIGRTMIN},
      {"RTMAX-1", SIGRTMAX - 1},
      {"SIGRTMAX", SIGRTMAX},
      {"CLD", SIGCHLD},
      {"POLL", SIGPOLL},
      {"KILL", SIGKILL},
      {"iot", SIGABRT},
      {"SigIo", SIGIO},
      {"1", 1},
      {"64", SIGRTMAX},
      {"32", 32},
      {"015", 15},
      {"rtmin+30", SIGRTMAX},
      {"RTMAX-30", SIGRTMIN},
      {"RTMIN", SIGRTMIN},
      {"rtmax", SIGRTMAX},
      {"RTMAX-0", SIGRTMAX},
  };
  for (const auto& [text, signum] : cases) {
    const auto parsed = ParseSignal(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, signum) << text;
  }
}

TEST(ParseSignal, RefusesEverythingElseAndQuotesIt) {
  for (const char* text :
       {"",         "SIG",      "FOO",      "0",
        "-1",       "65",       "4096",     "15x",
        " 15",      "+15",      "1e1",      "99999999999999999999",
        "15 ",      "15\n",     "RTMIN+3 ", "RTMAX-1\t",
        "RTMIN-1",  "RTMAX+1",  "RTMIN+",   "RTMIN+31",
        "RTMIN++1", "RTMIN+ 1", "RTMINX",   "SIGSIGTERM",
        "SIG15",    "RTMAX-31", "RTMIN*3",  "RTMAX3",
        "TER",      "TERMS",    "RTMAX-",   "xTERM"}) {
    const auto parsed = ParseSignal(text);
    ASSERT_FALSE(parsed.ok()) << text << " was read as " << *parsed;
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status()));
    EXPECT_THAT(std::string(parsed.status().message()),
                HasSubstr(std::string("\"") + text + "\""));
  }
}

TEST(ParseSignal, SaysHowToNameOne) {
  EXPECT_EQ(ParseSignal("fuzz").status(),
            absl::InvalidArgumentError(
                "no such signal: \"fuzz\"; name one as TERM, SIGTERM, 15 or "
                "RTMIN+3"));
}

// N1, G08
TEST(CheckReceivable, RefusesByNameAndReason) {
  const std::pair<int, std::string> cases[] = {
      {SIGKILL, "SIGKILL cannot be received: the kernel never"},
      {SIGSTOP, "SIGSTOP cannot be received: the kernel never"},
      {SIGSEGV, "SIGSEGV cannot be received: it reports a fault"},
      {SIGBUS, "SIGBUS cannot be received: it reports a fault"},
      {SIGFPE, "SIGFPE cannot be received: it reports a fault"},
      {SIGILL, "SIGILL cannot be received: it reports a fault"},
      {SIGTRAP, "SIGTRAP cannot be received: it reports a fault"},
      {SIGSYS, "SIGSYS cannot be received: it reports a fault"},
      {SIGABRT, "SIGABRT cannot be received: abort()"},
      {SIGTTIN, "SIGTTIN cannot be received: the terminal call"},
      {SIGTTOU, "SIGTTOU cannot be received: the terminal call"},
      {SIGSTKFLT, "SIGSTKFLT cannot be received: the signal service"},
      {32, "signal 32 cannot be received: the C library"},
      {33, "signal 33 cannot be received: the C library"},
      {0, "signal 0 cannot be received: signals are numbered"},
      {-1, "signal -1 cannot be received: signals are numbered"},
      {65, "signal 65 cannot be received: signals are numbered"},
      {4096, "signal 4096 cannot be received: signals are numbered"},
  };
  for (const auto& [signum, message] : cases) {
    const absl::Status status = CheckReceivable({SIGTERM, signum});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << signum;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(CheckReceivable, NamesTheFirstThatIsNoSignal) {
  EXPECT_THAT(std::string(CheckReceivable({4096, SIGTERM, -1}).message()),
              HasSubstr("signal 4096 cannot be received"));
}

TEST(CheckReceivable, SaysWhatToDoInstead) {
  const std::string crash_handler = "; install a crash handler for it instead";
  const std::pair<SignalSet, std::string> cases[] = {
      {{SIGKILL},
       "SIGKILL cannot be received: the kernel never delivers it to a program; "
       "clean up on SIGTERM, which well-behaved senders try first"},
      {{SIGSEGV},
       "SIGSEGV cannot be received: it reports a fault of the thread that "
       "runs, "
       "which cannot go on" +
           crash_handler},
      {{SIGABRT},
       "SIGABRT cannot be received: abort() ends the program whatever is done "
       "about the signal" +
           crash_handler},
      {{SIGTTOU},
       "SIGTTOU cannot be received: the terminal call that raises it would be "
       "restarted and raise it again without end; leave it to stop the job"},
      {{SIGSTKFLT},
       "SIGSTKFLT cannot be received: the signal service wakes its own thread "
       "with it; choose another, for example a real-time signal"},
      {{33},
       "signal 33 cannot be received: the C library keeps it for its threads; "
       "choose one from SIGRTMIN on"},
      {{65}, "signal 65 cannot be received: signals are numbered from 1 to 64"},
      {{}, "no signals were given; name at least one, for example SIGTERM"},
  };
  for (const auto& [signals, message] : cases) {
    EXPECT_EQ(CheckReceivable(signals), absl::InvalidArgumentError(message));
  }
}

TEST(CheckReceivable, NamesTheFirst) {
  EXPECT_THAT(
      std::string(CheckReceivable({SIGTTIN, SIGSTOP, SIGTERM, SIGILL, SIGHUP})
                      .message()),
      HasSubstr("SIGILL cannot be received"));
}

// X8, G07
TEST(CheckReceivable, RefusesTheEmptySet) {
  EXPECT_TRUE(absl::IsInvalidArgument(CheckReceivable({})));
}

TEST(CheckReceivable, AcceptsAllOthers) {
  for (int signum :
       {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM,
        SIGPROF, SIGXCPU, SIGXFSZ, SIGIO, SIGPWR, SIGWINCH, SIGURG, SIGCONT,
        SIGCHLD, SIGPIPE, SIGTSTP}) {
    EXPECT_TRUE(CheckReceivable({signum}).ok()) << SignalName(signum);
  }
  for (int signum = SIGRTMIN; signum <= SIGRTMAX; ++signum) {
    EXPECT_TRUE(CheckReceivable({signum}).ok()) << SignalName(signum);
  }
}

}  // namespace
}  // namespace tocsin
