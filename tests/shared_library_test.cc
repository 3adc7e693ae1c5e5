// One copy of the library for several shared objects that hide their own
// symbols (-fvisibility=hidden): what one of them does with a scope or a task,
// the code of the others knows.
#include <dlfcn.h>

#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/sharing_plugin.h"
#include "tocsin/concurrency/cancel_scope.h"

namespace tocsin {
namespace {

const SharingPlugin* Load(const char* file) {
  void* const object = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (object == nullptr) {
    ADD_FAILURE() << dlerror();
    return &sharing_plugin;
  }
  return static_cast<const SharingPlugin*>(dlsym(object, "sharing_plugin"));
}

// Each part, with one that finds what the first has made.
std::vector<std::pair<const SharingPlugin*, const SharingPlugin*>> Pairs() {
  const SharingPlugin* const first = Load("tests/first_sharing_plugin.so");
  const SharingPlugin* const second = Load("tests/second_sharing_plugin.so");
  return {{first, second}, {first, &sharing_plugin}, {&sharing_plugin, second}};
}

class SharedLibrary : public testing::Test {
 protected:
#ifdef TOCSIN_TESTS_STATIC
  void SetUp() override {
    GTEST_SKIP()
        << "each object has a copy of the library (--dynamic_mode=off)";
  }
#endif
};

TEST_F(SharedLibrary, AScopeOfOneObjectEndsTheSleepInAnother) {
  for (const auto& [one, other] : Pairs()) {
    one->in_scope([other = other](CancelScope& scope) {
      EXPECT_TRUE(other->check().ok());
      std::thread thread([&] { scope.Cancel(); });
      EXPECT_EQ(other->sleep().code(), absl::StatusCode::kCancelled);
      EXPECT_EQ(other->check().code(), absl::StatusCode::kCancelled);
      thread.join();
    });
    EXPECT_TRUE(other->check().ok());
  }
}

TEST_F(SharedLibrary, AScopeOfOneObjectIsInsideThatOfAnother) {
  for (const auto& [one, other] : Pairs()) {
    one->in_scope([one = one, other = other](CancelScope& outer) {
      other->in_scope([&](CancelScope& inner) {
        outer.Cancel();
        EXPECT_TRUE(inner.cancelled());
        EXPECT_EQ(one->check().code(), absl::StatusCode::kCancelled);
      });
    });
  }
}

TEST_F(SharedLibrary, ATaskOfOneObjectIsOneForTheOthers) {
  for (const auto& [one, other] : Pairs()) {
    one->in_task([other = other](const std::stop_token& stop) {
      EXPECT_TRUE(stop.stop_possible());
      EXPECT_TRUE(other->is_worker());
    });
    EXPECT_FALSE(other->is_worker());
  }
}

}  // namespace
}  // namespace tocsin
