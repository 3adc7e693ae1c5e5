// What becomes of the library where the system refuses it something: a thread,
// a place for a pending signal, a file descriptor.
//
// Threads are refused by this program's own pthread_create(), which stands
// before that of the C library.
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/job_control.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/stop_on_signal.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// Decides about every thread that somebody asks for, there: 0, or the errno to
// refuse it with. One that is being asked goes on when another takes its place.
using Judge = std::function<int()>;
std::mutex judge_mutex;
std::shared_ptr<const Judge> judge;

void SetJudge(std::shared_ptr<const Judge> next) {
  const std::lock_guard lock(judge_mutex);
  judge = std::move(next);
}

class ScopedJudge {
 public:
  explicit ScopedJudge(Judge chosen) {
    SetJudge(std::make_shared<const Judge>(std::move(chosen)));
  }
  ScopedJudge(const ScopedJudge&) = delete;
  ScopedJudge& operator=(const ScopedJudge&) = delete;
  ~ScopedJudge() { SetJudge(nullptr); }
};

int AskJudge() {
  std::shared_ptr<const Judge> asked;
  {
    const std::lock_guard lock(judge_mutex);
    asked = judge;
  }
  return asked != nullptr ? (*asked)() : 0;
}

int RefuseAll() { return EAGAIN; }

}  // namespace
}  // namespace tocsin

// Under a sanitizer the one to call is the sanitizer's.
extern "C" int __interceptor_pthread_create(pthread_t*, const pthread_attr_t*,
                                            void* (*)(void*), void*)
    __attribute__((weak));

extern "C" int pthread_create(pthread_t* thread,
                              const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) noexcept {
  if (const int error = tocsin::AskJudge(); error != 0) {
    *thread = ~pthread_t{0};  // undefined, says POSIX
    return error;
  }
  using Create =
      int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static Create* const create =
      __interceptor_pthread_create != nullptr
          ? &__interceptor_pthread_create
          : reinterpret_cast<Create*>(dlsym(RTLD_NEXT, "pthread_create"));
  return create(thread, attributes, start, argument);
}

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Says what was refused, to whom, and what to do about it.
void ExpectRefusedThread(const absl::Status& status, const std::string& whom) {
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("pthread_create"), HasSubstr(whom),
                    HasSubstr("Resource temporarily unavailable"),
                    HasSubstr("RLIMIT_NPROC"), HasSubstr("pids.max")));
}

sigset_t Mask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

bool SameMask(const sigset_t& a, const sigset_t& b) {
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    if (sigismember(&a, signum) != sigismember(&b, signum)) return false;
  }
  return true;
}

TEST(NoThread, AServiceDoesNotStartAndLeavesNothingBehind) {
  const sigset_t before = Mask();
  {
    ScopedJudge none(RefuseAll);
    ExpectRefusedThread(SignalService::Start().status(), "signal service");
  }
  EXPECT_TRUE(SameMask(Mask(), before));
  EXPECT_EQ(Disposition(SIGSTKFLT).sa_handler, SIG_DFL);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
}

// Its thread is born with the mask of the one that asks for it.
TEST(SignalService, IsStartedWithSignalsBlocked) {
  sigset_t meanwhile;
  const sigset_t before = Mask();
  {
    ScopedJudge looks([&] {
      meanwhile = Mask();
      return 0;
    });
    StartService();
  }
  for (int signum : {SIGHUP, SIGTERM, SIGPROF, SIGSTKFLT, SIGRTMAX}) {
    EXPECT_EQ(sigismember(&meanwhile, signum), 1) << signum;
  }
  for (int fault :
       {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
    EXPECT_EQ(sigismember(&meanwhile, fault), 0) << fault;
  }
  EXPECT_TRUE(SameMask(Mask(), before));
}

TEST(NoThread, AStopOnSignalSaysSoAndLeavesTheSignalsAlone) {
  auto service = StartService();
  {
    ScopedJudge none(RefuseAll);
    ExpectRefusedThread(StopOnSignal::Start(*service, {SIGUSR1}).status(),
                        "StopOnSignal");
    EXPECT_EQ(Disposition(SIGUSR1).sa_handler, SIG_DFL);
  }
  auto stop = StopOnSignal::Start(*service, {SIGUSR1}).value();
  std::latch stopped(1);
  std::stop_callback count(stop->stop_token(), [&] { stopped.count_down(); });
  SendSelf(SIGUSR1);
  stopped.wait();
}

TEST(NoThread, AShutdownSaysSoAndAnotherCanBeMadeLater) {
  auto service = StartService();
  auto pool = *ThreadPool::Create({});
  TaskGroup group({.pool = pool.get()});
  {
    ScopedJudge none(RefuseAll);
    ExpectRefusedThread(
        Shutdown::Start(*service, group, {.signals = {SIGUSR1}}).status(),
        "Shutdown");
    EXPECT_EQ(Disposition(SIGUSR1).sa_handler, SIG_DFL);
  }
  auto shutdown =
      Shutdown::Start(*service, group, {.signals = {SIGUSR1}}).value();
  SendSelf(SIGUSR1);
  group.Spawn([] { Event().Wait().IgnoreError(); });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(shutdown->cause()->signum, SIGUSR1);
}

TEST(NoThread, AShutdownSaysThatItsHookHasNone) {
  auto service = StartService();
  TaskGroup group;
  {
    ScopedJudge none(RefuseAll);
    ExpectRefusedThread(
        Shutdown::Start(*service, group, {.on_forced = [] {}}).status(),
        "the hook of a forced end");
  }
  EXPECT_EQ(Disposition(SIGTERM).sa_handler, SIG_DFL);
  EXPECT_TRUE(Shutdown::Start(*service, group, {.on_forced = [] {}}).ok());
}

TEST(NoThread, JobControlSaysSoAndLeavesTheSignalAlone) {
  auto service = StartService();
  ScopedJudge none(RefuseAll);
  ExpectRefusedThread(JobControl::Start(*service, {}).status(), "JobControl");
  EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_DFL);
}

TEST(NoThread, RunPrintsTheReasonAndReturnsOne) {
  ScopedJudge none(RefuseAll);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(tocsin::Run([](Program&) -> absl::Status {
              ADD_FAILURE() << "called";
              return absl::OkStatus();
            }),
            1);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("RESOURCE_EXHAUSTED: pthread_create for the watchdog "
                        "of Run(): "));
}

TEST(NoThread, RunCallsNothingThatTheManagerWouldMiss) {
  setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
  setenv("WATCHDOG_USEC", "30000000", 1);
  std::atomic<int> asked{0};
  ScopedJudge no_third([&] { return ++asked == 3 ? EAGAIN : 0; });
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(tocsin::Run(
                [](Program&) -> absl::Status {
                  ADD_FAILURE() << "called";
                  return absl::OkStatus();
                },
                {.notify_watchdog = true}),
            1);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("RESOURCE_EXHAUSTED: pthread_create for the heartbeat "
                        "of Run(): "));
  unsetenv("WATCHDOG_USEC");
  unsetenv("NOTIFY_SOCKET");
}

TEST(NoThread, AServiceOfAGroupFailsTheGroup) {
  auto pool = *ThreadPool::Create({});
  TaskGroup group({.pool = pool.get()});
  {
    ScopedJudge none(RefuseAll);
    group.SpawnBackground([] { ADD_FAILURE() << "ran"; });
  }
  ExpectRefusedThread(group.Wait(), "");
}

TEST(NoThread, StartReturnsThatAndTheGroupGoesOn) {
  auto pool = *ThreadPool::Create({});
  TaskGroup group({.pool = pool.get()});
  auto answer = [](const Started<int>& started) { return started(42); };
  {
    ScopedJudge none(RefuseAll);
    ExpectRefusedThread(group.Start<int>(answer).status(), "");
  }
  EXPECT_EQ(*group.Start<int>(answer), 42);
  EXPECT_TRUE(group.Wait().ok());
}

// Nobody spawns anything or waits once there are threads again.
TEST(NoThread, APoolTriesAgainByItself) {
  std::latch refused(2);
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch blocked(2);
  std::latch release(1);
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&] {
      blocked.count_down();
      release.wait();
    });
  }
  blocked.wait();  // the second got its thread from the pool's monitor
  {
    ScopedJudge none([&, left = std::make_shared<std::atomic<int>>(2)] {
      if (left->fetch_sub(1) > 0) refused.count_down();
      return EAGAIN;
    });
    group.Spawn([&] { release.count_down(); });
    refused.wait();
    ExpectRefusedThread(pool->status(), "");
  }
  release.wait();
  EXPECT_TRUE(group.Wait().ok());
  while (!pool->status().ok()) sched_yield();
}

// Nobody spawns anything, waits, or ends a task either, and the pool has asked
// for no thread that would look after it.
TEST(NoThread, ATaskThatFoundNoThreadIsStartedOnceThereAreSome) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch blocked(1);
  std::latch release(1);
  group.Spawn([&] {
    blocked.count_down();
    release.wait();
  });
  blocked.wait();
  {
    std::latch refused(1);
    ScopedJudge none([&, first = std::make_shared<std::atomic<bool>>(true)] {
      if (first->exchange(false)) refused.count_down();
      return EAGAIN;
    });
    group.Spawn([&] { release.count_down(); });
    refused.wait();
  }
  release.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(NoThread, ATaskOutlivesARefusalBesideAService) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch ran(1);
  auto service = [&](const Started<void>& started) {
    EXPECT_TRUE(started().ok());
    ran.wait();
  };
  ASSERT_TRUE(group.Start<void>(service).ok());
  {
    ScopedJudge none(RefuseAll);
    group.Spawn([&] { ran.count_down(); });
    ExpectRefusedThread(pool->status(), "");
  }
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

// A task of Start() that is refused when somebody waits for it already.
TEST(NoThread, AWaitThatSleepsEndsWhenTheLastTaskIsRefused) {
  auto pool = *ThreadPool::Create({});
  TaskGroup group({.pool = pool.get()});
  std::latch start(1);
  std::latch wait(1);
  std::latch asked(1);
  std::latch refuse(1);
  std::atomic<bool> waits = false;
  ScopedThread starter([&] {
    start.wait();
    ExpectRefusedThread(
        group
            .Start<int>([](auto& started) { return started(42); },
                        {.name = "listener"})
            .status(),
        "");
  });
  ScopedThread waiter([&] {
    wait.wait();
    waits = true;
    EXPECT_TRUE(group.Wait().ok());
  });
  ScopedJudge late([&] {
    asked.count_down();
    refuse.wait();
    return EAGAIN;
  });
  start.count_down();
  asked.wait();
  EXPECT_EQ(group.running(), std::vector<std::string>{"listener"});
  wait.count_down();
  while (!waits) sched_yield();
  waiter.AwaitAsleep();
  refuse.count_down();
  waiter.Join();
  starter.Join();
  EXPECT_TRUE(group.running().empty());
}

TEST(NoThread, APoolSaysWhatItsServiceWasRefused) {
  auto pool = *ThreadPool::Create({.threads = 0});
  TaskGroup group({.pool = pool.get()});
  {
    ScopedJudge none(RefuseAll);
    group.SpawnBackground([] {});
  }
  ExpectRefusedThread(pool->status(), "thread pool");
  ExpectRefusedThread(group.Wait(), "thread pool");
}

// The pool has no slot for any of the tasks, so its monitor is to see to them.
TEST(NoThread, APoolWhoseMonitorWasRefusedMakesItWithTheNextTask) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 2});
  TaskGroup group({.pool = pool.get()});
  std::latch ran(2);
  {
    ScopedJudge none(RefuseAll);
    group.Spawn([&] { ran.count_down(); });
    ExpectRefusedThread(pool->status(), "");
  }
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(NoThread, APoolWithoutAnyTriesAgainWithTheNextTask) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch ran(2);
  {
    ScopedJudge none(RefuseAll);
    group.Spawn([&] { ran.count_down(); });
  }
  group.Spawn([&] { ran.count_down(); });
  ran.wait();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(NoThread, APoolThatIsDestroyedMeanwhileDoesNotWaitForIt) {
  // Counts when a thread of the pool ends, which none does before the pool is
  // being destroyed.
  struct AtExit {
    ~AtExit() {
      if (latch != nullptr) latch->count_down();
    }
    std::latch* latch = nullptr;
  };
  std::latch all_ended(2);
  auto pool = *ThreadPool::Create({.threads = 1});
  std::latch blocked(2);
  std::latch release(1);
  std::latch asked(1);
  std::optional<ScopedJudge> until_all_ended;
  {
    TaskGroup group({.pool = pool.get()});
    for (int i = 0; i < 2; ++i) {
      group.Spawn([&] {
        thread_local AtExit at_exit;
        at_exit.latch = &all_ended;
        blocked.count_down();
        release.wait();
      });
    }
    blocked.wait();
    until_all_ended.emplace([&] {
      asked.count_down();
      all_ended.wait();
      return EAGAIN;
    });
    group.Spawn([] {});
    asked.wait();
    release.count_down();
    EXPECT_TRUE(group.Wait().ok());
  }
  pool.reset();
}

// Whether a second task gets a slot at once in a pool of one, which was refused
// a thread after it had given the slot of that thread to another: it had done
// nothing for a second.
bool HasSecondSlot() {
  std::latch asked(1);
  std::latch given_to_another(1);
  std::latch refused(1);
  std::atomic<int> calls = 0;
  std::atomic<bool> made_here = false;
  auto pool = *ThreadPool::Create({.threads = 1});
  {
    TaskGroup group({.pool = pool.get()});
    std::latch judged(1);
    std::thread spawner([&] {
      judged.wait();
      group.Spawn([] {});
      refused.count_down();
    });
    ScopedJudge in_turn([&] {
      switch (++calls) {
        case 2:  // after the monitor
          asked.count_down();
          given_to_another.wait();
          return EAGAIN;
        case 3:  // by the monitor
          given_to_another.count_down();
          refused.wait();
      }
      return 0;
    });
    judged.count_down();
    asked.wait();
    group.Spawn([] {});
    spawner.join();
    EXPECT_TRUE(group.Wait().ok());
  }
  TaskGroup group({.pool = pool.get()});
  std::latch blocked(1);
  std::latch release(1);
  group.Spawn([&] {
    blocked.count_down();
    release.wait();
  });
  blocked.wait();
  ScopedJudge witness([&, here = pthread_self()] {
    if (pthread_equal(here, pthread_self())) made_here = true;
    return 0;
  });
  group.Spawn([] {});
  release.count_down();
  EXPECT_TRUE(group.Wait().ok());
  return made_here;
}

// On a machine that is slow the task that blocks may lose its slot before, so
// not the first time counts.
TEST(NoThread, APoolDoesNotGiveTheSameSlotBackTwice) {
  int tries = 1;
  while (HasSecondSlot()) ASSERT_LT(++tries, 10);
}

// This and the next run in a process of their own, because the thread that they
// need is kept once there is one. It can start threads, because here none runs
// between the tests.
TEST(NoThread, AwaitSaysSoWithTheMutexStillHeld) {
  Child child(Fork([] {
    CancelScope scope;
    absl::Mutex mutex;
    bool ready = false;
    mutex.Lock();
    {
      ScopedJudge none(RefuseAll);
      ExpectRefusedThread(Await(mutex, absl::Condition(&ready)), "Await()");
    }
    mutex.AssertHeld();
    scope.Cancel();
    EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&ready))));
    ready = true;
    mutex.Unlock();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(NoThread, ADeadlineRequestsItsStopTokenOnceThereIsOne) {
  Child child(Fork([] {
    CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(20)});
    std::stop_token token;
    {
      ScopedJudge none(RefuseAll);
      token = scope.stop_token();
    }
    std::latch requested(1);
    std::stop_callback count(token, [&] { requested.count_down(); });
    scope.stop_token();
    requested.wait();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

void SetLimit(int resource, rlim_t soft) {
  rlimit limit;
  ASSERT_EQ(getrlimit(resource, &limit), 0);
  limit.rlim_cur = soft;
  ASSERT_EQ(setrlimit(resource, &limit), 0);
}

// A one-shot timer that sends a signal. The kernel makes room for that signal
// when the timer is made, so that it comes whatever the limit is then.
class Alarm {
 public:
  Alarm(int signum, int value) {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = signum;
    event.sigev_value.sival_int = value;
    EXPECT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer_), 0);
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() { timer_delete(timer_); }

  // Returns once the signal has been sent.
  void Ring() const {
    itimerspec time{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 1}};
    EXPECT_EQ(timer_settime(timer_, 0, &time, nullptr), 0);
    do {
      EXPECT_EQ(timer_gettime(timer_, &time), 0);
    } while (time.it_value.tv_sec != 0 || time.it_value.tv_nsec != 0);
  }

 private:
  timer_t timer_;
};

// Keeps the service's thread from taking signals, by a handler of SIGPROF,
// which is the one that it does not block. Once in a process.
class StalledService {
 public:
  explicit StalledService(SignalReceiver& receiver) {
    // With this one out, the thread has no lock and takes none before the next.
    SendSelf(SIGRTMIN);
    Next(receiver);
    SetDisposition(SIGPROF, [](int) {
      stalled_.count_down();
      go_on_.wait();
    });
    const std::string task = ServiceThread();
    const pid_t thread = std::stoi(task.substr(task.rfind('/') + 1));
    EXPECT_EQ(syscall(SYS_tgkill, getpid(), thread, SIGPROF), 0);
    stalled_.wait();
  }
  StalledService(const StalledService&) = delete;
  StalledService& operator=(const StalledService&) = delete;
  ~StalledService() { GoOn(); }

  void GoOn() {
    if (!std::exchange(over_, true)) go_on_.count_down();
  }

 private:
  static inline std::latch stalled_{1};
  static inline std::latch go_on_{1};
  bool over_ = false;
};

#ifdef ABSL_HAVE_THREAD_SANITIZER
#define SKIP_UNDER_TSAN \
  GTEST_SKIP() << "ThreadSanitizer defers the handler that stalls the service"
#else
#define SKIP_UNDER_TSAN static_cast<void>(0)
#endif

sigset_t Only(int signum) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signum);
  return set;
}

// As many as wait for the service's thread when the kernel refuses to queue
// more.
constexpr int kSpillSlots = 64;

std::vector<std::unique_ptr<Alarm>> MakeAlarms(int count) {
  std::vector<std::unique_ptr<Alarm>> alarms;
  for (int i = 0; i < count; ++i) {
    alarms.push_back(std::make_unique<Alarm>(SIGRTMIN, i));
  }
  return alarms;
}

// Has each alarm's signal go through the handler, on this thread.
void RingAll(const std::vector<std::unique_ptr<Alarm>>& alarms) {
  const sigset_t only = Only(SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &only, nullptr);
  for (const auto& alarm : alarms) alarm->Ring();
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
}

// Has the service go on once a siginfo is lost, without which the handler that
// lost it would not come to its end.
std::jthread GoOnAtALoss(const SignalService& service,
                         StalledService& stalled) {
  ScopedSignalBlock block({SIGRTMIN});  // the handler is not to run there
  return std::jthread([&](std::stop_token stop) {
    while (service.stats().siginfo_lost == 0) {
      if (stop.stop_requested()) return;
      sched_yield();
    }
    stalled.GoOn();
  });
}

TEST(NoRoomForSignals, WhatTheHandlerCannotForwardKeepsItsSiginfo) {
  SKIP_UNDER_TSAN;
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const auto alarms = MakeAlarms(kSpillSlots);
    SetLimit(RLIMIT_SIGPENDING, 0);
    {
      StalledService stalled(receiver);
      const std::jthread release = GoOnAtALoss(*service, stalled);
      RingAll(alarms);
    }
    std::set<int> values;
    while (values.size() < kSpillSlots) {
      const SignalEvent event = Next(receiver);
      ASSERT_EQ(event.origin, SignalEvent::Origin::kTimer);
      EXPECT_TRUE(values.insert(event.value->sival_int).second);
    }
    EXPECT_EQ(service->stats().siginfo_lost, 0u);
    EXPECT_EQ(service->stats().received, 1u + kSpillSlots);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// Nor does its own service, which has the same slots, find them there.
TEST(NoRoomForSignals, AForkedChildHasNoneOfItsParents) {
  SKIP_UNDER_TSAN;
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const auto alarms = MakeAlarms(kSpillSlots);
    SetLimit(RLIMIT_SIGPENDING, 0);
    StalledService stalled(receiver);
    RingAll(alarms);
    Child grandchild(Fork([] {
      auto own = StartService();
      SignalReceiver mine = OpenReceiver(*own, {SIGUSR1});
      SendSelf(SIGUSR1);
      EXPECT_EQ(Next(mine).signum, SIGUSR1);
      EXPECT_EQ(own->stats().received, 1u);
    }));
    EXPECT_EQ(ExitStatus(grandchild.Wait()), 0);
    stalled.GoOn();
    for (int i = 0; i < kSpillSlots; ++i) {
      EXPECT_EQ(Next(receiver).origin, SignalEvent::Origin::kTimer);
    }
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(NoRoomForSignals, WhenTheSlotsAreFullTheNumberComesAlone) {
  SKIP_UNDER_TSAN;
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    const auto alarms = MakeAlarms(kSpillSlots + 1);
    SetLimit(RLIMIT_SIGPENDING, 0);
    StalledService stalled(receiver);
    const std::jthread release = GoOnAtALoss(*service, stalled);
    RingAll(alarms);  // the last one keeps trying
    std::set<int> values;
    int alone = 0;
    while (values.size() + alone < kSpillSlots + 1) {
      const SignalEvent event = Next(receiver);
      if (event.origin == SignalEvent::Origin::kTimer) {
        EXPECT_TRUE(values.insert(event.value->sival_int).second);
      } else {
        EXPECT_FALSE(event.sender.has_value());
        ++alone;
      }
    }
    EXPECT_EQ(alone, 1);
    EXPECT_EQ(service->stats().siginfo_lost, 1u);
    service.reset();
    EXPECT_EQ(StartService()->stats().siginfo_lost, 0u);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(NoDescriptor, FdSaysSoAndWorksOnceThereIsOne) {
  Child child(Fork([] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    SetLimit(RLIMIT_NOFILE, 0);
    const absl::Status none = receiver.fd().status();
    EXPECT_TRUE(absl::IsResourceExhausted(none)) << none;
    EXPECT_THAT(std::string(none.message()), HasSubstr("eventfd"));
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
    SetLimit(RLIMIT_NOFILE, 64);
    SendSelf(SIGUSR1);
    pollfd readable{.fd = *receiver.fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&readable, 1, -1), 1);
    EXPECT_EQ(receiver.TryReceive()->signum, SIGUSR1);
    EXPECT_EQ(poll(&readable, 1, 0), 0);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
