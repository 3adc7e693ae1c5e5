// What a source of signals gets from the dispatcher that it is made of: the
// watch, the alarm and what is to be sent again.
#include "tocsin/signals/internal/dispatcher.h"

#include <csignal>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscription.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using internal::RawSiginfo;
using internal::Subscription;
using internal::SynchronousObserver;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

RawSiginfo Siginfo(int signum, int value) {
  siginfo_t info{};
  info.si_signo = signum;
  info.si_code = SI_QUEUE;
  info.si_pid = 1;
  info.si_value.sival_int = value;
  return RawSiginfo::From(info);
}

int ValueOf(const RawSiginfo& info) { return info.Full().si_value.sival_int; }

// Its signals and its time are the test's.
class TestDispatcher final : public internal::Dispatcher {
 public:
  explicit TestDispatcher(absl::Time now) : Dispatcher(now) {}

  using Dispatcher::Alarm;

  bool Send(int signum, int value = 0, bool redirected = false) {
    return Dispatch(Siginfo(signum, value), redirected);
  }
  // Found on their way to the next receiver that leaves.
  void Put(std::vector<RawSiginfo> on_their_way) {
    on_their_way_ = std::move(on_their_way);
  }
  const std::vector<int>& sent_again() const { return sent_again_; }

  void Die(int, absl::string_view report, const internal::LastWords&) override {
    ADD_FAILURE() << report;
  }
  std::vector<RawSiginfo> Leave(internal::Subscriber& subscription) override {
    Dispatcher::Leave(subscription);
    return std::exchange(on_their_way_, {});
  }

 private:
  void SendAgain(const std::vector<RawSiginfo>& signals) override {
    for (const RawSiginfo& info : signals) sent_again_.push_back(ValueOf(info));
  }

  std::vector<RawSiginfo> on_their_way_;
  std::vector<int> sent_again_;
};

const absl::Time kStart = absl::FromUnixSeconds(1000);

class DispatcherTest : public testing::Test {
 protected:
  std::unique_ptr<Subscription> Open(const SignalSet& signals,
                                     ReceiverOptions options = {},
                                     bool watched = false) {
    auto subscription =
        std::make_unique<Subscription>(dispatcher_, signals, options, watched);
    EXPECT_TRUE(subscription->Enter().ok());
    return subscription;
  }

  const std::shared_ptr<TestDispatcher> dispatcher_ =
      std::make_shared<TestDispatcher>(kStart);
};

constexpr ReceiverOptions kDiscard = {.on_close =
                                          ReceiverOptions::OnClose::kDiscard};

// First what came first.
TEST_F(DispatcherTest, SendsAgainWhatWasQueuedAndThenWhatWasOnItsWay) {
  auto subscription = Open({SIGUSR1, SIGRTMIN});
  dispatcher_->Send(SIGRTMIN, 1);
  dispatcher_->Send(SIGUSR1, 2);
  dispatcher_->Send(SIGRTMIN, 3);
  dispatcher_->Put({Siginfo(SIGRTMIN, 4), Siginfo(SIGUSR1, 5)});
  subscription.reset();
  EXPECT_THAT(dispatcher_->sent_again(), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(dispatcher_->stats().redelivered, 5u);
}

TEST_F(DispatcherTest, SendsAgainAtTheCloseWhatWasOnItsWay) {
  auto subscription = Open({SIGUSR1});
  dispatcher_->Send(SIGUSR1, 1);
  dispatcher_->Put({Siginfo(SIGUSR1, 2)});
  subscription->Close();
  EXPECT_THAT(dispatcher_->sent_again(), ElementsAre(2));
  subscription.reset();
  EXPECT_THAT(dispatcher_->sent_again(), ElementsAre(2, 1));
  EXPECT_EQ(dispatcher_->stats().redelivered, 2u);
}

TEST_F(DispatcherTest, SendsNothingAgainForOneThatDiscards) {
  auto closed = Open({SIGUSR1}, kDiscard);
  dispatcher_->Put({Siginfo(SIGUSR1, 1)});
  closed->Close();
  auto unread = Open({SIGUSR1}, kDiscard);
  dispatcher_->Send(SIGUSR1, 2);
  dispatcher_->Put({Siginfo(SIGUSR1, 3)});
  unread.reset();
  EXPECT_THAT(dispatcher_->sent_again(), IsEmpty());
  EXPECT_EQ(dispatcher_->stats().discarded, 3u);
  EXPECT_EQ(dispatcher_->stats().redelivered, 0u);
}

TEST_F(DispatcherTest, TellsWhetherAnybodyIsSubscribed) {
  EXPECT_FALSE(dispatcher_->Send(SIGUSR1));
  auto subscription = Open({SIGUSR1});
  EXPECT_TRUE(dispatcher_->Send(SIGUSR1));
  EXPECT_FALSE(dispatcher_->Send(SIGUSR2));
  auto other = Open({SIGUSR2});
  EXPECT_TRUE(dispatcher_->Send(SIGUSR1));
  EXPECT_TRUE(dispatcher_->Send(SIGUSR2));
  subscription->Close();
  EXPECT_FALSE(dispatcher_->Send(SIGUSR1));
}

TEST_F(DispatcherTest, CountsWhatCameThroughAHandler) {
  auto subscription = Open({SIGUSR1});
  dispatcher_->Send(SIGUSR1, 1, /*redirected=*/true);
  dispatcher_->Send(SIGUSR1, 2, /*redirected=*/false);
  dispatcher_->Send(SIGUSR1, 3, /*redirected=*/true);
  EXPECT_EQ(dispatcher_->stats().received, 3u);
  EXPECT_EQ(dispatcher_->stats().redirected, 2u);
}

class RecordingWatch : public SynchronousObserver {
 public:
  void OnSignal(const SignalEvent& event) override { seen.push_back(event); }
  internal::Instant alarm() const override { return next; }
  void OnAlarm() override {
    ++alarms;
    next = internal::Add(next, absl::Seconds(10));
  }

  std::vector<SignalEvent> seen;
  internal::Instant next = internal::kNever;
  int alarms = 0;
};

TEST_F(DispatcherTest, ShowsTheWatchTheSignalsOfItsSubscriptionOnly) {
  auto other = Open({SIGUSR1, SIGUSR2});
  auto watched = Open({SIGUSR1, SIGTERM}, {}, /*watched=*/true);
  RecordingWatch watch;
  ASSERT_TRUE(dispatcher_->Observe(watch).ok());
  dispatcher_->Send(SIGUSR2, 1);
  EXPECT_THAT(watch.seen, IsEmpty());
  dispatcher_->Send(SIGUSR1, 2);
  dispatcher_->Advance(absl::Seconds(1));
  dispatcher_->Send(SIGUSR1, 3);
  // One by one, whatever was merged.
  ASSERT_EQ(watch.seen.size(), 2u);
  EXPECT_EQ(watch.seen[1].signum, SIGUSR1);
  EXPECT_EQ(watch.seen[1].count, 1);
  EXPECT_EQ(watch.seen[1].origin, SignalEvent::Origin::kQueue);
  EXPECT_EQ(watch.seen[1].value->sival_int, 3);
  EXPECT_EQ(watch.seen[1].received_at, kStart + absl::Seconds(1));
  watched->Close();
  dispatcher_->Send(SIGUSR1, 4);
  EXPECT_EQ(watch.seen.size(), 2u);
}

TEST_F(DispatcherTest, ShowsASignalOnceThoughSeveralAreWatched) {
  auto first = Open({SIGUSR1}, {}, /*watched=*/true);
  auto second = Open({SIGUSR1}, {}, /*watched=*/true);
  RecordingWatch watch;
  ASSERT_TRUE(dispatcher_->Observe(watch).ok());
  dispatcher_->Send(SIGUSR1);
  EXPECT_EQ(watch.seen.size(), 1u);
}

TEST_F(DispatcherTest, HasOneWatchAtATime) {
  auto watched = Open({SIGUSR1}, {}, /*watched=*/true);
  RecordingWatch first;
  RecordingWatch second;
  ASSERT_TRUE(dispatcher_->Observe(first).ok());
  EXPECT_EQ(dispatcher_->Observe(second),
            absl::AlreadyExistsError("this SignalService has a Shutdown, and "
                                     "there can be only one"));
  dispatcher_->Send(SIGUSR1);
  EXPECT_EQ(first.seen.size(), 1u);
  dispatcher_->StopObserving();
  ASSERT_TRUE(dispatcher_->Observe(second).ok());
  dispatcher_->Send(SIGUSR1);
  EXPECT_EQ(first.seen.size(), 1u);
  EXPECT_EQ(second.seen.size(), 1u);
}

TEST_F(DispatcherTest, RingsEachAlarmThatIsDue) {
  EXPECT_EQ(dispatcher_->Alarm(), internal::kNever);
  RecordingWatch watch;
  watch.next = internal::Add(dispatcher_->Now(), absl::Seconds(10));
  ASSERT_TRUE(dispatcher_->Observe(watch).ok());
  EXPECT_EQ(dispatcher_->Alarm(), watch.next);
  dispatcher_->Advance(absl::Seconds(10) - absl::Nanoseconds(1));
  EXPECT_EQ(watch.alarms, 0);
  dispatcher_->Advance(absl::Nanoseconds(1));
  EXPECT_EQ(watch.alarms, 1);
  dispatcher_->Advance(absl::Seconds(25));
  EXPECT_EQ(watch.alarms, 3);
  dispatcher_->StopObserving();
  EXPECT_EQ(dispatcher_->Alarm(), internal::kNever);
  dispatcher_->Advance(absl::Hours(1));
  EXPECT_EQ(watch.alarms, 3);
}

TEST_F(DispatcherTest, UnwatchWaitsForWhatTheWatchIsDoing) {
  struct SlowWatch final : RecordingWatch {
    void OnSignal(const SignalEvent&) override {
      entered.count_down();
      go_on.wait();
      over = true;
    }
    std::latch entered{1};
    std::latch go_on{1};
    bool over = false;
  } watch;
  auto watched = Open({SIGUSR1}, {}, /*watched=*/true);
  ASSERT_TRUE(dispatcher_->Observe(watch).ok());
  std::thread sender([&] { dispatcher_->Send(SIGUSR1); });
  watch.entered.wait();
  // The watch holds up nobody else meanwhile.
  EXPECT_TRUE(watched->TryReceive().ok());
  dispatcher_->Send(SIGUSR2);
  EXPECT_EQ(dispatcher_->stats().received, 2u);
  bool over_at_return = false;
  ScopedThread leaver([&] {
    dispatcher_->StopObserving();
    over_at_return = watch.over;
  });
  leaver.AwaitAsleep();
  watch.go_on.count_down();
  leaver.Join();
  EXPECT_TRUE(over_at_return);
  sender.join();
}

TEST_F(DispatcherTest, ClosesAllForGood) {
  auto first = Open({SIGUSR1, SIGUSR2});
  auto second = Open({SIGUSR1});
  dispatcher_->Send(SIGUSR1);
  dispatcher_->CloseAll();
  EXPECT_FALSE(dispatcher_->Send(SIGUSR1));
  for (Subscription* subscription : {first.get(), second.get()}) {
    EXPECT_EQ(subscription->TryReceive()->count, 1);
    EXPECT_TRUE(absl::IsOutOfRange(
        subscription->Receive(absl::InfiniteDuration()).status()));
  }
}

}  // namespace
}  // namespace tocsin
