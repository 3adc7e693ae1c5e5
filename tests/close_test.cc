// What closing a receiver leaves behind. Whatever may end the process runs in a
// child of the test.
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

std::atomic<int> handled = 0;
void CountHandled(int) { ++handled; }

bool Same(const struct sigaction& a, const struct sigaction& b) {
  bool same_mask = true;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    same_mask = same_mask && sigismember(&a.sa_mask, signum) ==
                                 sigismember(&b.sa_mask, signum);
  }
  return same_mask && a.sa_handler == b.sa_handler && a.sa_flags == b.sa_flags;
}

// G07, X8, N1
TEST(Open, RefusesTheEmptySetAndChangesNothing) {
  auto service = StartService();
  EXPECT_TRUE(absl::IsInvalidArgument(service->Open({}).status()));
}

// G08, G09, X6
TEST(Open, ABadSignalInTheListLeavesTheOthersUntouched) {
  auto service = StartService();
  const struct sigaction before = Disposition(SIGTERM);
  for (int bad : {SIGKILL, SIGSTOP, 32, 33, SIGSEGV, 0, 65, -1}) {
    const absl::Status status = service->Open({SIGTERM, bad}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(Same(Disposition(SIGTERM), before)) << bad;
  }
  for (int capacity : {0, -1, kMaxReceiverCapacity + 1}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        service->Open({SIGTERM}, {.capacity = capacity}).status()));
    EXPECT_TRUE(Same(Disposition(SIGTERM), before)) << capacity;
  }
}

// G10, X7
TEST(Close, RestoresTheExactDispositionOnceForADuplicate) {
  struct sigaction mine {};
  mine.sa_handler = CountHandled;
  mine.sa_flags = SA_NODEFER;
  sigaddset(&mine.sa_mask, SIGUSR2);
  ASSERT_EQ(sigaction(SIGTERM, &mine, nullptr), 0);
  const struct sigaction before = Disposition(SIGTERM);
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGTERM});
    EXPECT_FALSE(Same(Disposition(SIGTERM), before));
  }
  EXPECT_TRUE(Same(Disposition(SIGTERM), before));
  EXPECT_EQ(service->stats().conflicts, 0u);
  SetDisposition(SIGTERM, SIG_DFL);
}

// G11, X2
TEST(Close, GivesTheSignalBackToTheHandlerThatWasThere) {
  SetDisposition(SIGTERM, CountHandled);
  handled = 0;
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    SendSelf(SIGTERM);
    Next(receiver);
    EXPECT_EQ(handled, 0);
  }
  raise(SIGTERM);
  EXPECT_EQ(handled, 1);
  SetDisposition(SIGTERM, SIG_DFL);
}

siginfo_t sent_again = {};
void KeepSiginfo(int, siginfo_t* info, void*) { sent_again = *info; }

// It came through our handler, which marks it.
TEST(Close, SendsASignalAgainAsItWas) {
  struct sigaction mine {};
  mine.sa_sigaction = KeepSiginfo;
  mine.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGTERM, &mine, nullptr), 0);
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    ASSERT_EQ(pthread_kill(pthread_self(), SIGTERM), 0);
    while (service->stats().delivered != 1) sched_yield();
  }
  EXPECT_EQ(service->stats().redirected, 1u);
  EXPECT_EQ(sent_again.si_signo, SIGTERM);
  EXPECT_EQ(sent_again.si_code, SI_TKILL);
  EXPECT_EQ(sent_again.si_errno, 0);
  EXPECT_EQ(sent_again.si_pid, getpid());
  SetDisposition(SIGTERM, SIG_DFL);
}

// Code that waits for it by itself gets it then.
TEST(Close, LeavesASignalThatIsBlockedPending) {
  const ScopedSignalBlock block({SIGHUP, SIGTERM});
  auto service = StartService();
  SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
  ASSERT_TRUE(witness.fd().ok());  // then the service's thread takes what comes
  OpenReceiver(*service, {SIGHUP}).Close();
  SendSelf(SIGHUP);
  // Has the service's thread look once more.
  SignalReceiver other = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGTERM);  // the kernel hands out the lower number first
  EXPECT_EQ(Next(witness).signum, SIGTERM);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGHUP);
  const timespec now = {};
  EXPECT_EQ(sigtimedwait(&mask, nullptr, &now), SIGHUP);
}

TEST(Verify, NamesTheSignalsThatOthersGet) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGHUP, SIGUSR1, SIGTERM});
  EXPECT_TRUE(service->Verify().ok());
  for (int signum : {SIGHUP, SIGTERM}) SetDisposition(signum, SIG_IGN);
  EXPECT_THAT(std::string(service->Verify().message()),
              testing::HasSubstr(" now gets: SIGHUP, SIGTERM; "));
  receiver.Close();
  EXPECT_TRUE(service->Verify().ok());
  EXPECT_EQ(service->stats().conflicts, 2u);
  for (int signum : {SIGHUP, SIGTERM}) SetDisposition(signum, SIG_DFL);
}

// G12, X9
TEST(Close, LeavesAHandlerThatCameMeanwhile) {
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    SetDisposition(SIGTERM, CountHandled);
    EXPECT_TRUE(absl::IsFailedPrecondition(service->Verify()));
  }
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, CountHandled);
  EXPECT_EQ(service->stats().conflicts, 1u);
  SetDisposition(SIGTERM, SIG_DFL);
}

struct sigaction predecessor;
void CallPredecessor(int signum, siginfo_t* info, void* context) {
  ++handled;
  predecessor.sa_sigaction(signum, info, context);
}

// A handler that calls the one it replaced, ours, goes on doing so after the
// close.
TEST(Close, AHandlerThatCallsOursAfterwardsReturns) {
  handled = 0;
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    struct sigaction chained {};
    chained.sa_sigaction = CallPredecessor;
    chained.sa_flags = SA_SIGINFO;
    ASSERT_EQ(sigaction(SIGTERM, &chained, &predecessor), 0);
    raise(SIGTERM);
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
  }
  raise(SIGTERM);
  EXPECT_EQ(handled, 2);
  SetDisposition(SIGTERM, SIG_DFL);
}

// X1
TEST(CloseDeathTest, TheDefaultActionHappensAfterwards) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        OpenReceiver(*service, {SIGTERM}).Close();
        SendSelf(SIGTERM);
        _exit(0);
      },
      KilledBySignal(SIGTERM), "");
}

// G13: an event that nobody received has its default action.
TEST(CloseDeathTest, AnUnreadEventIsSentAgain) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
        {
          SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
          SendSelf(SIGTERM);
          SendSelf(SIGUSR1);
          Next(witness);
        }
        _exit(0);
      },
      KilledBySignal(SIGTERM), "");
}

TEST(CloseDeathTest, AnUnreadEventCanBeDiscarded) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        ReceiverOptions discard;
        discard.on_close = ReceiverOptions::OnClose::kDiscard;
        {
          SignalReceiver receiver = OpenReceiver(*service, {SIGTERM}, discard);
          SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
          SendSelf(SIGTERM);
          Next(witness);
        }
        _exit(service->stats().discarded == 0 ? 7 : 8);
      },
      ExitedWithCode(7), "");
}

// G15, X3
TEST(Close, AnIgnoredSignalIsIgnoredAgain) {
  SetDisposition(SIGTERM, SIG_IGN);
  auto service = StartService();
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
    SendSelf(SIGTERM);
    Next(witness);
    SendSelf(SIGTERM);
    Next(witness);
  }
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_IGN);
  SendSelf(SIGTERM);
  SetDisposition(SIGTERM, SIG_DFL);
}

// G16
TEST(Close, AnEventThatAnotherReceiverHasIsNotSentAgain) {
  SetDisposition(SIGTERM, CountHandled);
  handled = 0;
  auto service = StartService();
  {
    SignalReceiver other = OpenReceiver(*service, {SIGTERM});
    {
      SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
      SendSelf(SIGTERM);
      while (service->stats().delivered < 2) sched_yield();
    }
    EXPECT_EQ(Next(other).count, 1);
    EXPECT_FALSE(other.TryReceive().ok());
  }
  EXPECT_EQ(handled, 0);
  EXPECT_EQ(service->stats().redelivered, 0u);
  SetDisposition(SIGTERM, SIG_DFL);
}

// The converse: what only the closed one had reaches one that opened later.
TEST(Close, AnEventThatNobodyElseHasGoesToTheReceiversThatAreOpen) {
  auto service = StartService();
  std::optional<SignalReceiver> early(OpenReceiver(*service, {SIGRTMIN}));
  QueueSelf(SIGRTMIN, 42);
  while (service->stats().delivered < 1) sched_yield();
  SignalReceiver late = OpenReceiver(*service, {SIGRTMIN});
  early.reset();
  const SignalEvent event = Next(late);
  EXPECT_EQ(event.value->sival_int, 42);
  EXPECT_EQ(event.origin, SignalEvent::Origin::kQueue);
  EXPECT_EQ(event.sender->pid, getpid());
}

// V5: a receiver may outlive its service.
TEST(Close, AServiceThatEndsClosesItsReceivers) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
  SendSelf(SIGTERM);
  Next(witness);
  service.reset();
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));
}

// V1
TEST(SignalService, OnlyOneIsAliveAtATime) {
  auto service = StartService();
  EXPECT_TRUE(absl::IsAlreadyExists(SignalService::Start().status()));
  service.reset();
  EXPECT_TRUE(SignalService::Start().ok());
}

}  // namespace
}  // namespace tocsin
