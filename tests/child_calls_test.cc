// What ChildProcess makes of what the kernel answers: its calls of some
// functions of the C library come to this program's own, which stand before
// those of the C library and make the system calls.
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tocsin/signals/child_process.h"

namespace tocsin {
namespace {

// What a call is answered with before it is made: an errno, or 0 to make it.
std::function<int(const timespec*)> before_ppoll;
std::function<int(int options)> before_waitid;
std::function<int(idtype_t type)> before_waitid_of;
std::function<int()> before_pipe2;
std::function<void(pid_t, int)> before_kill;
std::function<pid_t(pid_t)> group_of;
// What it is told when it was made.
std::function<void(siginfo_t*)> after_waitid;

}  // namespace
}  // namespace tocsin

extern "C" int ppoll(pollfd* fds, nfds_t count, const timespec* timeout,
                     const sigset_t*) {
  if (tocsin::before_ppoll) {
    errno = tocsin::before_ppoll(timeout);
    if (errno != 0) return -1;
  }
  timespec left{};
  if (timeout != nullptr) left = *timeout;
  return static_cast<int>(syscall(
      SYS_ppoll, fds, count, timeout != nullptr ? &left : nullptr, nullptr, 8));
}

extern "C" int waitid(idtype_t type, id_t id, siginfo_t* info, int options) {
  if (tocsin::before_waitid) {
    errno = tocsin::before_waitid(options);
    if (errno != 0) return -1;
  }
  if (tocsin::before_waitid_of) {
    errno = tocsin::before_waitid_of(type);
    if (errno != 0) return -1;
  }
  const int result =
      static_cast<int>(syscall(SYS_waitid, type, id, info, options, nullptr));
  if (result == 0 && info != nullptr && tocsin::after_waitid) {
    tocsin::after_waitid(info);
  }
  return result;
}

extern "C" int pipe2(int* ends, int flags) noexcept {
  if (tocsin::before_pipe2) {
    errno = tocsin::before_pipe2();
    if (errno != 0) return -1;
  }
  return static_cast<int>(syscall(SYS_pipe2, ends, flags));
}

extern "C" int kill(pid_t pid, int signum) noexcept {
  if (tocsin::before_kill) tocsin::before_kill(pid, signum);
  return static_cast<int>(syscall(SYS_kill, pid, signum));
}

extern "C" pid_t getpgid(pid_t pid) noexcept {
  if (tocsin::group_of) return tocsin::group_of(pid);
  return static_cast<pid_t>(syscall(SYS_getpgid, pid));
}

namespace tocsin {
namespace {

class ChildCalls : public ::testing::Test {
 protected:
  ~ChildCalls() override {
    before_ppoll = nullptr;
    before_waitid = nullptr;
    before_waitid_of = nullptr;
    before_pipe2 = nullptr;
    before_kill = nullptr;
    group_of = nullptr;
    after_waitid = nullptr;
  }

  static ChildProcess SpawnCat(bool own_group = false) {
    auto child = ChildProcess::Spawn(
        {"cat"}, {.input = ChildStream::Pipe(), .own_group = own_group});
    if (!child.ok()) ADD_FAILURE() << child.status();
    return *std::move(child);
  }
};

TEST_F(ChildCalls, SayWhatKindOfErrorEachErrnoIs) {
  const std::pair<int, absl::StatusCode> kinds[] = {
      {ENOENT, absl::StatusCode::kNotFound},
      {ENOTDIR, absl::StatusCode::kNotFound},
      {ESRCH, absl::StatusCode::kNotFound},
      {EACCES, absl::StatusCode::kPermissionDenied},
      {EPERM, absl::StatusCode::kPermissionDenied},
      {EAGAIN, absl::StatusCode::kResourceExhausted},
      {EMFILE, absl::StatusCode::kResourceExhausted},
      {ENFILE, absl::StatusCode::kResourceExhausted},
      {ENOMEM, absl::StatusCode::kResourceExhausted},
      {E2BIG, absl::StatusCode::kInvalidArgument},
      {EBADF, absl::StatusCode::kInvalidArgument},
      {EINVAL, absl::StatusCode::kInvalidArgument},
      {ELOOP, absl::StatusCode::kInvalidArgument},
      {ENAMETOOLONG, absl::StatusCode::kInvalidArgument},
      {ENOEXEC, absl::StatusCode::kInvalidArgument},
      {EIO, absl::StatusCode::kInternal},
  };
  for (const auto& [error, code] : kinds) {
    before_pipe2 = [error = error] { return error; };
    EXPECT_EQ(ChildProcess::Spawn({"true"}, {.input = ChildStream::Pipe()})
                  .status()
                  .code(),
              code)
        << error;
  }
}

// Of the time that has passed the child is given none again.
TEST_F(ChildCalls, AnInterruptionDoesNotRenewTheGrace) {
  using Clock = std::chrono::steady_clock;
  ChildProcess child = SpawnCat();
  std::vector<absl::Duration> given;
  before_ppoll = [&](const timespec* timeout) {
    given.push_back(absl::DurationFromTimespec(*timeout));
    if (given.size() > 1) return 0;
    const auto until = Clock::now() + std::chrono::milliseconds(1);
    while (Clock::now() < until) {
    }
    return EINTR;
  };
  EXPECT_TRUE(child.Terminate(absl::Hours(1)).ok());
  ASSERT_EQ(given.size(), 2u);
  EXPECT_LE(given[0], absl::Hours(1));
  EXPECT_LE(given[1], absl::Hours(1) - absl::Milliseconds(1));
  EXPECT_EQ(*child.Wait(), (ExitStatus{.signum = SIGTERM}));
}

TEST_F(ChildCalls, AnInterruptionLosesNoStatusAndLeavesNoChild) {
  int interruptions = 0;
  before_waitid = [&](int options) {
    if ((options & WNOHANG) != 0 || ++interruptions % 2 == 0) return 0;
    return EINTR;
  };
  ChildProcess child = SpawnCat();
  child.CloseStdin();
  const absl::StatusOr<ExitStatus> end = child.Wait();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(*end, (ExitStatus{.code = 0}));
  EXPECT_FALSE(ChildProcess::Spawn({"/nowhere"}).ok());
  { ChildProcess destroyed = SpawnCat(); }
  before_waitid = nullptr;
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
  EXPECT_GT(interruptions, 4);
}

TEST_F(ChildCalls, TellThatTheChildDumpedItsCore) {
  ChildProcess child = SpawnCat();
  EXPECT_TRUE(child.Send(SIGABRT).ok());
  after_waitid = [](siginfo_t* info) { info->si_code = CLD_DUMPED; };
  EXPECT_EQ(*child.Wait(),
            (ExitStatus{.signum = SIGABRT, .core_dumped = true}));
}

TEST_F(ChildCalls, TellThatTheChildDumpedNoCore) {
  ChildProcess child = SpawnCat();
  EXPECT_TRUE(child.Send(SIGABRT).ok());
  after_waitid = [](siginfo_t* info) { info->si_code = CLD_KILLED; };
  EXPECT_EQ(*child.Wait(), (ExitStatus{.signum = SIGABRT}));
}

// Which has left the group that it was made the leader of.
TEST_F(ChildCalls, EndAChildThatIsInAnotherGroup) {
  ChildProcess child = SpawnCat(/*own_group=*/true);
  group_of = [](pid_t) { return getpgrp(); };
  int groups = 0;
  before_kill = [&](pid_t pid, int) { groups += pid < 0 ? 1 : 0; };
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(groups, 0);
  EXPECT_EQ(*child.Wait(), (ExitStatus{.signum = SIGTERM}));
}

// Which others have waited for.
TEST_F(ChildCalls, SignalNoNumberOnceTheChildIsGone) {
  before_waitid_of = [](idtype_t type) { return type == P_PIDFD ? EINVAL : 0; };
  ChildProcess child = SpawnCat();
  child.CloseStdin();
  ASSERT_EQ(waitpid(child.pid(), nullptr, 0), child.pid());
  int kills = 0;
  before_kill = [&](pid_t, int) { ++kills; };
  EXPECT_TRUE(absl::IsNotFound(child.Send(SIGTERM)));
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(kills, 0);
}

// The kernel has dropped it, because SIGCHLD is ignored, and its number may be
// that of another child of ours.
TEST_F(ChildCalls, SignalNoNumberOnceTheChildIsKnownToBeGone) {
  std::atomic<int> looks = 0;
  before_waitid_of = [&](idtype_t type) {
    if (type == P_PIDFD) return EINVAL;
    ++looks;
    return 0;
  };
  signal(SIGCHLD, SIG_IGN);
  {
    ChildProcess child = SpawnCat();
    while (ThreadNamed("tocsin-child").empty()) sched_yield();
    child.CloseStdin();
    while (!ThreadNamed("tocsin-child").empty()) sched_yield();
    looks = 0;
    EXPECT_TRUE(absl::IsNotFound(child.Send(SIGTERM)));
    EXPECT_EQ(looks, 0) << "for a child of that number";
  }
  signal(SIGCHLD, SIG_DFL);
}

// Whose number the leader of another group has got since.
TEST_F(ChildCalls, SignalNoGroupOnceTheChildIsGone) {
  ChildProcess child = SpawnCat(/*own_group=*/true);
  child.CloseStdin();
  ASSERT_EQ(waitpid(child.pid(), nullptr, 0), child.pid());
  group_of = [](pid_t pid) { return pid; };
  int groups = 0;
  before_kill = [&](pid_t pid, int) { groups += pid < 0 ? 1 : 0; };
  EXPECT_TRUE(child.Terminate(absl::InfiniteDuration()).ok());
  EXPECT_EQ(groups, 0);
}

}  // namespace
}  // namespace tocsin
