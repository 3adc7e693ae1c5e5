// In which order signals come, and what is left of them when the kernel's queue
// is full.
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <numeric>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

std::vector<int> Count(int count) {
  std::vector<int> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// G03, O3: the kernel gives out the lower number first and each in its order,
// but only the latter is promised.
TEST(Order, OfEachRealTimeSignalIsKeptWhereAllThreadsBlockIt) {
  const ScopedSignalBlock block({SIGRTMIN, SIGRTMIN + 1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN, SIGRTMIN + 1});
  for (int value : Count(50)) {
    QueueSelf(SIGRTMIN + 1, value);
    QueueSelf(SIGRTMIN, value);
  }
  std::vector<int> lower;
  std::vector<int> upper;
  while (lower.size() + upper.size() < 100) {
    const SignalEvent event = Next(receiver);
    (event.signum == SIGRTMIN ? lower : upper)
        .push_back(event.value->sival_int);
  }
  EXPECT_EQ(lower, Count(50));
  EXPECT_EQ(upper, Count(50));
}

// O8
TEST(Order, EveryRealTimeSignalArrives) {
  SignalSet all;
  for (int signum = SIGRTMIN; signum <= SIGRTMAX; ++signum) all.insert(signum);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, all);
  for (int signum : all) {
    QueueSelf(signum, signum);
    const SignalEvent event = Next(receiver);
    EXPECT_EQ(event.signum, signum);
    EXPECT_EQ(event.value->sival_int, signum);
  }
}

// G31, G32
TEST(Order, ASignalThatWasPendingBeforeTheOpenIsReceived) {
  const ScopedSignalBlock block({SIGTERM});
  SendSelf(SIGTERM);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_EQ(service->stats().redirected, 0u);
}

// O1, in the kernel: the two are merged before the service sees them.
TEST(Order, OfSeveralThatTheKernelMergedTheFirstIsReceived) {
  const ScopedSignalBlock block({SIGUSR1, SIGUSR2});
  QueueSelf(SIGUSR1, 1);
  QueueSelf(SIGUSR1, 2);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGUSR2});
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.value->sival_int, 1);
  EXPECT_EQ(event.count, 1);
  SendSelf(SIGUSR2);
  EXPECT_EQ(Next(receiver).signum, SIGUSR2);
}

// V4
TEST(Stats, MatchWhatWasSent) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(
      *service, {SIGUSR1, SIGRTMIN, SIGRTMIN + 1},
      {.capacity = 2, .on_close = ReceiverOptions::OnClose::kDiscard});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1, SIGRTMIN});
  for (int i = 0; i < 3; ++i) {
    for (int signum : {SIGUSR1, SIGRTMIN}) {
      ASSERT_EQ(pthread_kill(pthread_self(), signum), 0);
      EXPECT_EQ(Next(witness).signum, signum);
    }
  }
  {
    const ScopedSignalBlock block({SIGRTMIN + 1});
    Next(receiver);
    Next(receiver);
    SendSelf(SIGRTMIN + 1);
    while (service->stats().received < 7) sched_yield();
  }
  SignalServiceStats stats = service->stats();
  EXPECT_EQ(stats.received, 7u);
  EXPECT_EQ(stats.redirected, 6u);
  // To the witness 6; to the receiver one merged SIGUSR1, two SIGRTMIN and one
  // SIGRTMIN+1.
  EXPECT_EQ(stats.delivered, 10u);
  EXPECT_EQ(stats.merged, 2u);
  EXPECT_EQ(stats.dropped, 1u);
  EXPECT_EQ(receiver.dropped(), 1u);
  EXPECT_EQ(stats.siginfo_lost, 0u);
  EXPECT_EQ(stats.redelivered + stats.discarded + stats.conflicts, 0u);
}

// Runs `body` in a child whose user may have `limit` signals queued.
void ExpectSuccessUnderLimit(rlim_t limit, absl::FunctionRef<void()> body) {
  Child child(Fork([&] {
    const rlimit both = {.rlim_cur = limit, .rlim_max = limit};
    ASSERT_EQ(setrlimit(RLIMIT_SIGPENDING, &both), 0);
    body();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// O6, G37: what the kernel does not refuse arrives, if only as a number.
TEST(Limit, OfNoQueuedSignalsLetsNumbersArrive) {
  ExpectSuccessUnderLimit(0, [] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(sigqueue(getpid(), SIGRTMIN, {.sival_int = 1}), -1);
      EXPECT_EQ(errno, EAGAIN);
      for (int signum : {SIGRTMIN, SIGTERM}) {
        SendSelf(signum);
        EXPECT_EQ(Next(receiver).signum, signum);
      }
    }
    SendSelf(SIGRTMIN);
    EXPECT_FALSE(Next(receiver).sender.has_value());
  });
}

// G37
TEST(Limit, OfFewQueuedSignalsLosesNoneThatWasAccepted) {
  ExpectSuccessUnderLimit(20, [] {
    constexpr int kSignals = 3000;
    auto service = StartService();
    SignalReceiver receiver =
        OpenReceiver(*service, {SIGRTMIN}, {.capacity = kSignals});
    for (int value : Count(kSignals)) {
      while (sigqueue(getpid(), SIGRTMIN, {.sival_int = value}) != 0) {
        ASSERT_EQ(errno, EAGAIN);
        sched_yield();
      }
    }
    std::vector<int> received;
    while (received.size() < kSignals) {
      received.push_back(
          Next(receiver).value.value_or(sigval{.sival_int = -1}).sival_int);
    }
    std::sort(received.begin(), received.end());
    EXPECT_EQ(received, Count(kSignals));
    EXPECT_EQ(service->stats().siginfo_lost, 0u);
  });
}

}  // namespace
}  // namespace tocsin
