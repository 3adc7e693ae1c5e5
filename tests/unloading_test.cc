// A plug-in that holds a copy of the library is closed: its threads, and what
// the C library calls at the end of others, must not run where nothing is
// mapped.
#include <dlfcn.h>

#include <string>
#include <thread>

#include "absl/base/config.h"
#include "gtest/gtest.h"

namespace tocsin {
namespace {

constexpr char kPlugin[] = "./tests/unloaded_plugin.so";

class UnloadingTest : public testing::TestWithParam<const char*> {};

TEST_P(UnloadingTest, LeavesThePluginMapped) {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  GTEST_SKIP() << "a sanitizer is not to be had twice";
#endif
  // Not on the main thread: this one ends while the plug-in is closed.
  std::thread([] {
    void* const plugin = dlopen(kPlugin, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(plugin, nullptr) << dlerror();
    const auto use = reinterpret_cast<int (*)()>(dlsym(plugin, GetParam()));
    ASSERT_NE(use, nullptr) << dlerror();
    EXPECT_EQ(use(), 0);
    EXPECT_EQ(dlclose(plugin), 0);
  }).join();
  EXPECT_NE(dlopen(kPlugin, RTLD_NOW | RTLD_NOLOAD), nullptr) << dlerror();
}

INSTANTIATE_TEST_SUITE_P(Threads, UnloadingTest,
                         testing::Values("UseNothing", "RunTasks",
                                         "TakeTokenWithDeadline",
                                         "AwaitInScope", "ReceiveSignal"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

}  // namespace
}  // namespace tocsin
