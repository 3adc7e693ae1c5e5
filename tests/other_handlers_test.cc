// Other code of the process that changes dispositions of signals that are
// received, for good or for a time. What may end the process runs in a child.
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"
#include "tocsin/signals/stop_on_signal.h"

extern char** environ;

// The C library's sigaction(2) by a name that ThreadSanitizer leaves alone: it
// would run the handler later, and put its own in the place of ours.
extern "C" int __sigaction(int, const struct sigaction*, struct sigaction*);

// A handler may run inside of a sanitizer's runtime.
#if defined(__clang__)
#define TOCSIN_TEST_HANDLER __attribute__((disable_sanitizer_instrumentation))
#else
#define TOCSIN_TEST_HANDLER \
  __attribute__((no_sanitize("thread", "address", "undefined")))
#endif

namespace tocsin {
namespace {

using ::testing::KilledBySignal;

// Puts another disposition in place, until Undo(), which puts back what was
// there.
class LibcSwap {
 public:
  explicit LibcSwap(int signum, void (*handler)(int) = SIG_IGN)
      : signum_(signum) {
    struct sigaction theirs {};
    theirs.sa_handler = handler;
    EXPECT_EQ(__sigaction(signum, &theirs, &found_), 0);
  }
  void Undo() const { EXPECT_EQ(__sigaction(signum_, &found_, nullptr), 0); }

 private:
  const int signum_;
  struct sigaction found_;
};

// The same without the C library.
class RawSwap {
 public:
  explicit RawSwap(int signum, void (*handler)(int) = SIG_IGN)
      : signum_(signum), found_(internal::GetAction(signum)) {
    internal::KernelAction theirs = found_;
    theirs.handler = reinterpret_cast<void*>(handler);
    theirs.flags &= ~static_cast<unsigned long>(SA_SIGINFO);
    internal::SetAction(signum, theirs);
  }
  void Undo() const { internal::SetAction(signum_, found_); }

 private:
  const int signum_;
  const internal::KernelAction found_;
};

std::atomic<int> handled = 0;
void CountHandled(int) { ++handled; }

template <typename Swap>
class SwapTest : public testing::Test {};
using Swaps = testing::Types<RawSwap, LibcSwap>;
TYPED_TEST_SUITE(SwapTest, Swaps);

// Has the other code put our handler back after the close.
template <typename Swap>
void LeaveOurHandlerBehind(int signum) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {signum});
  const Swap swap(signum);
  receiver.Close();
  swap.Undo();
}

TYPED_TEST(SwapTest, TheDefaultActionIsBackOnceOurHandlerIs) {
  for (int signum : {SIGTERM, SIGINT, SIGRTMIN}) {
    EXPECT_EXIT(
        {
          LeaveOurHandlerBehind<TypeParam>(signum);
          SendSelf(signum);
          while (true) pause();
        },
        KilledBySignal(signum), "");
  }
}

TYPED_TEST(SwapTest, ADefaultActionThatDoesNothingStaysOne) {
  SetDisposition(SIGURG, SIG_DFL);
  LeaveOurHandlerBehind<TypeParam>(SIGURG);
  SendSelf(SIGURG);
  EXPECT_EQ(Disposition(SIGURG).sa_handler, SIG_DFL);
}

TYPED_TEST(SwapTest, ASignalThatWasIgnoredIsIgnoredOnceOurHandlerIsBack) {
  SetDisposition(SIGTERM, SIG_IGN);
  LeaveOurHandlerBehind<TypeParam>(SIGTERM);
  SendSelf(SIGTERM);
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_IGN);
  SetDisposition(SIGTERM, SIG_DFL);
}

constexpr int kMostNoted = 8;
int noted = 0;
int noted_codes[kMostNoted];
bool usr2_was_blocked = false;
TOCSIN_TEST_HANDLER void NoteCall(int, siginfo_t* info, void*) {
  uint64_t mask = 0;
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &mask, sizeof(mask));
  usr2_was_blocked = Contains(mask, SIGUSR2);
  if (noted < kMostNoted) noted_codes[noted++] = info->si_code;
}
std::vector<int> Codes() { return {noted_codes, noted_codes + noted}; }

TYPED_TEST(SwapTest, TheHandlerBeforeUsIsCalledAsItWishes) {
  noted = 0;
  struct sigaction before {};
  before.sa_sigaction = NoteCall;
  before.sa_flags = SA_SIGINFO;
  sigaddset(&before.sa_mask, SIGUSR2);
  ASSERT_EQ(__sigaction(SIGTERM, &before, nullptr), 0);
  LeaveOurHandlerBehind<TypeParam>(SIGTERM);
  for (int i = 0; i < 2; ++i) SendSelf(SIGTERM);
  EXPECT_EQ(Codes(), (std::vector<int>{SI_USER, SI_USER}));
  EXPECT_TRUE(usr2_was_blocked);
  EXPECT_EQ(Disposition(SIGTERM).sa_sigaction, NoteCall);
  SetDisposition(SIGTERM, SIG_DFL);
}

// The child has the parent's handlers, and no service.
TYPED_TEST(SwapTest, TheHandlerBeforeUsIsCalledInAForkedChildToo) {
  noted = 0;
  struct sigaction before {};
  before.sa_sigaction = NoteCall;
  before.sa_flags = SA_SIGINFO;
  ASSERT_EQ(__sigaction(SIGTERM, &before, nullptr), 0);
  LeaveOurHandlerBehind<TypeParam>(SIGTERM);
  Child child(Fork([] {
    SendSelf(SIGTERM);
    EXPECT_EQ(Codes(), std::vector<int>{SI_USER});
    EXPECT_EQ(Disposition(SIGTERM).sa_sigaction, NoteCall);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  SetDisposition(SIGTERM, SIG_DFL);
}

TYPED_TEST(SwapTest, OurHandlerThatWasLeftBehindIsNotWhatALaterCloseRestores) {
  LeaveOurHandlerBehind<TypeParam>(SIGTERM);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  service.reset();
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
}

TYPED_TEST(SwapTest, IsNoticedAndToldOnce) {
  for (bool put_back : {false, true}) {
    std::atomic<int> told = 0;
    SignalSet last;
    Event known;
    auto service =
        *SignalService::Start({.on_replaced = [&](SignalSet signals) {
          last = signals;
          ++told;
          known.Set();
        }});
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGHUP});
    const TypeParam swap(SIGTERM);
    if (put_back) swap.Undo();
    // With the system call what was there is there again.
    if (put_back && std::is_same_v<TypeParam, RawSwap>) continue;
    OpenReceiver(*service, {SIGUSR1}).Close();
    EXPECT_TRUE(known.Wait().ok());
    EXPECT_EQ(last, SignalSet({SIGTERM}));
    OpenReceiver(*service, {SIGUSR1}).Close();
    if (!put_back) swap.Undo();
    EXPECT_EQ(service->stats().replaced, 1u);
    EXPECT_TRUE(service->Verify().ok());
    SendSelf(SIGTERM);
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
    service.reset();
    EXPECT_EQ(told, 1);
    EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
  }
}

// Nobody opens or closes a receiver meanwhile.
TEST(Replaced, IsNoticedByItself) {
  Event known;
  auto service =
      *SignalService::Start({.on_replaced = [&](SignalSet) { known.Set(); }});
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SetDisposition(SIGTERM, SIG_IGN);
  EXPECT_TRUE(known.Wait().ok());
  EXPECT_EQ(service->stats().replaced, 1u);
  SetDisposition(SIGTERM, SIG_DFL);
}

TYPED_TEST(SwapTest, IsToldAgainWhereItHappensAgain) {
  BlockingQueue<SignalSet> told(kUnbounded);
  auto service =
      *SignalService::Start({.on_replaced = [&](const SignalSet& signals) {
        EXPECT_TRUE(told.Push(signals).ok());
      }});
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGHUP, SIGUSR1});
  // Has the service's thread look.
  const auto look = [&] { OpenReceiver(*service, {SIGWINCH}).Close(); };
  const TypeParam first(SIGTERM);
  look();
  EXPECT_EQ(told.Pop().value(), SignalSet({SIGTERM}));
  const TypeParam second(SIGHUP);
  look();
  EXPECT_EQ(told.Pop().value(), SignalSet({SIGHUP}));
  first.Undo();
  const TypeParam third(SIGUSR1);
  look();
  EXPECT_EQ(told.Pop().value(), SignalSet({SIGUSR1}));
  const TypeParam again(SIGTERM);
  look();
  EXPECT_EQ(told.Pop().value(), SignalSet({SIGTERM}));
  EXPECT_EQ(service->stats().replaced, 4u);
  for (const TypeParam* swap : {&second, &third, &again}) swap->Undo();
}

// And the service can be used meanwhile.
TYPED_TEST(SwapTest, IsToldOfWhatAnOpenOrACloseFinds) {
  BlockingQueue<SignalSet> told(kUnbounded);
  Event go_on;
  auto service =
      *SignalService::Start({.on_replaced = [&](const SignalSet& signals) {
        EXPECT_TRUE(told.Push(signals).ok());
        EXPECT_TRUE(go_on.Wait().ok());
      }});
  SignalReceiver witness = OpenReceiver(*service, {SIGHUP});
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SignalReceiver closed = OpenReceiver(*service, {SIGUSR1});
  const TypeParam shown(SIGHUP);
  const SignalReceiver bell = OpenReceiver(*service, {SIGWINCH});
  EXPECT_EQ(told.Pop().value(), SignalSet({SIGHUP}));
  // The service's thread looks at nothing now.
  const TypeParam opened(SIGTERM);
  SignalReceiver second = OpenReceiver(*service, {SIGTERM});
  const TypeParam stays(SIGUSR1);
  Event begun;
  std::string task;
  std::thread closer([&] {
    task = TaskOfThisThread();
    begun.Set();
    closed.Close();
  });
  EXPECT_TRUE(begun.Wait().ok());
  AwaitState(task, "S");  // for the service's thread, with its look behind it
  go_on.Set();
  closer.join();
  SignalSet all;
  while (all.size() < 2) {
    const SignalSet next = told.Pop().value();
    for (int signum : next) all.insert(signum);
  }
  EXPECT_EQ(all, SignalSet({SIGTERM, SIGUSR1}));
  EXPECT_EQ(service->stats().replaced, 3u);
  EXPECT_EQ(service->stats().conflicts, 1u);
  service.reset();
  for (int signum : {SIGHUP, SIGTERM, SIGUSR1}) SetDisposition(signum, SIG_DFL);
}

TYPED_TEST(SwapTest, AReceiverThatIsOpenedMeanwhileReceives) {
  for (void (*handler)(int) : {SIG_IGN, CountHandled}) {
    handled = 0;
    auto service = StartService();
    SignalReceiver first = OpenReceiver(*service, {SIGTERM});
    const TypeParam swap(SIGTERM, handler);
    SignalReceiver second = OpenReceiver(*service, {SIGTERM});
    SendSelf(SIGTERM);
    EXPECT_EQ(Next(second).signum, SIGTERM);
    EXPECT_EQ(Next(first).signum, SIGTERM);
    EXPECT_EQ(handled, 0);
    EXPECT_TRUE(service->Verify().ok());
    service.reset();
    // It has not put anything back, so it gets the signal again.
    EXPECT_EQ(Disposition(SIGTERM).sa_handler, handler);
    // Here it does, with our handler, which is the end of it.
    swap.Undo();
    EXPECT_EXIT(
        {
          SendSelf(SIGTERM);
          while (true) pause();
        },
        KilledBySignal(SIGTERM), "");
    SetDisposition(SIGTERM, SIG_DFL);
  }
}

// As system(3) meets them that open and close meanwhile.
TEST(Replaced, WhatWasThereForATimeIsNotWhatALaterCloseRestores) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGTERM});
  const LibcSwap swap(SIGTERM);
  first.Close();
  OpenReceiver(*service, {SIGTERM}).Close();
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_IGN);
  swap.Undo();
  OpenReceiver(*service, {SIGTERM}).Close();
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
}

TEST(Replaced, PutBackAfterASecondReceiverOpenedGivesTheFirstDispositionBack) {
  auto service = StartService();
  SignalReceiver first = OpenReceiver(*service, {SIGTERM});
  const LibcSwap swap(SIGTERM, CountHandled);
  SignalReceiver second = OpenReceiver(*service, {SIGTERM});
  swap.Undo();
  service.reset();
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
}

struct sigaction predecessor;
TOCSIN_TEST_HANDLER void CallPredecessor(int signum, siginfo_t* info,
                                         void* context) {
  ++handled;
  predecessor.sa_sigaction(signum, info, context);
}

// It may do so with a jump, so that it looks as if the kernel had called us.
TEST(Replaced, AHandlerThatGoesOnToOursReachesTheOneBeforeUs) {
  noted = 0;
  handled = 0;
  struct sigaction before {};
  before.sa_sigaction = NoteCall;
  before.sa_flags = SA_SIGINFO;
  ASSERT_EQ(__sigaction(SIGTERM, &before, nullptr), 0);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  struct sigaction chained {};
  chained.sa_sigaction = CallPredecessor;
  chained.sa_flags = SA_SIGINFO;
  ASSERT_EQ(__sigaction(SIGTERM, &chained, &predecessor), 0);
  raise(SIGTERM);  // the service's thread might take what is for the process
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_EQ(noted, 0);
  service.reset();  // its thread might run their handler, later
  SendSelf(SIGTERM);
  EXPECT_EQ(handled, 2);
  EXPECT_EQ(Codes(), std::vector<int>{SI_USER});
  SetDisposition(SIGTERM, SIG_DFL);
}

TEST(Replaced, AHandlerThatGoesOnToOursGetsBackWhereTheSignalWasIgnored) {
  handled = 0;
  SetDisposition(SIGTERM, SIG_IGN);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  struct sigaction chained {};
  chained.sa_sigaction = CallPredecessor;
  chained.sa_flags = SA_SIGINFO;
  ASSERT_EQ(__sigaction(SIGTERM, &chained, &predecessor), 0);
  service.reset();  // its thread might run their handler, later
  SendSelf(SIGTERM);
  EXPECT_GE(handled, 1);
  EXPECT_LE(handled, 2);
  SetDisposition(SIGTERM, SIG_DFL);
}

std::atomic<bool> held = false;
TOCSIN_TEST_HANDLER void Hold(int) {
  held = true;
  while (held) sched_yield();
}
TOCSIN_TEST_HANDLER void CallPredecessorFirst(int signum, siginfo_t* info,
                                              void* context) {
  predecessor.sa_sigaction(signum, info, context);
  ++handled;
}

TEST(Replaced, TheHandlerBeforeUsMayStay) {
  handled = 0;
  SetDisposition(SIGTERM, Hold);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  struct sigaction chained {};
  chained.sa_sigaction = CallPredecessorFirst;
  chained.sa_flags = SA_SIGINFO;
  ASSERT_EQ(__sigaction(SIGTERM, &chained, &predecessor), 0);
  receiver.Close();
  std::thread stays([] { raise(SIGTERM); });
  while (!held) sched_yield();
  OpenReceiver(*service, {SIGTERM}).Close();
  EXPECT_EQ(handled, 0);
  held = false;
  stays.join();
  EXPECT_EQ(handled, 1);
  SetDisposition(SIGTERM, SIG_DFL);
}

// By a jump, also where nothing is optimized. Not for ever.
#if !defined(__clang__)
__attribute__((optimize("O2")))
#endif
TOCSIN_TEST_HANDLER void
JumpToPredecessor(int signum, siginfo_t* info, void* context) {
  if (++handled > 2) return;
#if defined(__clang__)
  [[clang::musttail]]
#endif
  return predecessor.sa_sigaction(signum, info, context);
}

// Installed by the system call, with all that belongs to ours.
TEST(Replaced, AHandlerWithOurRestorerThatGoesOnToOursIsNotCalledForEver) {
  handled = 0;
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  ASSERT_EQ(__sigaction(SIGTERM, nullptr, &predecessor), 0);
  internal::KernelAction theirs = internal::GetAction(SIGTERM);
  theirs.handler = reinterpret_cast<void*>(JumpToPredecessor);
  internal::SetAction(SIGTERM, theirs);
  service.reset();  // its thread might run their handler, later
  SendSelf(SIGTERM);
  EXPECT_GE(handled, 1);
  EXPECT_LE(handled, 2);
  SetDisposition(SIGTERM, SIG_DFL);
}

// What other code does to the signals of this process in between. ----------

// A command that system(3) runs until End().
class Command {
 public:
  Command()
      : thread_([this] {
          const std::string command = absl::StrCat(
              "echo >&", begun_.writer(), "; read line <&", end_.reader());
          status_ = std::system(command.c_str());
        }) {
    begun_.Take();
  }
  ~Command() { EXPECT_EQ(status_, 0); }
  void End() {
    end_.Put('\n');
    thread_.join();
  }

 private:
  const Pipe begun_;
  const Pipe end_;
  int status_ = -1;
  std::thread thread_;
};

TEST(SystemDeathTest, CtrlCEndsAProgramThatWasStoppedDuringIt) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        auto stop = *StopOnSignal::Start(*service, {SIGINT, SIGTERM});
        Command command;
        Event stopped;
        const std::stop_callback told(stop->stop_token(),
                                      [&] { stopped.Set(); });
        SendSelf(SIGTERM);
        stopped.Wait().IgnoreError();
        command.End();
        SendSelf(SIGINT);
        while (true) pause();
      },
      KilledBySignal(SIGINT), "");
}

TEST(System, LeavesWhatIsReceivedAsItWas) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGINT, SIGQUIT});
  {
    Command command;
    command.End();
  }
  for (int signum : {SIGINT, SIGQUIT}) {
    SendSelf(signum);
    EXPECT_EQ(Next(receiver).signum, signum);
  }
}

TEST(System, WhatItIgnoresForATimeIsReceivedAfterwards) {
  auto service = StartService();
  {
    Command command;
    auto stop = *StopOnSignal::Start(*service, {SIGINT, SIGTERM});
    SendSelf(SIGINT);  // is the command's
    command.End();
    while (Disposition(SIGINT).sa_handler == SIG_DFL) sched_yield();
    EXPECT_FALSE(stop->stop_token().stop_requested());
    Event stopped;
    const std::stop_callback told(stop->stop_token(), [&] { stopped.Set(); });
    SendSelf(SIGINT);
    EXPECT_TRUE(stopped.Wait().ok());
    EXPECT_EQ(stop->cause()->signum, SIGINT);
  }
  EXPECT_EQ(Disposition(SIGINT).sa_handler, SIG_DFL);
}

// Opens and closes receivers until it is destroyed.
class Opener {
 public:
  Opener(SignalService& service, const SignalSet& signals)
      : thread_([&service, signals](std::stop_token stop) {
          while (!stop.stop_requested()) {
            OpenReceiver(service, signals).Close();
          }
        }) {}

 private:
  std::jthread thread_;
};

// Not what system(3) ignores for a time.
constexpr int kChildren = 30;

TEST(Children, StartAsUsualWhileReceiversOpenAndClose) {
  auto service = StartService();
  const Opener opener(*service, {SIGTERM, SIGUSR1, SIGCHLD});
  for (int i = 0; i < kChildren; ++i) {
    int status = std::system("kill -INT $$");
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;

    FILE* const output =
        popen("grep -E '^Sig(Blk|Ign)' /proc/self/status", "r");
    ASSERT_NE(output, nullptr);
    std::string masks;
    for (int c; (c = fgetc(output)) != EOF;) {
      masks.push_back(static_cast<char>(c));
    }
    EXPECT_EQ(pclose(output), 0);
    // Or with 32 and 33, which the C library has its children ignore.
    EXPECT_THAT(masks, testing::MatchesRegex("SigBlk:.0+.SigIgn:.0+(18)?0+."));

    char shell[] = "sh";
    char option[] = "-c";
    char command[] = "kill -TERM $$";
    char* argv[] = {shell, option, command, nullptr};
    pid_t pid;
    ASSERT_EQ(posix_spawnp(&pid, shell, nullptr, nullptr, argv, environ), 0);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  }
}

// Whoever was first and whoever was last.
TEST(SystemDeathTest, LeavesTheDefaultActionWhereReceiversHaveComeAndGone) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        {
          const Opener opener(*service, {SIGINT, SIGQUIT});
          // Not more: where either side replaces what the other puts there in
          // the same microsecond, nobody can tell what was there before.
          for (int i = 0; i < 10; ++i) {
            if (std::system("true") != 0) _exit(1);
          }
        }
        service.reset();
        SendSelf(SIGINT);
        while (true) pause();
      },
      KilledBySignal(SIGINT), "");
}

TEST(LeftAlone, IsReceivedOnceItIsNotIgnoredAnyMore) {
  SetDisposition(SIGHUP, SIG_IGN);
  auto service = StartService();
  SignalReceiver all = OpenReceiver(*service, {SIGHUP});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  SendSelf(SIGHUP);
  EXPECT_EQ(Next(all).signum, SIGHUP);
  // What a program that goes by its own wish does.
  SetDisposition(SIGHUP, CountHandled);
  while (polite.signals() != SignalSet({SIGHUP, SIGTERM})) sched_yield();
  SignalReceiver again = OpenReceiver(*service, {SIGHUP});
  SendSelf(SIGHUP);
  for (SignalReceiver* receiver : {&all, &polite, &again}) {
    EXPECT_EQ(Next(*receiver).signum, SIGHUP);
    EXPECT_FALSE(receiver->TryReceive().ok());
  }
  service.reset();
  SetDisposition(SIGHUP, SIG_DFL);
}

TEST(LeftAlone, StaysSoWhileItIsIgnored) {
  SetDisposition(SIGHUP, SIG_IGN);
  Event looked;
  auto service =
      *SignalService::Start({.on_replaced = [&](SignalSet) { looked.Set(); }});
  SignalReceiver polite =
      OpenReceiver(*service, {SIGHUP, SIGTERM}, {.honor_ignored = true});
  SetDisposition(SIGTERM, SIG_IGN);
  EXPECT_TRUE(looked.Wait().ok());
  EXPECT_EQ(polite.signals(), SignalSet({SIGTERM}));
  EXPECT_EQ(Disposition(SIGHUP).sa_handler, SIG_IGN);
  service.reset();
  for (int signum : {SIGHUP, SIGTERM}) SetDisposition(signum, SIG_DFL);
}

// What signals each thread and waits for an answer. ------------------------

std::atomic<int> answers = 0;
void Answer(int) { ++answers; }

void AskEachThread(int signum) {
  answers = 0;
  int asked = 0;
  for (const std::string& task : Threads()) {
    const pid_t thread = std::stoi(task.substr(task.rfind('/') + 1));
    if (syscall(SYS_tgkill, getpid(), thread, signum) == 0) ++asked;
  }
  EXPECT_GE(asked, 2);
  while (answers != asked) sched_yield();
}

TEST(EachThread, AnswersToAHandlerOfOtherCode) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "the sanitizer's own thread blocks all signals";
#endif
  SetDisposition(SIGUSR2, Answer);
  auto service = StartService();
  AskEachThread(SIGUSR2);
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SetDisposition(SIGRTMIN + 1, Answer);
  AskEachThread(SIGRTMIN + 1);
  // Until that is received, as any other.
  {
    SignalReceiver theirs = OpenReceiver(*service, {SIGUSR2, SIGRTMIN + 1});
    answers = 0;
    for (int signum : {SIGUSR2, SIGRTMIN + 1}) {
      SendSelf(signum);
      EXPECT_EQ(Next(theirs).signum, signum);
    }
    EXPECT_EQ(answers, 0);
  }
  AskEachThread(SIGUSR2);
  for (int signum : {SIGUSR2, SIGRTMIN + 1}) SetDisposition(signum, SIG_DFL);
}

TEST(EachThread, LeavesOutTheServicesWhereItsStarterBlocksTheSignal) {
  SetDisposition(SIGUSR2, Answer);
  std::unique_ptr<SignalService> service;
  {
    const ScopedSignalBlock block({SIGUSR2});
    service = StartService();
  }
  SetDisposition(SIGRTMIN + 1, Answer);
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  while (Contains(StatusMask(ServiceThread(), "SigBlk"), SIGRTMIN + 1)) {
    sched_yield();
  }
  EXPECT_TRUE(Contains(StatusMask(ServiceThread(), "SigBlk"), SIGUSR2));
  for (int signum : {SIGUSR2, SIGRTMIN + 1}) SetDisposition(signum, SIG_DFL);
}

// The library's threads do not take it, and do not die of it.
TEST(EachThread, LeavesASignalToTheProgramThatBlocksIt) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  const ScopedSignalBlock block({SIGUSR1});
  SendSelf(SIGUSR1);
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  const timespec now = {};
  EXPECT_EQ(sigtimedwait(&mask, nullptr, &now), SIGUSR1);
}

}  // namespace
}  // namespace tocsin
