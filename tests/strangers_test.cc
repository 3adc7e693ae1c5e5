// Other code in the process that touches signals, other copies of the library
// included.
#include <csignal>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kFirst[] = "load:tests/first_plugin.so";
constexpr char kSecond[] = "load:tests/second_plugin.so";

// A process whose parts have copies of the library (plugin_host.cc).
class Host : public StartedProgram {
 public:
  explicit Host(std::vector<std::string> commands)
      : StartedProgram(Argv(std::move(commands))) {}

  // Reads what as many commands have printed that are of no interest.
  void Skip(int lines) {
    while (lines-- > 0) ReadLine();
  }

 private:
  static std::vector<std::string> Argv(std::vector<std::string> commands) {
    commands.insert(commands.begin(), "tests/plugin_host");
    return commands;
  }
};

auto IsTakenBy(const char* file) {
  return AllOf(StartsWith("ALREADY_EXISTS: SIGSTKFLT has a handler of "),
               HasSubstr(file));
}

TEST(TwoCopies, HaveOneServiceInAProcess) {
  // That of a plug-in and its host, and those of two plug-ins.
  for (const auto& [first, first_file, second, second_file] :
       {std::tuple("0", "plugin_host", "1", "first_plugin.so"),
        std::tuple("1", "first_plugin.so", "0", "plugin_host"),
        std::tuple("1", "first_plugin.so", "2", "second_plugin.so")}) {
    const auto to = [](const char* verb, const char* which) {
      return std::string(verb) + ":" + which;
    };
    Host host({kFirst, kSecond, to("start", first), to("start", second), "send",
               to("receive", first), to("stop", first), to("start", second),
               "send", to("receive", second), to("start", first),
               to("stop", second), "disposition", "die"});
    host.Skip(2);
    EXPECT_EQ(host.ReadLine(), "OK");
    EXPECT_THAT(host.ReadLine(), IsTakenBy(first_file));
    host.Skip(1);
    EXPECT_EQ(host.ReadLine(), std::to_string(SIGTERM));
    host.Skip(1);
    EXPECT_EQ(host.ReadLine(), "OK");
    host.Skip(1);
    EXPECT_EQ(host.ReadLine(), std::to_string(SIGTERM));
    EXPECT_THAT(host.ReadLine(), IsTakenBy(second_file));
    host.Skip(1);
    EXPECT_EQ(host.ReadLine(), "default");
    EXPECT_EQ(host.ReadAll(), "");
    EXPECT_EQ(KillingSignal(host.Wait()), SIGTERM);
  }
}

TEST(TwoCopies, LeaveNothingBehindInWhateverOrderTheyStop) {
  for (const auto& [one, other] :
       {std::pair("stop:1", "stop:2"), std::pair("stop:2", "stop:1")}) {
    Host host({kFirst, kSecond, "start:1", "start:2", one, other, "disposition",
               "die"});
    host.Skip(6);
    EXPECT_EQ(host.ReadLine(), "default");
    EXPECT_EQ(host.ReadAll(), "");
    EXPECT_EQ(KillingSignal(host.Wait()), SIGTERM);
  }
}

TEST(TwoCopies, AnotherThanTheParentsMayHaveTheServiceOfAForkedChild) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "TSan allows no new threads in a forked child";
#endif
  Host host({kFirst, "start:0", "fork", "start:1", "start:0", "send",
             "receive:1", "stop:1"});
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), "OK");
  EXPECT_EQ(host.ReadLine(), "child");
  EXPECT_EQ(host.ReadLine(), "OK");
  EXPECT_THAT(host.ReadLine(), IsTakenBy("first_plugin.so"));
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), std::to_string(SIGTERM));
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), "parent, 0");
  EXPECT_THAT(host.ReadLine(), IsTakenBy("plugin_host"));
}

// TSan has a handler of its own in place of each that the program installs.
constexpr char kForeignFile[] =
#ifdef ABSL_HAVE_THREAD_SANITIZER
    "";
#else
    "plugin_host";
#endif

TEST(Doorbell, BelongsToAHandlerThatOtherCodeHasForIt) {
  Host host({kFirst, "foreign", "start:1", "start:0", "disposition", "ring",
             "disposition"});
  host.Skip(2);
  EXPECT_THAT(host.ReadLine(), IsTakenBy(kForeignFile));
  EXPECT_THAT(host.ReadLine(), IsTakenBy(kForeignFile));
  EXPECT_EQ(host.ReadLine(), "foreign");
  EXPECT_EQ(host.ReadLine(), "the foreign handler ran");
  EXPECT_EQ(host.ReadLine(), "foreign");
  EXPECT_EQ(ExitStatus(host.Wait()), 0);
}

TEST(Doorbell, StaysWithAHandlerThatOtherCodeInstallsMeanwhile) {
  Host host({"start:0", "foreign", "stop:0", "disposition"});
  host.Skip(3);
  EXPECT_EQ(host.ReadLine(), "foreign");
  EXPECT_EQ(ExitStatus(host.Wait()), 0);
}

TEST(Doorbell, IsIgnoredAgainIfItWasBefore) {
  Host host({"ignore", "start:0", "ring", "send", "receive:0", "stop:0",
             "disposition"});
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), "OK");
  EXPECT_EQ(host.ReadLine(), "nothing");
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), std::to_string(SIGTERM));
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), "ignored");
  EXPECT_EQ(ExitStatus(host.Wait()), 0);
}

TEST(Doorbell, DoesNothingOnAThreadThatItIsNotFor) {
  Host host({"start:0", "ring", "send", "receive:0"});
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), "nothing");
  host.Skip(1);
  EXPECT_EQ(host.ReadLine(), std::to_string(SIGTERM));
  EXPECT_EQ(ExitStatus(host.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
