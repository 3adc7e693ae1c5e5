// The service among the threads of a program: it hears signals whichever thread
// the kernel picks, and leaves nothing on any of them.
#include <dirent.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {
namespace {

// Every signal that can be received, but SIGPROF.
SignalSet AllButSigprof() {
  SignalSet signals;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (signum != SIGPROF && CheckReceivable({signum}).ok()) {
      signals.insert(signum);
    }
  }
  return signals;
}

// A thread that runs `body` and can be waited for until it sleeps.
class SleepyThread {
 public:
  explicit SleepyThread(std::function<void()> body)
      : thread_([this, body = std::move(body)] {
          task_ = TaskOfThisThread();
          started_.Notify();
          body();
        }) {}
  ~SleepyThread() { thread_.join(); }

  void AwaitSleep() const {
    started_.WaitForNotification();
    AwaitState(task_, "S");
  }
  pthread_t handle() { return thread_.native_handle(); }

 private:
  std::string task_;
  absl::Notification started_;
  std::thread thread_;
};

// T1
TEST(SignalService, CanBeStartedByAThreadThatEnds) {
  std::unique_ptr<SignalService> service;
  std::thread([&] { service = StartService(); }).join();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
}

// T2, T3, T5, G21: with the main thread out of the way, the kernel has only
// these to interrupt.
TEST(SignalService, HearsWhatInterruptsThreadsOlderThanItself) {
  Pipe input;
  SetDisposition(SIGUSR2, [](int) {});
  std::atomic<bool> done = false;
  std::atomic<bool> paused = true;
  SleepyThread reading([&] { EXPECT_EQ(input.Take(), 'x'); });
  SleepyThread pausing([&] {
    while (!done) pause();
    paused = false;
  });
  std::thread spinning([&] {
    while (!done) {
    }
  });
  ScopedSignalBlock out_of_the_way({SIGTERM, SIGCHLD});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGCHLD});
  for (int i = 0; i < 200; ++i) {
    const int signum = i % 2 == 0 ? SIGTERM : SIGCHLD;
    SendSelf(signum);
    EXPECT_EQ(Next(receiver).signum, signum);
  }
  // And one to each in particular. (The kernel may also pick the service's own
  // thread for those above.)
  const uint64_t redirected = service->stats().redirected;
  for (SleepyThread* thread : {&reading, &pausing}) {
    thread->AwaitSleep();
    ASSERT_EQ(pthread_kill(thread->handle(), SIGTERM), 0);
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
  }
  ASSERT_EQ(pthread_kill(spinning.native_handle(), SIGTERM), 0);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  EXPECT_EQ(service->stats().redirected, redirected + 3);
  input.Put();  // read() was restarted each time
  done = true;
  while (paused) {
    pthread_kill(pausing.handle(), SIGUSR2);
    sched_yield();
  }
  spinning.join();
}

// T6, G22
TEST(SignalService, NeverChangesErrno) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGRTMIN});
  std::atomic<bool> done = false;
  std::thread checking([&] {
    errno = 4242;
    int seen = errno;
    while (!done && seen == 4242) seen = errno;
    EXPECT_EQ(seen, 4242);
  });
  for (int i = 0; i < 1000; ++i) {
    const int signum = i % 2 == 0 ? SIGUSR1 : SIGRTMIN;
    ASSERT_EQ(pthread_kill(checking.native_handle(), signum), 0);
    EXPECT_EQ(Next(receiver).signum, signum);
  }
  done = true;
  checking.join();
  EXPECT_EQ(service->stats().redirected, 1000u);
}

// G30
TEST(SignalService, GoesOnAfterTheProcessWasStopped) {
  Pipe ready;
  Child child(Fork([&] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    ready.Put();
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
  }));
  ready.Take();
  for (int i = 0; i < 3; ++i) {
    child.Send(SIGSTOP);
    EXPECT_TRUE(WIFSTOPPED(child.Wait(WUNTRACED)));
    child.Send(SIGCONT);
    EXPECT_TRUE(WIFCONTINUED(child.Wait(WCONTINUED)));
  }
  child.Send(SIGTERM);
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

std::map<std::string, uint64_t> BlockedByThread() {
  std::map<std::string, uint64_t> blocked;
  for (const std::string& task : Threads()) {
    // The service's own changes with what it does at the moment.
    blocked[task] = IsServiceThread(task) ? 0 : StatusMask(task, "SigBlk");
  }
  return blocked;
}

int CountOpenFiles() {
  DIR* directory = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

// Those of timer_create(2).
int CountTimers() {
  std::ifstream file("/proc/self/timers");
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    count += line.rfind("ID: ", 0) == 0;
  }
  return count;
}

// What a process has of all that the service uses.
struct Footprint {
  int open_files = CountOpenFiles();
  int timers = CountTimers();
  std::map<std::string, uint64_t> blocked_by_thread = BlockedByThread();
  uint64_t caught = StatusMask("self", "SigCgt");
  uint64_t ignored = StatusMask("self", "SigIgn");

  bool operator==(const Footprint&) const = default;
};

// X10
TEST(SignalService, LeavesNothingOfAThousandReceivers) {
  auto service = StartService();
  OpenReceiver(*service, {SIGUSR1}).Close();
  const Footprint before;
  for (int i = 0; i < 1000; ++i) {
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGRTMIN});
    EXPECT_TRUE(receiver.fd().ok());
  }
  EXPECT_TRUE(Footprint() == before);
}

// V2, G34
TEST(SignalService, LeavesNothingOfAThousandServices) {
  StartService();  // with its first thread, the C library takes a signal
  AwaitNoServiceThread();
  const Footprint before;
  for (int i = 0; i < 1000; ++i) {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  }
  AwaitNoServiceThread();
  EXPECT_TRUE(Footprint() == before);
}

// G42
TEST(SignalService, EndsWellUnderARainOfSignals) {
  SetDisposition(SIGUSR1, SIG_IGN);
  std::atomic<bool> done = false;
  std::thread rain([&] {
    while (!done) SendSelf(SIGUSR1);
  });
  {
    auto service = StartService();
    std::vector<std::thread> churning;
    for (int i = 0; i < 8; ++i) {
      churning.emplace_back([&] {
        for (int cycle = 0; cycle < 300; ++cycle) {
          OpenReceiver(*service, {SIGUSR1}).Close();
        }
      });
    }
    for (std::thread& thread : churning) thread.join();
  }
  done = true;
  rain.join();
  AwaitNoServiceThread();
  SetDisposition(SIGUSR1, SIG_DFL);
}

// G39: the C library has every thread change its user, by a signal that none
// may block.
TEST(SignalService, LetsTheProcessChangeItsUser) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, AllButSigprof());
  EXPECT_EQ(setuid(getuid()), 0);
}

// N2
TEST(SignalService, BlocksSignalsInItsOwnThreadOnly) {
  std::latch started(1);
  std::latch done(1);
  std::thread worker([&] {
    started.count_down();
    done.wait();
  });
  started.wait();
  const std::map<std::string, uint64_t> before = BlockedByThread();
  auto service = StartService();
  // What a thread waits for is shown as not blocked.
  SignalSet signals = AllButSigprof();
  signals.erase(SIGHUP);
  SignalReceiver receiver = OpenReceiver(*service, signals);
  SendSelf(SIGUSR1);
  Next(receiver);  // from here on the thread has its mask
  int services = 0;
  for (const std::string& task : Threads()) {
    const uint64_t blocked = StatusMask(task, "SigBlk");
    if (!IsServiceThread(task)) {
      ASSERT_TRUE(before.contains(task));
      EXPECT_EQ(blocked, before.at(task)) << task;
      continue;
    }
    ++services;
    // A crash handler and a profiler see this thread too.
    for (int signum :
         {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF}) {
      EXPECT_FALSE(Contains(blocked, signum)) << SignalName(signum);
    }
    EXPECT_TRUE(Contains(blocked, SIGHUP));
  }
  EXPECT_EQ(services, 1);
  done.count_down();
  worker.join();
}

thread_local volatile int ticks = 0;

// A timer of the calling thread that ticks with the CPU time that it uses, as
// profilers have it.
class ProfilingTimer {
 public:
  ProfilingTimer() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGPROF;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    EXPECT_EQ(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_), 0);
    const timespec millisecond = {.tv_sec = 0, .tv_nsec = 1'000'000};
    const itimerspec interval = {millisecond, millisecond};
    EXPECT_EQ(timer_settime(timer_, 0, &interval, nullptr), 0);
  }
  ~ProfilingTimer() { timer_delete(timer_); }

 private:
  timer_t timer_;
};

// N4
TEST(SignalService, LeavesAProfilerItsTicks) {
  SetDisposition(SIGPROF, [](int) { ticks = ticks + 1; });
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, AllButSigprof());
  std::vector<std::thread> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([] {
      ProfilingTimer timer;
      // ThreadSanitizer runs handlers in calls such as this one only.
      timespec now;
      while (ticks < 5) clock_gettime(CLOCK_MONOTONIC, &now);
    });
  }
  for (int i = 0; i < 100; ++i) {
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  }
  for (std::thread& worker : workers) worker.join();
  SetDisposition(SIGPROF, SIG_IGN);  // a last tick may be pending
}

// G45: where ThreadSanitizer would put a handler off until the thread wakes.
TEST(SignalService, HearsASignalWhileTheMainThreadSleepsOnANotification) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  absl::Notification received;
  const std::string main_thread = TaskOfThisThread();
  std::thread reader([&] {
    AwaitState(main_thread, "S");
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
    received.Notify();
  });
  received.WaitForNotification();
  reader.join();
}

TEST(ScopedSignalBlock, SendsSignalsStraightToTheService) {
  const uint64_t before = StatusMask(TaskOfThisThread(), "SigBlk");
  {
    ScopedSignalBlock block({SIGTERM, SIGRTMIN});
    const uint64_t inside = StatusMask(TaskOfThisThread(), "SigBlk");
    EXPECT_TRUE(Contains(inside, SIGTERM));
    EXPECT_TRUE(Contains(inside, SIGRTMIN));
    std::latch done(1);
    std::thread inherits([&] { done.wait(); });
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
    for (int i = 0; i < 100; ++i) {
      const int signum = i % 2 == 0 ? SIGTERM : SIGRTMIN;
      SendSelf(signum);
      EXPECT_EQ(Next(receiver).signum, signum);
    }
    EXPECT_EQ(service->stats().received, 100u);
    EXPECT_EQ(service->stats().redirected, 0u);
    done.count_down();
    inherits.join();
  }
  EXPECT_EQ(StatusMask(TaskOfThisThread(), "SigBlk"), before);
}

TEST(ScopedSignalBlock, AddsToWhatIsBlockedAndTheDoorbell) {
  const auto blocked = [] { return StatusMask(TaskOfThisThread(), "SigBlk"); };
  const uint64_t before = blocked();
  {
    ScopedSignalBlock outer({SIGUSR1});
    const uint64_t outside = blocked();
    EXPECT_TRUE(Contains(outside, SIGUSR1));
    EXPECT_TRUE(Contains(outside, SIGSTKFLT));
    {
      ScopedSignalBlock inner({SIGUSR2});
      EXPECT_TRUE(Contains(blocked(), SIGUSR1));
      EXPECT_TRUE(Contains(blocked(), SIGUSR2));
      EXPECT_FALSE(Contains(blocked(), SIGTERM));
    }
    EXPECT_EQ(blocked(), outside);
  }
  EXPECT_EQ(blocked(), before);
}

TEST(ScopedSignalBlock, LetsWhatIsPendingTakeEffectAtItsEnd) {
  static std::atomic<int> handled;
  handled = 0;
  SetDisposition(SIGUSR1, [](int) { ++handled; });
  {
    ScopedSignalBlock block({SIGUSR1});
    ASSERT_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
    EXPECT_EQ(handled, 0);
  }
  EXPECT_EQ(handled, 1);
  SetDisposition(SIGUSR1, SIG_DFL);
}

// What no thread was interrupted by does not disturb its system calls either.
TEST(ScopedSignalBlock, SparesTheProgramEintr) {
  ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  Pipe input;
  const std::string main_thread = TaskOfThisThread();
  std::thread sender([&] {
    AwaitState(main_thread, "S");
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
    input.Put();
  });
  pollfd readable = {.fd = input.reader(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&readable, 1, -1), 1);
  sender.join();
}

}  // namespace
}  // namespace tocsin
