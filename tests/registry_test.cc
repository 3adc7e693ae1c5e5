// The lists of open subscriptions, against a plain list of them.
#include "tocsin/signals/internal/registry.h"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Named final : public Subscriber {
 public:
  explicit Named(const SignalSet& signals)
      : Subscriber(signals, ReceiverOptions(), /*observed=*/false) {}

  void Enqueue(const RawSiginfo&, uint32_t, absl::Time, FutexWakes&) override {}
  void MarkClosed(FutexWakes&) override {}
  void WakeAll(FutexWakes&) override {}
  void ForgetWaiters() override {}
  bool GaveOutDescriptor() const override { return false; }
};

std::vector<const Subscriber*> Listed(const Registry::Subscribers& list) {
  std::vector<const Subscriber*> subscribers;
  for (const Subscriber& subscriber : list) subscribers.push_back(&subscriber);
  EXPECT_EQ(list.empty(), subscribers.empty());
  return subscribers;
}

TEST(Registry, HasThemInTheOrderOfOpeningWhicheverLeave) {
  const SignalSet kChoice[] = {
      {SIGHUP}, {SIGHUP, SIGTERM}, {SIGTERM, SIGRTMAX}, {}, {SIGRTMAX}};
  std::mt19937 random(1);
  Registry registry;
  std::vector<std::unique_ptr<Named>> open;
  const auto expect_as_open = [&] {
    std::vector<const Subscriber*> all;
    for (const auto& subscriber : open) all.push_back(subscriber.get());
    ASSERT_EQ(Listed(registry.all()), all);
    ASSERT_EQ(registry.first(), open.empty() ? nullptr : open.front().get());
    for (int signum : {SIGHUP, SIGTERM, SIGRTMAX, SIGUSR1}) {
      std::vector<const Subscriber*> some;
      std::copy_if(all.begin(), all.end(), std::back_inserter(some),
                   [&](const Subscriber* subscriber) {
                     return subscriber->signals().contains(signum);
                   });
      ASSERT_EQ(Listed(registry.For(signum)), some);
      ASSERT_EQ(registry.IsShared(signum), some.size() > 1);
      for (const Subscriber* subscriber : some) {
        ASSERT_EQ(registry.IsOnly(signum, *subscriber), some.size() == 1);
      }
    }
  };
  for (int i = 0; i < 2000; ++i) {
    if (open.size() < 5 && random() % 2 == 0) {
      open.push_back(std::make_unique<Named>(kChoice[random() % 5]));
      EXPECT_FALSE(registry.contains(*open.back()));
      registry.Add(*open.back());
      EXPECT_TRUE(registry.contains(*open.back()));
    } else if (!open.empty()) {
      const auto leaving =
          open.begin() + static_cast<std::ptrdiff_t>(random() % open.size());
      EXPECT_TRUE(registry.Remove(**leaving));
      EXPECT_FALSE(registry.Remove(**leaving));
      EXPECT_FALSE(registry.contains(**leaving));
      open.erase(leaving);
    }
    ASSERT_NO_FATAL_FAILURE(expect_as_open());
  }
}

TEST(Registry, AddsASignalThatIsTakenUp) {
  Registry registry;
  Named quiet({SIGHUP, SIGTERM});
  quiet.LeaveAlone(SIGHUP);
  Named other({SIGHUP});
  registry.Add(quiet);
  registry.Add(other);
  EXPECT_THAT(Listed(registry.For(SIGHUP)), ElementsAre(&other));
  quiet.TakeUp(SIGHUP);
  registry.AddFor(SIGHUP, quiet);
  EXPECT_THAT(Listed(registry.For(SIGHUP)), ElementsAre(&other, &quiet));
  EXPECT_TRUE(registry.IsShared(SIGHUP));
  registry.Remove(quiet);
  EXPECT_THAT(Listed(registry.For(SIGHUP)), ElementsAre(&other));
  EXPECT_THAT(Listed(registry.For(SIGTERM)), IsEmpty());
}

TEST(Registry, MayBeUsedAgainOnceCleared) {
  Registry registry;
  Named first({SIGHUP}), second({SIGHUP});
  registry.Add(first);
  registry.Add(second);
  registry.Clear();
  EXPECT_FALSE(registry.contains(first));
  EXPECT_FALSE(registry.Remove(second));
  EXPECT_THAT(Listed(registry.all()), IsEmpty());
  registry.Add(second);
  EXPECT_THAT(Listed(registry.For(SIGHUP)), ElementsAre(&second));
}

}  // namespace
}  // namespace tocsin::internal
