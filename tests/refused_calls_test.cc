// What the library does where a filter, as of a container, refuses a system
// call. Each case runs in a process of its own, which has the filter from the
// call of Refuse() on. docs/design.md has the table.
//
// That process is a new program ("threadsafe"), in which ThreadSanitizer allows
// threads.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/refused_call.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/internal/living_child.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/service_manager.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// The beginning of a case, in its process: what fails there is printed where
// EXPECT_EXIT() looks.
void RefuseHere(const RefusedCall& call, int error) {
  dup2(STDERR_FILENO, STDOUT_FILENO);
  ASSERT_TRUE(Refuse(call, error));
}

[[noreturn]] void End() { _exit(testing::Test::HasFailure() ? 1 : 0); }

std::string NameOf(
    const testing::TestParamInfo<std::tuple<RefusedCall, int>>& info) {
  const int error = std::get<1>(info.param);
  return std::string(std::get<0>(info.param).name) + (error == EPERM ? "_EPERM"
                                                      : error == ENOSYS
                                                          ? "_ENOSYS"
                                                          : "_EINVAL");
}

class Refused : public testing::TestWithParam<std::tuple<RefusedCall, int>> {
 protected:
  Refused() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  const RefusedCall& call() const { return std::get<0>(GetParam()); }
  int error() const { return std::get<1>(GetParam()); }
  absl::StatusCode code() const {
    return error() == ENOSYS ? absl::StatusCode::kUnimplemented
                             : absl::StatusCode::kFailedPrecondition;
  }
  void RefuseIt() const { RefuseHere(call(), error()); }
};

class OneRefused : public testing::Test {
 protected:
  OneRefused() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

using Options = ChildProcess::Options;

ChildProcess SpawnCat(Options options = {}) {
  options.input = ChildStream::Pipe();
  options.output = ChildStream::Pipe();
  auto child = ChildProcess::Spawn({"cat"}, options);
  EXPECT_TRUE(child.ok()) << child.status();
  return *std::move(child);
}

bool Echoes(ChildProcess& cat) {
  char byte = '\0';
  return write(cat.stdin_pipe(), "x", 1) == 1 &&
         read(cat.stdout_pipe(), &byte, 1) == 1 && byte == 'x';
}

bool HasChildren() {
  siginfo_t info;
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0;
}

// SignalService --------------------------------------------------------------

using NeededCall = Refused;

TEST_P(NeededCall, IsNamedByStartWhichLeavesNothing) {
  if (kSanitized && call().number == SYS_futex) {
    GTEST_SKIP() << "the sanitizer's own locks need it";
  }
  auto start = [&] {
    // A signal that was pending before is pending after.
    ScopedSignalBlock block({SIGUSR1});
    SendSelf(SIGUSR1);
    const uint64_t caught = StatusMask("self", "SigCgt");
    const uint64_t mask = StatusMask("self", "SigBlk");
    const size_t threads = Threads().size();
    RefuseIt();
    const absl::Status status = SignalService::Start().status();
    if (call().number == SYS_futex) _exit(status.code() == code() ? 0 : 2);
    EXPECT_EQ(status.code(), code()) << status;
    EXPECT_THAT(
        std::string(status.message()),
        HasSubstr(std::string(call().name) + " for the signal service"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("seccomp"));
    EXPECT_EQ(StatusMask("self", "SigCgt"), caught);
    EXPECT_EQ(StatusMask("self", "SigBlk"), mask);
    EXPECT_EQ(StatusMask("self", "ShdPnd"), uint64_t{1} << (SIGUSR1 - 1));
    EXPECT_EQ(Threads().size(), threads);
    SetDisposition(SIGUSR1, SIG_IGN);
    End();
  };
  EXPECT_EXIT(start(), ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(
    Start, NeededCall,
    testing::Combine(
        testing::Values(RefusedCall{.name = "rt_sigqueueinfo",
                                    .number = SYS_rt_sigqueueinfo},
                        RefusedCall{.name = "rt_tgsigqueueinfo",
                                    .number = SYS_rt_tgsigqueueinfo},
                        RefusedCall{.name = "rt_sigtimedwait",
                                    .number = SYS_rt_sigtimedwait},
                        RefusedCall{.name = "tgkill", .number = SYS_tgkill},
                        RefusedCall{.name = "futex", .number = SYS_futex}),
        testing::Values(EPERM, ENOSYS)),
    NameOf);

// A handler of the program never runs for it.
TEST(NeededCalls, SendNoSignal) {
  static volatile sig_atomic_t runs = 0;
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    struct sigaction action {};
    action.sa_handler = [](int) { runs = runs + 1; };
    // With a handler for the doorbell there would be no service.
    if (signum != SIGSTKFLT) sigaction(signum, &action, nullptr);
  }
  StartService();
  EXPECT_EQ(runs, 0);
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    if (signum != SIGSTKFLT) sigaction(signum, &action, nullptr);
  }
}

using OptionalCall = Refused;

// Through the handler, and on a thread that would lead.
TEST_P(OptionalCall, IsNotNeededToReceive) {
  auto receive = [&] {
    RefuseIt();
    auto service = StartService();
    SignalReceiver receiver =
        OpenReceiver(*service, {SIGTERM, SIGUSR1, SIGRTMIN});
    for (int i = 0; i < 3; ++i) {
      SendSelf(SIGTERM);
      EXPECT_EQ(Next(receiver).signum, SIGTERM);
    }
    QueueSelf(SIGRTMIN, 4711);
    EXPECT_EQ(Next(receiver).value->sival_int, 4711);
    ScopedSignalBlock block({SIGTERM, SIGUSR1, SIGRTMIN});
    for (int i = 0; i < 3; ++i) {
      ScopedThread leads([&] { EXPECT_EQ(Next(receiver).signum, SIGUSR1); });
      leads.AwaitAsleep();
      SendSelf(SIGUSR1);
      leads.Join();
    }
    // It is taken also while nobody waits for it.
    const uint64_t before = service->stats().received;
    SendSelf(SIGTERM);
    while (service->stats().received == before) sched_yield();
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
    End();
  };
  EXPECT_EXIT(receive(), ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(
    Receive, OptionalCall,
    testing::Combine(
        testing::Values(
            RefusedCall{.name = "timer_create", .number = SYS_timer_create},
            RefusedCall{.name = "timer_settime", .number = SYS_timer_settime},
            RefusedCall{.name = "getrandom", .number = SYS_getrandom},
            RefusedCall{.name = "eventfd2", .number = SYS_eventfd2},
            RefusedCall{.name = "sched_yield", .number = SYS_sched_yield},
            RefusedCall{.name = "prctl", .number = SYS_prctl}),
        testing::Values(EPERM, ENOSYS)),
    NameOf);

TEST_F(OneRefused, Clone3WithoutEnosysGivesNoThread) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer's thread may need it";
  auto start = [] {
    RefuseHere({.name = "clone3", .number = SYS_clone3}, EPERM);
    std::cerr << SignalService::Start().status();
    _exit(0);
  };
  EXPECT_EXIT(start(), ExitedWithCode(0),
              "RESOURCE_EXHAUSTED: pthread_create for the signal service: "
              "Operation not permitted; .*clone3");
}

TEST_F(OneRefused, Eventfd2IsNamedByWhatNeedsIt) {
  auto use = [] {
    RefuseHere({.name = "eventfd2", .number = SYS_eventfd2}, EPERM);
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    EXPECT_THAT(std::string(receiver.fd().status().message()),
                HasSubstr("eventfd"));
    Pipe pipe;
    CancelScope scope;
    EXPECT_THAT(std::string(PollFd(pipe.reader(), POLLIN).status().message()),
                HasSubstr("eventfd"));
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

TEST_F(OneRefused, PpollIsNamedByPollFd) {
  auto use = [] {
    RefuseHere({.name = "ppoll", .number = SYS_ppoll}, EPERM);
    Pipe pipe;
    EXPECT_THAT(std::string(PollFd(pipe.reader(), POLLIN).status().message()),
                HasSubstr("ppoll"));
    {
      ChildProcess child = SpawnCat();
      EXPECT_THAT(std::string(child.Wait().status().message()),
                  HasSubstr("ppoll"));
      EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
    }
    EXPECT_FALSE(HasChildren());
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

TEST_F(OneRefused, SchedGetaffinityLeavesAPoolOfOne) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer's threads need it";
  auto use = [] {
    RefuseHere({.name = "sched_getaffinity", .number = SYS_sched_getaffinity},
               EPERM);
    std::atomic<bool> ran = false;
    TaskGroup group;
    group.Spawn([&] { ran = true; });
    EXPECT_TRUE(group.Wait().ok());
    EXPECT_TRUE(ran);
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// ChildProcess ---------------------------------------------------------------

// As AwaitNoServiceThread(): a thread that was joined is listed for a moment.
void AwaitNoWatch() {
  while (!ThreadNamed("tocsin-child").empty()) sched_yield();
}

// What a child is used for. Each of its tests runs in child_process_test under
// each of these filters, too. `watched`: there is no pidfd that can be polled.
void UseChildren(bool watched) {
  {
    ChildProcess child = SpawnCat();
    if (watched) {
      while (ThreadNamed("tocsin-child").empty()) sched_yield();
      // No handler runs on it.
      EXPECT_TRUE(
          Contains(StatusMask(ThreadNamed("tocsin-child"), "SigBlk"), SIGTERM));
    }
    EXPECT_TRUE(child.Send(0).ok());
    EXPECT_EQ(child.Send(4096).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::IsDeadlineExceeded(FailAfter(absl::Milliseconds(1), [&] {
                                           return child.Wait();
                                         }).status()));
    absl::Status ended;
    ScopedThread waits([&] { ended = child.Wait().status(); });
    waits.AwaitAsleep();
    waits.scope().Cancel();
    waits.Join();
    EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
    EXPECT_TRUE(Echoes(child));
    ScopedThread too(
        [&] { EXPECT_EQ(*child.Wait(), ExitStatus{.signum = SIGTERM}); });
    too.AwaitAsleep();
    EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
    EXPECT_EQ(*child.Wait(), ExitStatus{.signum = SIGTERM});
    EXPECT_TRUE(absl::IsNotFound(child.Send(SIGTERM)));
  }
  pid_t pid;
  {
    ChildProcess destroyed = SpawnCat({.own_group = true});
    pid = destroyed.pid();
    EXPECT_EQ(getpgid(pid), pid);
  }
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_FALSE(ChildProcess::Spawn({"/nowhere"}).ok());
  EXPECT_FALSE(HasChildren());
  AwaitNoWatch();
}

using PidfdCall = Refused;

TEST_P(PidfdCall, IsNotNeededForChildren) {
  auto use = [&] {
    RefuseIt();
    UseChildren(call().number != SYS_pidfd_send_signal);
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// By a program that spawns first and puts on its filter then.
TEST_P(PidfdCall, IsNotNeededForAChildThatIsThere) {
  auto use = [&] {
    ChildProcess waited = SpawnCat();
    ChildProcess grouped = SpawnCat({.own_group = true});
    ChildProcess terminated = SpawnCat();
    const pid_t pid = [&] {
      ChildProcess destroyed = SpawnCat();
      RefuseIt();
      return destroyed.pid();
    }();
    EXPECT_EQ(kill(pid, 0), -1);
    waited.CloseStdin();
    EXPECT_EQ(*waited.Wait(), ExitStatus{.code = 0});
    for (ChildProcess* child : {&grouped, &terminated}) {
      EXPECT_TRUE(child->Send(0).ok());
      EXPECT_TRUE(child->Terminate(absl::InfiniteDuration()).ok());
      EXPECT_EQ(*child->Wait(), ExitStatus{.signum = SIGTERM});
    }
    EXPECT_FALSE(HasChildren());
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// Whoever ignores SIGCHLD has no number to rely on: what is known to have ended
// is not signalled.
TEST_P(PidfdCall, IsNotNeededWhereTheKernelReaps) {
  auto use = [&] {
    RefuseIt();
    SetDisposition(SIGCHLD, SIG_IGN);
    {
      ChildProcess child = SpawnCat();
      child.CloseStdin();
      EXPECT_EQ(child.Wait().status().code(), absl::StatusCode::kUnknown);
      EXPECT_TRUE(absl::IsNotFound(child.Send(0)));
      EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
    }
    { ChildProcess destroyed = SpawnCat(); }
    EXPECT_FALSE(HasChildren());
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

TEST_P(PidfdCall, IsNotNeededToKillAllThatLive) {
  auto use = [&] {
    RefuseIt();
    {
      ChildProcess alone = SpawnCat();
      ChildProcess grouped = SpawnCat({.own_group = true});
      internal::KillLivingChildren();
      EXPECT_EQ(*alone.Wait(), ExitStatus{.signum = SIGKILL});
      EXPECT_EQ(*grouped.Wait(), ExitStatus{.signum = SIGKILL});
    }
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(ChildProcess, PidfdCall,
                         testing::Combine(testing::ValuesIn(kPidfdCalls),
                                          testing::Values(EPERM, ENOSYS,
                                                          EINVAL)),
                         NameOf);

// As docker's and podman's profiles before 20.10: all that has pidfd in its
// name is unknown to them, and so is clone3().
TEST_F(OneRefused, AProfileFromBeforePidfdsIsEnough) {
  auto use = [] {
    RefuseHere({.name = "clone3", .number = SYS_clone3}, ENOSYS);
    for (const uint32_t number :
         {SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pidfd_getfd,
          SYS_close_range, SYS_openat2, SYS_faccessat2, SYS_epoll_pwait2}) {
      RefuseHere({.name = "", .number = number}, EPERM);
    }
    UseChildren(/*watched=*/false);
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
    SendSelf(SIGTERM);
    EXPECT_EQ(Next(receiver).signum, SIGTERM);
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// As gVisor and qemu-user of some years ago: none of the three.
TEST_F(OneRefused, ASystemWithoutPidfdsIsEnough) {
  auto use = [] {
    RefuseHere(kPidfdCalls[0], EINVAL);
    RefuseHere(kPidfdCalls[1], ENOSYS);
    RefuseHere(kPidfdCalls[2], EINVAL);
    UseChildren(/*watched=*/true);
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

TEST_F(OneRefused, KillLeavesThePidfd) {
  auto use = [] {
    RefuseHere({.name = "kill", .number = SYS_kill}, EPERM);
    for (const bool own_group : {false, true}) {
      ChildProcess child = SpawnCat({.own_group = own_group});
      EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
      EXPECT_EQ(*child.Wait(), ExitStatus{.signum = SIGTERM});
      { ChildProcess destroyed = SpawnCat({.own_group = own_group}); }
    }
    EXPECT_FALSE(HasChildren());
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// Which does not have the thread that waits for the child's end.
TEST_F(OneRefused, ClonePidfdLeavesAForkedProcessFreeToGo) {
  auto use = [] {
    RefuseHere(kPidfdCalls[0], EPERM);
    {
      ChildProcess child = SpawnCat();
      const pid_t forked = fork();
      if (forked == 0) {
        { ChildProcess destroyed = std::move(child); }
        _exit(0);
      }
      int status = -1;
      EXPECT_EQ(waitpid(forked, &status, 0), forked);
      EXPECT_EQ(status, 0);
      EXPECT_TRUE(Echoes(child));
    }
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

using CallOfSpawn = Refused;

TEST_P(CallOfSpawn, IsNamedWhereThereIsNoChildWithoutIt) {
  auto spawn = [&] {
    const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(next);
    RefuseIt();
    const absl::Status status =
        ChildProcess::Spawn(
            {"true"},
            {.own_group = true, .dies_with_parent = call().number == SYS_prctl})
            .status();
    EXPECT_EQ(status.code(), code()) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string(call().name) + " for "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("seccomp"));
    EXPECT_FALSE(HasChildren());
    AwaitNoWatch();
    EXPECT_EQ(open("/dev/null", O_RDONLY | O_CLOEXEC), next);
    End();
  };
  EXPECT_EXIT(spawn(), ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(
    ChildProcess, CallOfSpawn,
    testing::Combine(
        testing::Values(RefusedCall{.name = "clone", .number = SYS_clone},
                        RefusedCall{.name = "waitid", .number = SYS_waitid},
                        RefusedCall{.name = "setpgid", .number = SYS_setpgid},
                        RefusedCall{.name = "prctl",
                                    .number = SYS_prctl,
                                    .first = PR_SET_PDEATHSIG}),
        testing::Values(EPERM, ENOSYS, EINVAL)),
    NameOf);

// There the child has all of its grace, too.
TEST_F(OneRefused, PidfdSendSignalLeavesAChildItsGrace) {
  auto use = [] {
    RefuseHere(kPidfdCalls[1], EPERM);
    auto child = ChildProcess::Spawn(
        {"sh", "-c", "trap '' TERM; echo; exec cat"},
        {.input = ChildStream::Pipe(), .output = ChildStream::Pipe()});
    ASSERT_TRUE(child.ok());
    char line;
    EXPECT_EQ(read(child->stdout_pipe(), &line, 1), 1);
    EXPECT_TRUE(child->Terminate(absl::Milliseconds(1)).ok());
    EXPECT_EQ(*child->Wait(), ExitStatus{.signum = SIGKILL});
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

// Service manager ------------------------------------------------------------

TEST_F(OneRefused, SocketIsNamedByNotifyReady) {
  auto use = [] {
    setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
    RefuseHere({.name = "socket", .number = SYS_socket}, EPERM);
    EXPECT_THAT(std::string(NotifyReady().message()), HasSubstr("socket"));
    End();
  };
  EXPECT_EXIT(use(), ExitedWithCode(0), "");
}

}  // namespace
}  // namespace tocsin
