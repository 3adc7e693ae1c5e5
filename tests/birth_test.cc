// What state the threads of the library are born in: that of the main thread,
// whoever made them necessary. Each test has a thread that differs from it and
// is the first to use a pool.
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cfenv>
#include <climits>
#include <csignal>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <ostream>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/pool_testing.h"
#include "tests/process_status.h"
#include "tests/refused_call.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int kNobody = 65534;

std::string LinkOfThread(const std::string& name) {
  char text[PATH_MAX];
  const ssize_t size = readlink(
      absl::StrCat("/proc/thread-self/", name).c_str(), text, sizeof(text));
  return std::string(text, static_cast<size_t>(std::max<ssize_t>(size, 0)));
}

std::string Scheduling() {
  sched_param parameters{};
  sched_getparam(0, &parameters);
  return absl::StrCat("policy ", sched_getscheduler(0), " priority ",
                      parameters.sched_priority, "\nnice ",
                      getpriority(PRIO_PROCESS, 0), "\n");
}

// Of the calling thread, as text.
std::string State() {
  const std::string task = TaskOfThisThread();
  std::string state;
  for (const char* field : {"Cpus_allowed", "SigBlk", "Uid", "Gid", "CapEff",
                            "NoNewPrivs", "Seccomp", "Umask"}) {
    absl::StrAppend(&state, field, " ", StatusField(task, field), "\n");
  }
  absl::StrAppend(&state, Scheduling(), "I/O priority ",
                  syscall(SYS_ioprio_get, 1, 0), "\nslack ",
                  prctl(PR_GET_TIMERSLACK), "\nrounding ", fegetround(), "\n");
  for (const char* link : {"ns/net", "ns/uts", "ns/ipc", "cwd", "root"}) {
    absl::StrAppend(&state, link, " ", LinkOfThread(link), "\n");
  }
#ifdef __SSE__
  absl::StrAppend(&state, "denormals ", __builtin_ia32_stmxcsr() & 0x8040);
#endif
  return state;
}

std::unique_ptr<ThreadPool> Pool(int threads = 1) {
  return *ThreadPool::Create({.name = "born", .threads = threads});
}

// What `f` returns on a worker that `pool` makes for the calling thread; what
// it has by default if it makes none.
template <typename F>
auto OnWorker(ThreadPool& pool, F f) {
  decltype(f()) result{};
  TaskGroup group({.pool = &pool});
  group.SpawnBackground([&] { result = f(); });
  group.Wait().IgnoreError();
  return result;
}

// What a thread may do to itself; false if this process may not.
struct Change {
  const char* name;
  std::function<bool()> make;
};
std::ostream& operator<<(std::ostream& out, const Change& change) {
  return out << change.name;
}

bool TakeOneCpu() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 2) {
    return false;
  }
  int cpu = 0;
  while (!CPU_ISSET(cpu, &set)) ++cpu;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

bool Schedule(int policy, int priority) {
  const sched_param parameters{.sched_priority = priority};
  return sched_setscheduler(0, policy, &parameters) == 0;
}

bool ChangeIoPriority() { return syscall(SYS_ioprio_set, 1, 0, 3 << 13) == 0; }

bool Block(int signum) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signum);
  return pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}

class ShedTest : public testing::TestWithParam<Change> {};

INSTANTIATE_TEST_SUITE_P(
    Changes, ShedTest,
    testing::Values(
        Change{"Affinity", TakeOneCpu},
        Change{"Nice", [] { return setpriority(PRIO_PROCESS, 0, 19) == 0; }},
        Change{"Batch", [] { return Schedule(SCHED_BATCH, 0); }},
        Change{"Idle", [] { return Schedule(SCHED_IDLE, 0); }},
        Change{"RealTime", [] { return Schedule(SCHED_FIFO, 1); }},
        Change{"IoPriority", ChangeIoPriority},
        Change{"Slack", [] { return prctl(PR_SET_TIMERSLACK, 7777) == 0; }},
        Change{"Mask", [] { return Block(SIGPROF) && Block(SIGTERM); }},
        Change{"Rounding", [] { return fesetround(FE_UPWARD) == 0; }}
#ifdef __SSE__
        ,
        Change{"Denormals",
               [] {
                 __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
                 return true;
               }}
#endif
        ),
    [](const auto& tested) { return tested.param.name; });

TEST_P(ShedTest, AWorkerHasTheStateOfTheMainThread) {
  const std::string main = State();
  bool changed = false;
  std::string special;
  std::string worker;
  absl::Status status;
  std::thread([&] {
    changed = GetParam().make();
    special = State();
    const std::unique_ptr<ThreadPool> pool = Pool();
    worker = OnWorker(*pool, State);
    status = pool->status();
  }).join();
  if (!changed) GTEST_SKIP() << "this process may not";
  EXPECT_NE(special, main);
  if (worker.empty()) {
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("a scheduling policy that is not"));
    GTEST_SKIP() << "without a privilege it cannot be undone";
  }
  EXPECT_EQ(worker, main);
}

class BondTest : public testing::TestWithParam<Change> {};

bool Unshare(int what) { return unshare(what) == 0; }

INSTANTIATE_TEST_SUITE_P(
    Changes, BondTest,
    testing::Values(
        Change{
            "UserId",
            [] { return syscall(SYS_setresuid, kNobody, kNobody, -1) == 0; }},
        Change{"GroupId",
               [] { return syscall(SYS_setresgid, -1, kNobody, -1) == 0; }},
        Change{"FsUserId",
               [] {
                 syscall(SYS_setfsuid, kNobody);
                 return syscall(SYS_setfsuid, -1) == kNobody;
               }},
        Change{"NoNewPrivileges",
               [] { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0; }},
        Change{"Network", [] { return Unshare(CLONE_NEWNET); }},
        Change{"HostName", [] { return Unshare(CLONE_NEWUTS); }},
        Change{"Ipc", [] { return Unshare(CLONE_NEWIPC); }},
        Change{"Cgroup", [] { return Unshare(CLONE_NEWCGROUP); }},
        Change{"Mounts", [] { return Unshare(CLONE_NEWNS); }},
        Change{"Directory",
               [] { return Unshare(CLONE_FS) && chdir("/proc") == 0; }},
        Change{"DirectoryToCome", [] { return Unshare(CLONE_FS); }},
        Change{"Descriptors", [] { return Unshare(CLONE_FILES); }}),
    [](const auto& tested) { return tested.param.name; });

TEST_P(BondTest, MakesNoWorker) {
  const std::string main = State();
  bool changed = false;
  const std::unique_ptr<ThreadPool> pool = Pool();
  absl::Status background;
  absl::Status status;
  bool ran_in_wait = false;
  std::thread([&] {
    changed = GetParam().make();
    if (!changed) return;
    {
      TaskGroup group({.pool = pool.get()});
      group.SpawnBackground([] {});
      background = group.Wait();
    }
    TaskGroup group({.pool = pool.get()});
    group.Spawn([&, id = gettid()] { ran_in_wait = gettid() == id; });
    EXPECT_TRUE(group.Wait().ok());
    status = pool->status();
  }).join();
  if (!changed) GTEST_SKIP() << "this process may not";
  EXPECT_TRUE(ThreadsNamed("born").empty());
  EXPECT_TRUE(ran_in_wait);
  for (const absl::Status& told : {background, status}) {
    EXPECT_EQ(told.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(told.message()),
                AllOf(HasSubstr("\"born\""), HasSubstr("not the main thread's"),
                      HasSubstr("let the main thread, or one like it")));
  }
  // And the next thread is not the worse for it.
  EXPECT_EQ(OnWorker(*pool, State), main);
  EXPECT_TRUE(pool->status().ok()) << pool->status();
}

// What it was refused is no reason to refuse the next thread its worker.
TEST(BondTest, ItHindersNoOther) {
  const std::unique_ptr<ThreadPool> pool = Pool();
  std::thread([&] {
    EXPECT_TRUE(Unshare(CLONE_FS));
    EXPECT_EQ(OnWorker(*pool, State), "");
  }).join();
  TaskGroup group({.pool = pool.get()});
  std::latch ran(1);
  group.Spawn([&] { ran.count_down(); });
  ran.wait();  // and not by Wait(), which may run it here
  EXPECT_TRUE(group.Wait().ok());
}

// A task that nobody waits for starts: the monitor makes the thread.
TEST(BondTest, TheMonitorMakesTheWorkerIfThereIsOne) {
  const std::unique_ptr<ThreadPool> pool = Pool();
  TaskGroup group({.pool = pool.get()});
  std::latch hold(1);
  std::latch met(2);
  // The second has no slot, and so a monitor.
  for (int i = 0; i < 2; ++i) {
    group.Spawn([&] {
      met.count_down();
      hold.wait();
    });
  }
  met.wait();
  std::string worker;
  std::latch ran(1);
  std::thread([&] {
    EXPECT_TRUE(Unshare(CLONE_FS));
    TaskGroup own({.pool = pool.get()});
    own.Spawn([&] {
      worker = State();
      ran.count_down();
    });
    ran.wait();  // and not by Wait(), which may run it here
    EXPECT_TRUE(own.Wait().ok());
  }).join();
  EXPECT_EQ(worker, State());
  hold.count_down();
  EXPECT_TRUE(group.Wait().ok());
}

// A task may change its thread; those that it makes are like others.
TEST(BondTest, ATaskThatIsBoundMakesNoWorkerEither) {
  const std::unique_ptr<ThreadPool> pool = Pool();
  TaskGroup group({.pool = pool.get()});
  absl::Status inner;
  group.SpawnBackground([&] {
    EXPECT_TRUE(Unshare(CLONE_FS));
    TaskGroup group_of_task({.pool = pool.get()});
    group_of_task.SpawnBackground([] {});
    inner = group_of_task.Wait();
  });
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(inner.code(), absl::StatusCode::kFailedPrecondition) << inner;
}

// The signals that a new worker blocks.
uint64_t MaskOfWorker() {
  const std::unique_ptr<ThreadPool> pool = Pool();
  return OnWorker(*pool,
                  [] { return StatusMask(TaskOfThisThread(), "SigBlk"); });
}

uint64_t MaskOf(const SignalSet& signals) {
  uint64_t mask = 0;
  for (int signum : signals) mask |= uint64_t{1} << (signum - 1);
  return mask;
}

TEST(BlockTest, AWorkerBlocksWhatLivingBlocksAskForOnAnyThread) {
  std::latch made(1);
  std::latch looked(1);
  std::thread other([&] {
    const ScopedSignalBlock block({SIGUSR1});
    const ScopedSignalBlock inner({SIGUSR1, SIGUSR2});
    made.count_down();
    looked.wait();
  });
  made.wait();
  const uint64_t while_they_live = MaskOfWorker();
  uint64_t with_own = 0;
  {
    const ScopedSignalBlock block({SIGUSR1, SIGHUP});
    with_own = MaskOfWorker();
  }
  looked.count_down();
  other.join();
  EXPECT_EQ(while_they_live, MaskOf({SIGUSR1, SIGUSR2, SIGSTKFLT}));
  EXPECT_EQ(with_own, MaskOf({SIGUSR1, SIGUSR2, SIGHUP, SIGSTKFLT}));
  EXPECT_EQ(MaskOfWorker(), 0u);
}

// ThreadSanitizer makes no threads in a forked child.
#ifdef ABSL_HAVE_THREAD_SANITIZER
#define SKIP_THREADS_AFTER_FORK() \
  GTEST_SKIP() << "ThreadSanitizer makes no threads in a forked child"
#else
#define SKIP_THREADS_AFTER_FORK() (void)0
#endif

TEST(BlockTest, AForkedChildHasTheBlocksOfItsOneThread) {
  SKIP_THREADS_AFTER_FORK();
  std::latch made(1);
  std::latch looked(1);
  std::thread other([&] {
    const ScopedSignalBlock block({SIGUSR1, SIGUSR2});
    made.count_down();
    looked.wait();
  });
  made.wait();
  {
    const ScopedSignalBlock block({SIGUSR1, SIGHUP});
    const ScopedSignalBlock inner({SIGHUP});
    Child child(Fork([] {
      EXPECT_EQ(MaskOfWorker(), MaskOf({SIGUSR1, SIGHUP, SIGSTKFLT}));
    }));
    EXPECT_EQ(ExitStatus(child.Wait()), 0);
  }
  looked.count_down();
  other.join();
}

// In a child whose main thread `change` has changed, the state of a worker that
// a thread like before makes, and that of the main thread, are the same.
void ExpectThatWorkersFollow(bool (*change)()) {
  Child child(Fork([&] {
    std::latch changed(1);
    std::string worker;
    std::thread spawns([&] {
      changed.wait();
      const std::unique_ptr<ThreadPool> pool = Pool();
      worker = OnWorker(*pool, State);
    });
    const bool done = change();
    changed.count_down();
    spawns.join();
    if (!done) return;
    EXPECT_EQ(worker, State());
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(MainThreadTest, WorkersFollowItsScheduling) {
  SKIP_THREADS_AFTER_FORK();
  ExpectThatWorkersFollow([] {
    return Schedule(SCHED_BATCH, 0) && setpriority(PRIO_PROCESS, 0, 15) == 0;
  });
}

TEST(MainThreadTest, WorkersFollowItsAffinity) {
  SKIP_THREADS_AFTER_FORK();
  ExpectThatWorkersFollow(TakeOneCpu);
}

// They are as if it had made them, and so without what its children lose.
TEST(MainThreadTest, WorkersDoNotInheritWhatResetOnForkResets) {
  SKIP_THREADS_AFTER_FORK();
  Child child(Fork([] {
    std::latch changed(1);
    std::string worker;
    std::thread spawns([&] {
      changed.wait();
      const std::unique_ptr<ThreadPool> pool = Pool();
      worker = OnWorker(*pool, Scheduling);
    });
    Schedule(SCHED_FIFO | SCHED_RESET_ON_FORK, 1);
    changed.count_down();
    spawns.join();
    std::string made_by_it;
    std::thread([&] { made_by_it = Scheduling(); }).join();
    EXPECT_EQ(worker, made_by_it);
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// The number of slots is not that of whoever asks first, either.
TEST(MainThreadTest, ItsAffinityIsTheSizeOfAPool) {
  const int cpus = internal::AvailableCpus();
  std::thread([&] {
    TakeOneCpu();
    EXPECT_EQ(internal::AvailableCpus(), cpus);
  }).join();
}

// Of the thread that requests a stop token when a deadline passes.
std::string StateOfTimer() {
  std::string state;
  pid_t thread = gettid();
  // A deadline that has passed too soon needs no other thread.
  while (thread == gettid()) {
    std::latch requested(1);
    CancelScope scope({.timeout = absl::Milliseconds(10)});
    const std::stop_callback callback(scope.stop_token(), [&] {
      state = State();
      thread = gettid();
      requested.count_down();
    });
    requested.wait();
  }
  return state;
}

TEST(TimerTest, IsLikeTheMainThreadOnceTheThreadThatBoundItNeedsItNoMore) {
  SKIP_THREADS_AFTER_FORK();
  Child child(Fork([] {
    std::string special;
    std::thread([&] {
      EXPECT_TRUE(Unshare(CLONE_FS) && chdir("/proc") == 0);
      special = StateOfTimer();
    }).join();
    EXPECT_THAT(special, HasSubstr("cwd /proc\n"));
    while (!ThreadNamed("tocsin-timer").empty()) sched_yield();
    EXPECT_EQ(StateOfTimer(), State());
    EXPECT_EQ(StateOfTimer(), State());
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// Its alarm is taken back, and does not ring.
TEST(TimerTest, AlsoWhereTheDeadlineIsMovedAway) {
  SKIP_THREADS_AFTER_FORK();
  Child child(Fork([] {
    std::thread([&] {
      EXPECT_TRUE(Unshare(CLONE_FS));
      CancelScope scope({.timeout = absl::Hours(1)});
      const std::stop_token token = scope.stop_token();
      while (
          ThreadNamed("tocsin-timer").empty() ||
          !StatusField(ThreadNamed("tocsin-timer"), "State").starts_with('S')) {
        sched_yield();
      }
    }).join();
    while (!ThreadNamed("tocsin-timer").empty()) sched_yield();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// Where a filter refuses what the comparison and the change need.
class RefusedTest
    : public testing::TestWithParam<std::tuple<RefusedCall, int>> {
 protected:
  void SetUp() override {
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
    if (std::get<0>(GetParam()).name == "sched_getaffinity") {
      GTEST_SKIP() << "AddressSanitizer's own threads need it";
    }
#endif
  }

  // In a child with the filter, on a thread that is not the main thread.
  void InChild(std::function<void(ThreadPool&)> body) {
    Child child(Fork([&] {
      ASSERT_TRUE(Refuse(std::get<0>(GetParam()), std::get<1>(GetParam())));
      std::thread([&] {
        const std::unique_ptr<ThreadPool> pool = Pool();
        body(*pool);
      }).join();
    }));
    EXPECT_EQ(ExitStatus(child.Wait()), 0);
  }
};

constexpr RefusedCall kBirthCalls[] = {
    {.name = "kcmp", .number = SYS_kcmp},
    {.name = "sched_getattr", .number = SYS_sched_getattr},
    {.name = "sched_setattr", .number = SYS_sched_setattr},
    {.name = "sched_getaffinity", .number = SYS_sched_getaffinity},
    {.name = "sched_setaffinity", .number = SYS_sched_setaffinity},
    {.name = "ioprio_get", .number = SYS_ioprio_get},
    {.name = "ioprio_set", .number = SYS_ioprio_set},
};

INSTANTIATE_TEST_SUITE_P(Calls, RefusedTest,
                         testing::Combine(testing::ValuesIn(kBirthCalls),
                                          testing::Values(EPERM, ENOSYS)),
                         [](const auto& tested) {
                           return absl::StrCat(
                               std::string(std::get<0>(tested.param).name), "_",
                               std::get<1>(tested.param));
                         });

TEST_P(RefusedTest, AThreadThatIsLikeTheMainThreadMakesWorkers) {
  SKIP_THREADS_AFTER_FORK();
  InChild([](ThreadPool& pool) {
    EXPECT_EQ(OnWorker(pool, State), State());
    EXPECT_TRUE(pool.status().ok()) << pool.status();
  });
}

TEST_P(RefusedTest, OneWithAFolderOfItsOwnMakesNone) {
  SKIP_THREADS_AFTER_FORK();
  InChild([](ThreadPool& pool) {
    EXPECT_TRUE(Unshare(CLONE_FS) && chdir("/proc") == 0);
    EXPECT_EQ(OnWorker(pool, State), "");
    EXPECT_THAT(std::string(pool.status().message()),
                HasSubstr("a working directory"));
  });
}

TEST_P(RefusedTest, OneWhoseSchedulingCannotBeUndoneMakesNone) {
  SKIP_THREADS_AFTER_FORK();
  const std::string_view call = std::get<0>(GetParam()).name;
  bool (*change)() = nullptr;
  if (call == "sched_setattr") change = [] { return Schedule(SCHED_BATCH, 0); };
  if (call == "ioprio_set") change = ChangeIoPriority;
  if (change == nullptr) return;
  // Before the filter: the thread may not do it afterwards either.
  Child child(Fork([&] {
    std::latch changed(1);
    std::latch refused(1);
    std::thread spawns([&] {
      EXPECT_TRUE(change());
      changed.count_down();
      refused.wait();
      const std::unique_ptr<ThreadPool> pool = Pool();
      EXPECT_EQ(OnWorker(*pool, State), "");
      EXPECT_THAT(std::string(pool->status().message()),
                  HasSubstr("a scheduling policy that is not"));
    });
    changed.wait();
    EXPECT_TRUE(Refuse(std::get<0>(GetParam()), std::get<1>(GetParam())));
    refused.count_down();
    spawns.join();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
