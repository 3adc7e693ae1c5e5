#include "tocsin/signals/process.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;

void Block(int how, int signum) {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signum);
  pthread_sigmask(how, &only, nullptr);
}

uint64_t MaskOfThisThread() { return StatusMask(TaskOfThisThread(), "SigBlk"); }

TEST(Raise, IsHeardWhateverTheThreadBlocks) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  std::thread([] {
    Block(SIG_BLOCK, SIGUSR1);
    EXPECT_TRUE(Raise(SIGUSR1).ok());
  }).join();
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
}

TEST(Raise, NamesTheNumberThatIsNoSignal) {
  for (const int number : {4096, 0, -15}) {
    const absl::Status status = Raise(number);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("signal ", number, ":")));
  }
}

// Nor buffers flushed.
TEST(DieBySignalDeathTest, RunsNothingAtExit) {
  Pipe output;
  static int written_at_exit;
  written_at_exit = output.writer();
  for (const int signum : {SIGWINCH, SIGTERM}) {
    auto die = [&] {
      dup2(output.writer(), STDOUT_FILENO);
      std::setvbuf(stdout, nullptr, _IOFBF, BUFSIZ);
#ifndef ABSL_HAVE_THREAD_SANITIZER  // whose own _exit() flushes them
      std::fputs("buffered", stdout);
#endif
      std::atexit([] { dprintf(written_at_exit, "at exit"); });
      DieBySignal(signum);
    };
    if (signum == SIGTERM) {
      EXPECT_EXIT(die(), KilledBySignal(SIGTERM), "");
    } else {
      EXPECT_EXIT(die(), ExitedWithCode(128 + SIGWINCH), "");
    }
  }
  output.CloseWriter();
  EXPECT_EQ(output.Take(), '\0');
}

// The one that everything else of the kind is done under.
TEST(DieBySignalDeathTest, TakesNoLock) {
  EXPECT_EXIT(
      {
        auto service = StartService();
        SignalReceiver receiver = OpenReceiver(*service, {SIGINT});
        internal::MutexLock lock(internal::disposition_mutex);
        DieBySignal(SIGINT);
      },
      KilledBySignal(SIGINT), "");
}

// In an orphaned process group, where nothing stops.
TEST(StopSelf, LeavesTheMaskAsItWas) {
  Child child(Fork([] {
    setsid();
    for (const int how : {SIG_BLOCK, SIG_UNBLOCK}) {
      Block(how, SIGTSTP);
      Block(SIG_BLOCK, SIGUSR2);
      const uint64_t before = MaskOfThisThread();
      StopSelf();
      EXPECT_EQ(MaskOfThisThread(), before);
    }
  }));
  EXPECT_EQ(ExitStatus(child.Wait(WUNTRACED)), 0);
}

TEST(StopSelf, LeavesOtherSignalsBlocked) {
  Child child(Fork([] {
    setsid();
    Block(SIG_BLOCK, SIGUSR1);
    EXPECT_EQ(raise(SIGUSR1), 0);
    StopSelf();
    EXPECT_TRUE(Contains(StatusMask(TaskOfThisThread(), "SigPnd"), SIGUSR1));
  }));
  EXPECT_EQ(ExitStatus(child.Wait(WUNTRACED)), 0);
}

TEST(StopSelf, StopsAlsoWhereTheThreadBlocksTheSignalAndTheProcessIgnoresIt) {
  Child child(Fork([] {
    setpgid(0, 0);
    SetDisposition(SIGTSTP, SIG_IGN);
    Block(SIG_BLOCK, SIGTSTP);
    StopSelf();
    EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_IGN);
  }));
  const int status = child.Wait(WUNTRACED);
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGTSTP);
  child.Send(SIGCONT);
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
