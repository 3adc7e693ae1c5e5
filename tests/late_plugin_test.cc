// What children ignore where the library comes with the program, and where it
// comes later (internal/ignored_at_start.h).
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/base/config.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"

namespace tocsin {
namespace {

constexpr uint64_t Bit(int signum) { return uint64_t{1} << (signum - 1); }

constexpr char kHost[] = "tests/late_plugin_host";
// All in one file, and beside the libraries that it needs.
constexpr const char* kPlugins[] = {"tests/liblate_plugin.so",
                                    "tests/liblate_plugin_of_parts.so"};

// What a child of the plug-in ignores, where the host was started with SIGHUP,
// SIGQUIT, SIGUSR2 and SIGXFSZ ignored.
uint64_t IgnoredByAChild(const std::string& host) {
  StartedProgram program(
      {"/bin/sh", "-c", "trap '' HUP QUIT USR2 XFSZ; " + host});
  const std::string mask = program.ReadLine();
  EXPECT_EQ(ExitStatus(program.Wait()), 0) << mask;
  return std::strtoull(mask.c_str(), nullptr, 16);
}

class LatePlugin : public testing::TestWithParam<const char*> {};

TEST_P(LatePlugin, HandsOnWhatParentsAreKnownToIgnoreAndNothingElse) {
  EXPECT_EQ(IgnoredByAChild(std::string(kHost) + " dlopen ./" + GetParam()),
            Bit(SIGHUP) | Bit(SIGQUIT));
}

TEST_P(LatePlugin, OfAnotherNamespaceIsLateToo) {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "a sanitizer is not to be had twice";
#endif
  EXPECT_EQ(IgnoredByAChild(std::string(kHost) + " dlmopen ./" + GetParam()),
            Bit(SIGHUP) | Bit(SIGQUIT));
}

// It is there before the program runs, and knows.
TEST_P(LatePlugin, ThatIsPreloadedHandsOnWhatWasIgnoredAtTheStart) {
  EXPECT_EQ(
      IgnoredByAChild("ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=./" +
                      std::string(GetParam()) + " " + kHost + " preloaded"),
      Bit(SIGHUP) | Bit(SIGQUIT) | Bit(SIGUSR2) | Bit(SIGXFSZ));
}

INSTANTIATE_TEST_SUITE_P(Plugins, LatePlugin, testing::ValuesIn(kPlugins));

}  // namespace
}  // namespace tocsin
