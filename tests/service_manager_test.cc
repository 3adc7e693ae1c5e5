// Y1: what a service manager gets, on a real socket.
#include "tocsin/signals/service_manager.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;

// Receives what is sent to $NOTIFY_SOCKET, which it sets for as long as it
// lives.
class ServiceManager {
 public:
  explicit ServiceManager(const std::string& name) : name_(name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    size_t size = offsetof(sockaddr_un, sun_path) + name.size();
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    } else {
      ++size;
    }
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(size)),
              0)
        << name << ": " << std::strerror(errno);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;
  ~ServiceManager() {
    close(fd_);
    if (name_[0] == '/') unlink(name_.c_str());
    unsetenv("NOTIFY_SOCKET");
  }

  // The next datagram, which must be there already; "" if it is not.
  std::string Take() { return Receive(MSG_DONTWAIT); }
  // The next datagram, which is waited for.
  std::string Await() { return Receive(0); }

 private:
  std::string Receive(int flags) {
    char datagram[512];
    const ssize_t size = recv(fd_, datagram, sizeof(datagram), flags);
    return std::string(datagram, size > 0 ? static_cast<size_t>(size) : 0);
  }

  const std::string name_;
  const int fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
};

// Not by the process id: sandboxes count those anew, but share the names.
std::string Unique() {
  static const unsigned seed = std::random_device()();
  return std::to_string(seed) + "_" + std::to_string(getpid());
}
std::string AbstractName() {
  return "@tocsin/service_manager_test/" + Unique();
}
// Not in the test's own directory, whose path may be too long for an address.
std::string Path() { return "/tmp/service_manager_test_" + Unique(); }

int64_t MonotonicMicroseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

TEST(ServiceManager, GetsADatagramForEachNotification) {
  for (const std::string& name : {AbstractName(), Path()}) {
    ServiceManager manager(name);
    EXPECT_EQ(NotifyReady(), absl::OkStatus());
    EXPECT_EQ(NotifyWatchdog(), absl::OkStatus());
    EXPECT_EQ(NotifyStopping(), absl::OkStatus());
    EXPECT_EQ(manager.Take(), "READY=1");
    EXPECT_EQ(manager.Take(), "WATCHDOG=1");
    EXPECT_EQ(manager.Take(), "STOPPING=1");
    EXPECT_EQ(manager.Take(), "");
  }
}

TEST(ServiceManager, GetsTheTimeOfAReloadInTheSameDatagram) {
  ServiceManager manager(AbstractName());
  const int64_t before = MonotonicMicroseconds();
  EXPECT_EQ(NotifyReloading(), absl::OkStatus());
  const int64_t after = MonotonicMicroseconds();
  const std::string datagram = manager.Take();
  const std::string start = "RELOADING=1\nMONOTONIC_USEC=";
  ASSERT_EQ(datagram.substr(0, start.size()), start);
  const int64_t time = std::stoll(datagram.substr(start.size()));
  EXPECT_LE(before, time);
  EXPECT_LE(time, after);
  EXPECT_EQ(datagram, start + std::to_string(time));
}

// Once, whichever phase comes first.
TEST(ServiceManager, IsToldByAShutdownThatItBegins) {
  for (const absl::Duration drain : {absl::ZeroDuration(), absl::Hours(1)}) {
    ServiceManager manager(AbstractName());
    FakeSignals signals;
    TaskGroup group;
    {
      auto shutdown =
          Shutdown::Start(signals.service(), group, {.drain = drain}).value();
      ASSERT_TRUE(signals.Send(SIGTERM).ok());
      EXPECT_EQ(manager.Await(), "STOPPING=1");
      if (drain > absl::ZeroDuration()) signals.Advance(drain);
      while (!group.scope().cancelled()) sched_yield();
    }
    EXPECT_EQ(manager.Take(), "");
  }
}

TEST(ServiceManager, IsAskedForTheTimeThatTheShutdownTakes) {
  ServiceManager manager(AbstractName());
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group,
                                  {.drain = absl::Seconds(5),
                                   .grace = absl::Seconds(30),
                                   .extend_timeout = true})
                      .value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  EXPECT_EQ(manager.Await(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=36000000");
}

// Issue 19: a helper told the manager of its parent that the service stops.
TEST(ServiceManager, IsNotToldOfTheStopOfAProcessThatItDidNotStart) {
  ServiceManager manager(AbstractName());
  for (const pid_t started : {getppid(), getpid()}) {
    setenv("SYSTEMD_EXEC_PID", std::to_string(started).c_str(), 1);
    FakeSignals signals;
    TaskGroup group;
    {
      auto shutdown = Shutdown::Start(signals.service(), group).value();
      ASSERT_TRUE(signals.Send(SIGTERM).ok());
      while (!shutdown->drain_token().stop_requested()) sched_yield();
    }
    EXPECT_EQ(manager.Take(), started == getpid() ? "STOPPING=1" : "");
  }
  unsetenv("SYSTEMD_EXEC_PID");
}

TEST(ServiceManager, DoesNotHoldUpAShutdownWithAFullQueue) {
  ServiceManager manager(AbstractName());
  absl::Status status;
  while (status.ok()) status = NotifyStopping();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  FakeSignals signals;
  TaskGroup group;
  auto shutdown = Shutdown::Start(signals.service(), group).value();
  ASSERT_TRUE(signals.Send(SIGTERM).ok());
  while (!group.scope().cancelled()) sched_yield();
}

TEST(ServiceManager, IsNotMissedWhereThereIsNone) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_EQ(NotifyReady(), absl::OkStatus());
  setenv("NOTIFY_SOCKET", "", 1);
  EXPECT_EQ(NotifyReloading(), absl::OkStatus());
}

TEST(ServiceManager, MayHaveANameOfTheFullLength) {
  std::string name = AbstractName();
  name.resize(sizeof(sockaddr_un::sun_path) - 1, 'x');
  ServiceManager manager(name);
  EXPECT_EQ(NotifyReady(), absl::OkStatus());
  EXPECT_EQ(manager.Take(), "READY=1");

  setenv("NOTIFY_SOCKET", (name + "x").c_str(), 1);
  const absl::Status status = NotifyReady();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("108 bytes long"));
}

TEST(ServiceManager, IsNotLookedForUnderAMalformedName) {
  for (const char* name : {"run/notify", "@", "/", "vsock:2:1234"}) {
    setenv("NOTIFY_SOCKET", name, 1);
    const absl::Status status = NotifyReady();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
  unsetenv("NOTIFY_SOCKET");
}

TEST(ServiceManager, IsReportedIfItCannotBeReached) {
  setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
  const absl::Status status = NotifyReady();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "sendto for NOTIFY_SOCKET \"/no/such/socket\": No such file or "
            "directory");
  setenv("NOTIFY_SOCKET", AbstractName().c_str(), 1);
  EXPECT_EQ(NotifyReady().code(), absl::StatusCode::kUnavailable);
  unsetenv("NOTIFY_SOCKET");
}

TEST(ServiceManager, CostsNoDescriptor) {
  ServiceManager manager(AbstractName());
  const int before = dup(0);
  close(before);
  EXPECT_EQ(NotifyReady(), absl::OkStatus());
  setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
  EXPECT_FALSE(NotifyReady().ok());
  const int after = dup(0);
  close(after);
  EXPECT_EQ(before, after);
}

TEST(ServiceManager, IsNotReachedWithoutADescriptor) {
  auto notify = [] {
    setenv("NOTIFY_SOCKET", AbstractName().c_str(), 1);
    const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
    setrlimit(RLIMIT_NOFILE, &limit);
    std::cerr << NotifyReady();
    _exit(0);
  };
  EXPECT_EXIT(notify(), ::testing::ExitedWithCode(0),
              "RESOURCE_EXHAUSTED: socket for NOTIFY_SOCKET: Too many open "
              "files; raise RLIMIT_NOFILE");
}

TEST(ServiceManager, MayHaveAPathOfTheFullLength) {
  std::string name = Path() + "_";
  name.resize(sizeof(sockaddr_un::sun_path) - 1, 'x');
  ServiceManager manager(name);
  EXPECT_EQ(NotifyReady(), absl::OkStatus());
  EXPECT_EQ(manager.Take(), "READY=1");
}

TEST(ServiceManager, MayHaveAShortAbstractName) {
  // There are few such names, so this one may be somebody else's.
  setenv("NOTIFY_SOCKET", "@\x01", 1);
  const absl::Status status = NotifyReady();
  EXPECT_TRUE(status.ok() || absl::IsUnavailable(status)) << status;
  unsetenv("NOTIFY_SOCKET");
}

TEST(ServiceManager, IsWaitedForWhileItsQueueIsFull) {
  for (absl::Status (*notify)() :
       {&NotifyReady, &NotifyReloading, &NotifyWatchdog}) {
    ServiceManager manager(AbstractName());
    while (NotifyStopping().ok()) {
    }
    absl::Status status = absl::UnknownError("not back");
    ScopedThread notifier([&] { status = notify(); });
    notifier.AwaitAsleep();
    while (manager.Take() == "STOPPING=1") {
    }
    notifier.Join();
    EXPECT_EQ(status, absl::OkStatus());
  }
}

}  // namespace
}  // namespace tocsin
