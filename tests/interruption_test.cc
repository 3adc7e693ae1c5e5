// Nothing in the library minds being interrupted. Every thread of this process,
// the service's too, gets one signal after another that has nothing to do with
// it, and whose handler lets system calls fail with EINTR.
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tests/watchdog.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/job_control.h"
#include "tocsin/signals/service_manager.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/stop_on_signal.h"

namespace tocsin {
namespace {

// SIGPROF, because the service's thread blocks all others.
class Interruptions {
 public:
  Interruptions() {
    SetDisposition(SIGPROF, [](int) {});
    sigset_t all;
    sigfillset(&all);
    sigset_t before;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::jthread([this](std::stop_token stop) {
      while (!stop.stop_requested()) {
        InterruptAll();
        ++rounds_;
      }
    });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  Interruptions(const Interruptions&) = delete;
  Interruptions& operator=(const Interruptions&) = delete;
  ~Interruptions() {
    thread_.request_stop();
    thread_.join();
    SetDisposition(SIGPROF, SIG_IGN);
  }

  // Waits until every thread has been interrupted so many times more.
  void Await(int rounds) const {
    const int until = rounds_ + rounds;
    while (rounds_ < until) sched_yield();
  }

 private:
  static void InterruptAll() {
    const pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
    for (const std::string& task : Threads()) {
      const pid_t thread = std::stoi(task.substr(task.rfind('/') + 1));
      if (thread != self) syscall(SYS_tgkill, getpid(), thread, SIGPROF);
    }
  }

  std::atomic<int> rounds_ = 0;
  std::jthread thread_;
};

class Interrupted : public ::testing::Test {
 protected:
  // The interruptions work as long as the test does.
  Interrupted() { AllowLongRun(4); }

  const Interruptions interruptions_;
};

#define EXPECT_OK(expression)                      \
  do {                                             \
    const absl::Status status_here = (expression); \
    EXPECT_TRUE(status_here.ok()) << status_here;  \
  } while (false)

TEST_F(Interrupted, OtherCodeIs) {
  pollfd nothing{.fd = -1, .events = 0, .revents = 0};
  EXPECT_EQ(poll(&nothing, 1, -1), -1);
  EXPECT_EQ(errno, EINTR);
}

TEST_F(Interrupted, ReceiversGetEverySignalOnce) {
  constexpr int kSignals = 5000;
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGRTMIN}, {.capacity = kSignals});
  std::jthread sender([] {
    for (int i = 0; i < kSignals; ++i) QueueSelf(SIGRTMIN, i);
  });
  std::vector<int> received(kSignals);
  for (int i = 0; i < kSignals; ++i) {
    const absl::StatusOr<SignalEvent> event =
        i % 2 == 0 ? receiver.Receive() : receiver.ReceiveFor(absl::Hours(1));
    ASSERT_TRUE(event.ok()) << event.status();
    ++received[event->value->sival_int];
  }
  EXPECT_EQ(received, std::vector<int>(kSignals, 1));
  EXPECT_EQ(receiver.ReceiveFor(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(Interrupted, ServicesAndReceiversComeAndGo) {
  for (int i = 0; i < 100; ++i) {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGPROF});
    SendSelf(SIGUSR1);
    while (Next(receiver).signum != SIGUSR1) {
    }
    receiver.Close();
  }
}

TEST_F(Interrupted, WhatListensForASignalHearsIt) {
  auto pool = *ThreadPool::Create({.threads = 2});
  for (int i = 0; i < 100; ++i) {
    auto service = StartService();
    TaskGroup group({.pool = pool.get()});
    auto stop = StopOnSignal::Start(*service, {SIGUSR1}).value();
    auto shutdown =
        Shutdown::Start(*service, group, {.signals = {SIGUSR2}}).value();
    auto job_control = JobControl::Start(*service, {}).value();
    CancelScope scope(stop->stop_token());
    SendSelf(SIGUSR1);
    EXPECT_TRUE(absl::IsCancelled(Event().Wait()));
    SendSelf(SIGUSR2);
    group.Spawn([] { Event().Wait().IgnoreError(); });
    EXPECT_OK(group.Wait());
    EXPECT_EQ(shutdown->cause()->signum, SIGUSR2);
  }
}

TEST_F(Interrupted, QueuesPassEveryItemOnce) {
  constexpr int kItems = 20'000;
  BlockingQueue<int> queue(4);
  std::vector<int> popped(kItems);
  {
    auto pool = *ThreadPool::Create({.threads = 2});
    TaskGroup group({.pool = pool.get()});
    for (int first : {0, 1}) {
      group.Spawn([&, first]() -> absl::Status {
        for (int i = first; i < kItems; i += 2) {
          if (absl::Status status = queue.Push(i); !status.ok()) return status;
        }
        return absl::OkStatus();
      });
    }
    for (int i = 0; i < kItems; ++i) {
      const absl::StatusOr<int> item = queue.Pop();
      ASSERT_TRUE(item.ok()) << item.status();
      ++popped[*item];
    }
    EXPECT_OK(group.Wait());
  }
  EXPECT_EQ(popped, std::vector<int>(kItems, 1));
}

TEST_F(Interrupted, GroupsRunEveryTaskOnce) {
  constexpr int kTasks = 20'000;
  std::vector<std::atomic<int>> ran(kTasks);
  auto pool = *ThreadPool::Create({.threads = 2});
  TaskGroup group({.pool = pool.get()});
  Event over;
  group.SpawnBackground([&] { EXPECT_TRUE(absl::IsCancelled(over.Wait())); });
  for (int i = 0; i < kTasks; ++i) {
    group.Spawn([&, i] { ran[i].fetch_add(1); });
    if (i % 100 != 0) continue;
    EXPECT_EQ(*group.SpawnWithResult([i] { return i; }).Take(), i);
    EXPECT_EQ(*group.Start<int>(
                  [i](const Started<int>& started) { return started(i); }),
              i);
  }
  EXPECT_OK(group.Wait());
  for (const std::atomic<int>& times : ran) ASSERT_EQ(times, 1);
}

TEST_F(Interrupted, WaitsEndWhenTheyShould) {
  for (int i = 0; i < 50; ++i) {
    const absl::Time until = absl::Now() + absl::Milliseconds(1);
    EXPECT_OK(SleepUntil(until));
    EXPECT_GE(absl::Now(), until);

    Event event;
    Semaphore semaphore(1);
    std::optional<Semaphore::Permit> permit = semaphore.TryAcquire();
    ASSERT_TRUE(permit.has_value());
    absl::Mutex mutex;
    bool ready = false;
    Pipe pipe;
    std::jthread other([&] {
      event.Set();
      permit.reset();
      mutex.Lock();
      ready = true;
      mutex.Unlock();
      pipe.Put();
    });
    CancelScope scope;
    EXPECT_OK(event.Wait());
    EXPECT_OK(semaphore.Acquire().status());
    mutex.Lock();
    EXPECT_OK(Await(mutex, absl::Condition(&ready)));
    mutex.Unlock();
    const absl::StatusOr<short> readable = PollFd(pipe.reader(), POLLIN);
    ASSERT_TRUE(readable.ok()) << readable.status();
    EXPECT_EQ(*readable, POLLIN);
  }
}

TEST_F(Interrupted, ADeadlineRequestsItsStopToken) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(5)});
  std::latch requested(1);
  std::stop_callback count(scope.stop_token(), [&] { requested.count_down(); });
  requested.wait();
  EXPECT_TRUE(scope.cancelled());
}

ExitStatus WaitFor(ChildProcess& child) {
  absl::StatusOr<ExitStatus> end = child.Wait();
  if (!end.ok()) ADD_FAILURE() << end.status();
  return end.value_or(ExitStatus{});
}

ssize_t TakeByte(int fd, char& byte) {
  ssize_t size;
  do {
    size = read(fd, &byte, 1);
  } while (size < 0 && errno == EINTR);
  return size;
}

bool HasChildren() { return waitpid(-1, nullptr, WNOHANG) >= 0; }

TEST_F(Interrupted, ChildrenAreStartedReadEndedAndReaped) {
  for (int i = 0; i < 30; ++i) {
    auto echo = ChildProcess::Spawn({"echo"}, {.output = ChildStream::Pipe()});
    ASSERT_TRUE(echo.ok()) << echo.status();
    const absl::StatusOr<short> readable = PollFd(echo->stdout_pipe(), POLLIN);
    EXPECT_TRUE(readable.ok()) << readable.status();
    EXPECT_EQ(WaitFor(*echo), (ExitStatus{.code = 0}));

    auto cat = ChildProcess::Spawn({"cat"}, {.input = ChildStream::Pipe()});
    ASSERT_TRUE(cat.ok()) << cat.status();
    EXPECT_OK(cat->Terminate(absl::Hours(1)));
    EXPECT_EQ(WaitFor(*cat), (ExitStatus{.signum = SIGTERM}));
    auto killed = ChildProcess::Spawn({"cat"}, {.input = ChildStream::Pipe()});
    EXPECT_TRUE(killed.ok()) << killed.status();
  }
  EXPECT_FALSE(HasChildren());
}

TEST_F(Interrupted, AChildHasItsGraceAndAllOfIt) {
  auto child = ChildProcess::Spawn(
      {"sh", "-c",
       "trap 'echo; read go; exit 3' TERM; echo; while :; do read x; done"},
      {.input = ChildStream::Pipe(), .output = ChildStream::Pipe()});
  ASSERT_TRUE(child.ok()) << child.status();
  char line;
  ASSERT_EQ(TakeByte(child->stdout_pipe(), line), 1);
  std::jthread other([&] {
    EXPECT_EQ(TakeByte(child->stdout_pipe(), line), 1);  // in the trap
    interruptions_.Await(100);
    EXPECT_EQ(write(child->stdin_pipe(), "\n", 1), 1);
  });
  EXPECT_OK(child->Terminate(absl::Hours(1)));
  other.join();
  EXPECT_EQ(WaitFor(*child), (ExitStatus{.code = 3}));
}

TEST_F(Interrupted, WhatCannotBeStartedLeavesNoChild) {
  for (int i = 0; i < 2000; ++i) {
    const auto none = ChildProcess::Spawn({"/nonexistent"});
    ASSERT_TRUE(absl::IsNotFound(none.status())) << none.status();
  }
  EXPECT_FALSE(HasChildren());
}

TEST_F(Interrupted, TheServiceManagerIsTold) {
  const int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  // Only the family: the kernel finds a name, which begins with a NUL.
  ASSERT_EQ(
      bind(manager, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)),
      0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(manager, reinterpret_cast<sockaddr*>(&address), &size),
            0);
  std::string name(address.sun_path, size - sizeof(sa_family_t));
  name[0] = '@';
  setenv("NOTIFY_SOCKET", name.c_str(), 1);
  // More than the socket holds, so that the calls block.
  constexpr int kTimes = 2000;
  std::jthread reader([&] {
    for (int i = 0; i < kTimes;) {
      char message[64];
      if (recv(manager, message, sizeof(message), 0) > 0) ++i;
    }
  });
  for (int i = 0; i < kTimes; ++i) EXPECT_OK(NotifyWatchdog());
  reader.join();
  close(manager);
}

}  // namespace
}  // namespace tocsin
