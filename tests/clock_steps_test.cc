// Whoever sets the wall clock moves no timeout, deadline, timer or alarm. In
// this process the wall clock is set by an hour with each look at it.
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <iterator>
#include <latch>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/shutdown.h"

namespace {

std::atomic<int64_t> seconds_ahead{0};
std::atomic<int64_t> step_in_seconds{0};

}  // namespace

// In the place of the C library's, for the libraries that are linked with this
// program too.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  if (result == 0 && clock == CLOCK_REALTIME) {
    time->tv_sec += (seconds_ahead += step_in_seconds);
  }
  return result;
}

namespace tocsin {
namespace {

using internal::MutexLock;

constexpr absl::Duration kShort = absl::Milliseconds(20);
constexpr absl::Duration kLong = absl::Minutes(30);

class SteppingClock {
 public:
  explicit SteppingClock(absl::Duration step) {
    step_in_seconds = absl::ToInt64Seconds(step);
  }
  SteppingClock(const SteppingClock&) = delete;
  SteppingClock& operator=(const SteppingClock&) = delete;
  ~SteppingClock() { step_in_seconds = seconds_ahead = 0; }
};

// A wait of the library that nothing ends but its scope.
struct EndlessWait {
  const char* name;
  absl::Status (*wait)();
};

absl::Status AwaitNothing() {
  absl::Mutex mutex;
  bool never = false;
  MutexLock lock(mutex);
  return Await(mutex, absl::Condition(&never));
}

absl::Status AwaitPermit() {
  Semaphore semaphore(1);
  const std::optional<Semaphore::Permit> permit = semaphore.TryAcquire();
  return semaphore.Acquire().status();
}

absl::Status AwaitTask() {
  TaskSet tasks;
  auto task =
      tasks.SpawnWithResult([] { return Sleep(absl::InfiniteDuration()); });
  return task.Wait();
}

absl::Status AwaitSignal() {
  auto service = StartService();
  return OpenReceiver(*service, {SIGUSR1}).Receive().status();
}

absl::Status AwaitChild() {
  auto child = ChildProcess::Spawn({"sleep", "1000"});
  if (!child.ok()) return child.status();
  absl::Status status = child->Wait().status();
  child->Terminate(kShort).IgnoreError();
  return status;
}

const EndlessWait kEndlessWaits[] = {
    {"Sleep", [] { return Sleep(absl::InfiniteDuration()); }},
    {"Event", [] { return Event().Wait(); }},
    {"Semaphore", AwaitPermit},
    {"Pop", [] { return BlockingQueue<int>(kUnbounded).Pop().status(); }},
    {"Push", [] { return BlockingQueue<int>(kRendezvous).Push(1); }},
    {"PollFd", [] { return PollFd(Pipe().reader(), POLLIN).status(); }},
    {"Await", AwaitNothing},
    {"TaskHandle", AwaitTask},
    {"Receive", AwaitSignal},
    {"ChildProcess", AwaitChild},
};

class Waits : public testing::TestWithParam<EndlessWait> {};

TEST_P(Waits, EndAtTheirTimeoutThoughTheClockIsSetBack) {
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(FailAfter(kShort, GetParam().wait)));
}

// A deadline may be one of the wall clock, which is read once.
TEST_P(Waits, EndAtTheirDeadlineThoughTheClockIsSetBackThen) {
  CancelScope scope({.deadline = internal::WallNow() + kShort});
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(GetParam().wait()));
}

TEST_P(Waits, DoNotEndBeforeTheirTimeoutThoughTheClockIsSetForward) {
  const SteppingClock clock(absl::Hours(1));
  CancelScope scope({.timeout = kLong});
  const std::string waiting = TaskOfThisThread();
  std::jthread canceller([&] {
    AwaitState(waiting, "S");
    scope.Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(GetParam().wait()));
}

INSTANTIATE_TEST_SUITE_P(, Waits, testing::ValuesIn(kEndlessWaits),
                         [](const auto& tested) { return tested.param.name; });

TEST(ClockSetBack, SleepEndsInTime) {
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(Sleep(kShort).ok());
}

// The clock is set back by the time that SleepUntil() looks at it.
TEST(ClockSetBack, SleepUntilEndsInTime) {
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(SleepUntil(internal::WallNow() - absl::Hours(1) + kShort).ok());
}

TEST(ClockSetBack, ReceiveForEndsInTime) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(receiver.ReceiveFor(kShort).status()));
}

TEST(ClockSetBack, ALeadersReceiveForEndsInTime) {
  const ScopedSignalBlock block({SIGUSR1});
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(receiver.ReceiveFor(kShort).status()));
}

TEST(ClockSetBack, MoveOnAfterEndsInTime) {
  const SteppingClock clock(-absl::Hours(1));
  EXPECT_EQ(MoveOnAfter(kShort,
                        [] { Sleep(absl::InfiniteDuration()).IgnoreError(); }),
            TimeLimit::kPassed);
}

TEST(ClockSetBack, AStopTokenIsRequestedInTime) {
  const SteppingClock clock(-absl::Hours(1));
  CancelScope scope({.timeout = kShort});
  std::latch requested(1);
  const std::stop_callback count_down(scope.stop_token(),
                                      [&] { requested.count_down(); });
  requested.wait();
}

TEST(ClockSetBack, ADeadlineThatIsSetAfterwardsGoesByTheNewTime) {
  const CancelScope outer({.deadline = internal::WallNow() + kLong});
  const SteppingClock clock(-absl::Hours(1));
  const CancelScope scope({.deadline = internal::WallNow() + kLong});
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(ClockSetForward, ADeadlineKeepsItsTimeAndWhatIsLeftOfIt) {
  const absl::Time deadline = internal::WallNow() + kLong;
  CancelScope scope({.deadline = deadline});
  const SteppingClock clock(absl::Hours(1));
  EXPECT_EQ(scope.deadline(), deadline);
  EXPECT_GT(scope.remaining(), absl::ZeroDuration());
  EXPECT_TRUE(CheckCancelled().ok());
}

TEST(ClockSetForward, ADeadlineThatIsMovedKeepsItsTime) {
  const absl::Time deadline = internal::WallNow() + kLong;
  CancelScope scope({.deadline = deadline});
  const SteppingClock clock(absl::Hours(1));
  scope.set_deadline(deadline + kShort);
  EXPECT_EQ(scope.deadline(), deadline + kShort);
}

TEST(ClockSetForward, TheDeadlineOfATimeoutStaysAsItWasFirstShown) {
  const CancelScope scope({.timeout = kLong});
  const absl::Time shown = scope.deadline();
  const SteppingClock clock(absl::Hours(1));
  EXPECT_EQ(scope.deadline(), shown);
}

TEST(ClockSetForward, ReceiveForWaitsOn) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  const SteppingClock clock(absl::Hours(1));
  const std::string waiting = TaskOfThisThread();
  std::jthread sender([&] {
    AwaitState(waiting, "S");
    SendSelf(SIGUSR1);
  });
  EXPECT_TRUE(receiver.ReceiveFor(kLong).ok());
}

// It takes a look of the pool's monitor.
TEST(ClockSetBack, APoolWhoseThreadIsStuckMakesAnother) {
  const SteppingClock clock(-absl::Hours(1));
  auto pool = *ThreadPool::Create({.threads = 1});
  std::latch rounds[] = {std::latch(1), std::latch(1)};
  TaskSet tasks({.pool = pool.get()});
  for (std::latch& ran : rounds) {
    tasks.Spawn([&ran] { ran.wait(); });
    tasks.Spawn([&ran] { ran.count_down(); });
    ran.wait();
  }
}

TEST(ClockSetBack, ASpareThreadEnds) {
  const SteppingClock clock(-absl::Hours(1));
  auto pool = *ThreadPool::Create({.threads = 1});
  const size_t before = Threads().size();
  TaskSet tasks({.pool = pool.get()});
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(
        tasks
            .Start<void>([](const Started<void>& started) { return started(); })
            .ok());
  }
  EXPECT_TRUE(tasks.Wait().ok());
  while (Threads().size() > before + 2) sched_yield();  // and the monitor
}

TEST(ClockSetBack, TheGraceOfAChildEnds) {
  const SteppingClock clock(-absl::Hours(1));
  auto child = ChildProcess::Spawn(
      {"sh", "-c", "trap '' TERM; echo; while :; do sleep 1000; done"},
      {.output = ChildStream::Pipe()});
  ASSERT_TRUE(child.ok()) << child.status();
  char byte;
  ASSERT_EQ(read(child->stdout_pipe(), &byte, 1), 1);
  EXPECT_TRUE(child->Terminate(kShort).ok());
}

TEST(ClockSetBackDeathTest, AShutdownIsForcedInTime) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        auto service = StartService();
        TaskSet tasks;
        auto shutdown =
            Shutdown::Start(*service, tasks, {.drain = kShort, .grace = kShort})
                .value();
        const SteppingClock clock(-absl::Hours(1));
        SendSelf(SIGTERM);
        while (true) pause();
      },
      testing::KilledBySignal(SIGTERM), "the grace of 20ms is over");
}

TEST(ClockSetForward, ADrainIsNotOver) {
  auto service = StartService();
  TaskSet tasks;
  auto shutdown =
      Shutdown::Start(*service, tasks, {.drain = kLong, .grace = kLong})
          .value();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGTERM});
  const SteppingClock clock(absl::Hours(1));
  SendSelf(SIGTERM);
  // Each signal that the service takes has it look at its alarm.
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
  for (int i = 0; i < 3; ++i) {
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  }
  EXPECT_EQ(shutdown->phase(), Shutdown::Phase::kDraining);
}

// The kernel would end these sleeps by its own wall clock, whatever this
// program thinks of it.
void KillSleepsByTheWallClock() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FUTEX_CLOCK_REALTIME, 0, 3),
      // Half of the pointer to the time: glibc's joins, without one, have the
      // flag too.
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[3])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(filter), .filter = filter};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                    SECCOMP_FILTER_FLAG_TSYNC, &program),
            0);
}

TEST_P(Waits, AreNotTimedByTheKernelsWallClock) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        KillSleepsByTheWallClock();
        const absl::Status status = FailAfter(kShort, GetParam().wait);
        _exit(absl::IsDeadlineExceeded(status) ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(WallClockDeathTest, TimesNoSleepOfTheKernel) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        KillSleepsByTheWallClock();
        std::atomic<uint32_t> word{0};
        timespec long_ago = {};
        syscall(SYS_futex, &word,
                FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME,
                0, &long_ago, nullptr, FUTEX_BITSET_MATCH_ANY);
        _exit(0);
      },
      testing::KilledBySignal(SIGSYS), "");
}

}  // namespace
}  // namespace tocsin
