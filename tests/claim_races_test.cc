// The windows of a claim on the doorbell, each held open at its step. The test
// plays another copy of the library, or other code.
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <thread>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tests/steps.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin {
namespace {

using internal::GetAction;
using internal::KernelAction;
using internal::kUndecided;
using internal::SetAction;

std::atomic<int> theirs_ran = 0;

TOCSIN_UNINSTRUMENTED void Theirs(int, siginfo_t*, void*) {
  __atomic_fetch_add(reinterpret_cast<int*>(&theirs_ran), 1, __ATOMIC_SEQ_CST);
}

// The handler of another copy that has the service, or is deciding.
KernelAction OfTheirs(unsigned long mark = 0) {
  return {
      .handler = reinterpret_cast<void*>(&Theirs),
      .flags = SA_SIGINFO | internal::kRestorer | mark,
      .restorer = reinterpret_cast<void*>(internal::kHandlerAddresses.restorer),
      .mask = 0};
}

class ClaimRaces : public testing::Test {
 protected:
  ~ClaimRaces() override { SetDisposition(SIGSTKFLT, SIG_DFL); }

  static void Set(const KernelAction& action) { SetAction(SIGSTKFLT, action); }
  static bool IsTheirs() {
    return GetAction(SIGSTKFLT).handler == reinterpret_cast<void*>(&Theirs);
  }
  static bool IsDefault() {
    return GetAction(SIGSTKFLT).handler == reinterpret_cast<void*>(SIG_DFL);
  }
  static absl::Status Start() { return SignalService::Start().status(); }
};

TEST_F(ClaimRaces, WhoeverComesFirstAtTheSameMomentHasTheService) {
  AtStep looked("DoorbellClaim: has looked", [] { Set(OfTheirs()); });
  EXPECT_EQ(Start().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(IsTheirs());
  EXPECT_EQ(GetAction(SIGSTKFLT).flags, OfTheirs().flags);
}

TEST_F(ClaimRaces, ASignalOfOtherCodesComesToItsHandlerAfterTheDecision) {
  theirs_ran = 0;
  std::latch exchanged(1);
  // Made while no signal is blocked.
  std::thread thread([&] {
    exchanged.wait();
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGSTKFLT);
  });
  AtStep looked("DoorbellClaim: has looked", [] { Set(OfTheirs()); });
  AtStep meets_ours("Handler: the doorbell may be for others", [] {});
  AtStep decides("DoorbellClaim: decides", [&] {
    exchanged.count_down();
    while (!meets_ours.passed()) sched_yield();
  });
  EXPECT_EQ(Start().code(), absl::StatusCode::kAlreadyExists);
  thread.join();
  while (theirs_ran == 0) sched_yield();
  EXPECT_EQ(theirs_ran, 1);
}

TEST_F(ClaimRaces, WhatOtherCodeInstallsInTheMiddleStays) {
  AtStep decides("DoorbellClaim: decides", [] { Set(OfTheirs()); });
  EXPECT_EQ(Start().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(IsTheirs());
}

TEST_F(ClaimRaces, AStartWaitsForADecisionOfAnotherCopy) {
  Set(OfTheirs(kUndecided));
  AtStep waits("DoorbellClaim: waits for another copy", [] { Set({}); });
  EXPECT_TRUE(Start().ok());
  EXPECT_TRUE(IsDefault());
}

TEST_F(ClaimRaces, TwoCopiesThatAskAtOnceDoNotBothDecide) {
  AtStep looked("DoorbellClaim: has looked", [] { Set(OfTheirs(kUndecided)); });
  AtStep waits("DoorbellClaim: waits for another copy", [] {
    Set(OfTheirs());  // the other's decision
  });
  EXPECT_EQ(Start().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(waits.passed());
  EXPECT_TRUE(IsTheirs());
}

TEST_F(ClaimRaces, AStopWaitsUntilOursIsBack) {
  auto service = StartService();
  const KernelAction ours = GetAction(SIGSTKFLT);
  Set(OfTheirs(kUndecided));
  AtStep waits("DoorbellClaim: waits for another copy", [&] { Set(ours); });
  service.reset();
  EXPECT_TRUE(waits.passed());
  EXPECT_TRUE(IsDefault());
}

TEST_F(ClaimRaces, ACopyThatNeverDecidesHasTheDoorbell) {
  Set(OfTheirs(kUndecided));
  EXPECT_EQ(Start().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(IsTheirs());
}

TEST_F(ClaimRaces, AHandlerOfOursThatIsLeftIsNobodys) {
  auto service = StartService();
  const KernelAction ours = GetAction(SIGSTKFLT);
  service.reset();
  Set(ours);  // as by code that has kept it
  service = StartService();
  service.reset();
  EXPECT_TRUE(IsDefault());
}

}  // namespace
}  // namespace tocsin
