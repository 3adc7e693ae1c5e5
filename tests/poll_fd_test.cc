#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

// Asked before each call of the library's, if there is one.
static std::function<void()> before_poll;

// Stands before that of the C library.
extern "C" int ppoll(pollfd* fds, nfds_t count, const timespec* timeout,
                     const sigset_t* mask) {
  if (before_poll != nullptr) before_poll();
  timespec left{};  // the kernel writes to it
  if (timeout != nullptr) left = *timeout;
  return static_cast<int>(syscall(SYS_ppoll, fds, count,
                                  timeout != nullptr ? &left : nullptr, mask,
                                  _NSIG / 8));
}

namespace tocsin {
namespace {

using ::testing::HasSubstr;

class PollFdTest : public ::testing::Test {
 protected:
  PollFdTest() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_), 0); }
  ~PollFdTest() override {
    for (int fd : ends_) {
      if (fd >= 0) close(fd);
    }
  }
  void WriteToPeer() { ASSERT_EQ(write(ends_[1], "x", 1), 1); }
  void ClosePeer() {
    close(ends_[1]);
    ends_[1] = -1;
  }
  int fd() const { return ends_[0]; }

 private:
  int ends_[2] = {-1, -1};
};

int OpenDescriptors() {
  return static_cast<int>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

TEST_F(PollFdTest, TellsWhatIsReady) {
  EXPECT_EQ(PollFd(fd(), POLLIN | POLLOUT).value(), POLLOUT);
  WriteToPeer();
  EXPECT_EQ(PollFd(fd(), POLLIN | POLLOUT).value(), POLLIN | POLLOUT);
  ClosePeer();
  EXPECT_NE(PollFd(fd(), 0).value() & POLLHUP, 0);
}

TEST_F(PollFdTest, WaitsForTheEvent) {
  absl::StatusOr<short> events;
  ScopedThread poller([&] { events = PollFd(fd(), POLLIN); });
  poller.AwaitAsleep();
  WriteToPeer();
  poller.Join();
  EXPECT_EQ(events.value(), POLLIN);
}

TEST_F(PollFdTest, WaitsOutsideOfAnyScopeToo) {
  std::thread writer([&] { WriteToPeer(); });
  EXPECT_EQ(PollFd(fd(), POLLIN).value(), POLLIN);
  writer.join();
}

TEST_F(PollFdTest, CancelEndsIt) {
  absl::StatusOr<short> events;
  ScopedThread poller([&] { events = PollFd(fd(), POLLIN); });
  poller.AwaitAsleep();
  poller.scope().Cancel(absl::CancelledError("enough"));
  poller.Join();
  EXPECT_THAT(events.status(), Says(absl::CancelledError("enough")));
}

TEST_F(PollFdTest, FailsInACancelledScopeThoughTheDescriptorIsReady) {
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(PollFd(fd(), POLLOUT).status()));
}

TEST_F(PollFdTest, ADeadlineEndsIt) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(PollFd(fd(), POLLIN).status()));
}

TEST_F(PollFdTest, ADeadlineMovedNearerEndsIt) {
  absl::StatusOr<short> events;
  ScopedThread poller([&] { events = PollFd(fd(), POLLIN); });
  poller.AwaitAsleep();
  poller.scope().set_deadline(absl::Now());
  poller.Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(events.status()));
}

// Woken for nothing, it falls asleep again.
TEST_F(PollFdTest, ADeadlineThatIsMovedAwayLetsItWaitOn) {
  std::atomic<int> calls{0};
  before_poll = [&] {
    if (++calls == 100) WriteToPeer();  // out of patience
  };
  absl::StatusOr<short> events;
  ScopedThread poller([&] { events = PollFd(fd(), POLLIN); });
  poller.AwaitAsleep();
  const int before = calls;
  poller.scope().set_deadline(absl::Now() + absl::Hours(1));
  while (calls == before) std::this_thread::yield();
  poller.AwaitAsleep();
  poller.scope().Cancel();
  poller.Join();
  before_poll = nullptr;
  EXPECT_LT(calls, 100);
  EXPECT_TRUE(absl::IsCancelled(events.status()));
}

TEST_F(PollFdTest, WhatItOpensIsNotLeftToAProgramThatIsRun) {
  CancelScope scope;
  int calls = 0;
  int opened = 0;
  before_poll = [&] {
    if (++calls != 2) return;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;  // the one that this looks through
      if (read_symlink(entry, gone) != "anon_inode:[eventfd]") continue;
      ++opened;
      const int descriptor = std::stoi(entry.path().filename().string());
      EXPECT_NE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
    }
    WriteToPeer();
  };
  EXPECT_TRUE(PollFd(fd(), POLLIN).ok());
  before_poll = nullptr;
  EXPECT_EQ(opened, 1);
}

TEST_F(PollFdTest, ASignalHandlerDoesNotEndIt) {
  static std::atomic<int> handled;
  handled = 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { ++handled; };
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  absl::StatusOr<short> events;
  std::atomic<pthread_t> id{};
  ScopedThread poller([&] {
    id = pthread_self();
    events = PollFd(fd(), POLLIN);
  });
  poller.AwaitAsleep();
  pthread_kill(id, SIGUSR1);
  while (handled == 0) std::this_thread::yield();
  WriteToPeer();
  poller.Join();
  EXPECT_EQ(events.value(), POLLIN);
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(PollFdTest, NamesADescriptorThatIsNotOpen) {
  const int closed = dup(fd());
  close(closed);
  for (int bad : {-1, closed}) {
    absl::Status status = PollFd(bad, POLLIN).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("poll"), HasSubstr(std::to_string(bad)),
                      HasSubstr("Bad file descriptor")));
  }
}

TEST_F(PollFdTest, SaysSoIfThereIsNoDescriptorToBeWokenBy) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<int> taken;
  rlimit few = before;
  few.rlim_cur = 64;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  for (int next; (next = dup(fd())) >= 0;) taken.push_back(next);
  CancelScope scope({.deadline = absl::Now() + absl::Seconds(1)});
  absl::Status status = PollFd(fd(), POLLIN).status();
  EXPECT_TRUE(PollFd(fd(), POLLOUT).ok());
  for (int next : taken) close(next);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("eventfd"), HasSubstr("RLIMIT_NOFILE")));
}

// Where nobody can cancel it, it needs none.
TEST_F(PollFdTest, NeedsNoDescriptorOutsideOfAnyScope) {
#ifdef ABSL_HAVE_ADDRESS_SANITIZER  // which comes with that of undefined
                                    // behavior
  GTEST_SKIP() << "it looks at objects through a pipe of its own";
#endif
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 2;  // those are open, and poll(2) takes no more than that
  std::atomic<int> calls{0};
  before_poll = [&] {
    if (++calls == 2) WriteToPeer();  // it has looked, and will block
  };
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  absl::StatusOr<short> events = PollFd(fd(), POLLIN);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  before_poll = nullptr;
  EXPECT_EQ(events.value_or(0), POLLIN);
}

TEST_F(PollFdTest, CancelRacesWithReadinessAndNoDescriptorIsLeftOpen) {
  const int before = OpenDescriptors();
  for (int i = 0; i < 300; ++i) {
    absl::StatusOr<short> events;
    ScopedThread poller([&] { events = PollFd(fd(), POLLIN); });
    std::thread writer([&] { WriteToPeer(); });
    poller.scope().Cancel();
    poller.Join();
    writer.join();
    EXPECT_TRUE(absl::IsCancelled(events.status()) ||
                (events.ok() && *events == POLLIN))
        << events.status();
    char byte;
    ASSERT_EQ(read(fd(), &byte, 1), 1);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace tocsin
