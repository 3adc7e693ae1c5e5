// Y1: what a service manager gets, on a real socket.
#include "tocsin/signals/service_manager.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/service_manager.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/testing/fake_signals.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;

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
  EXPECT_EXIT(notify(), ExitedWithCode(0),
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

// An environment variable, for as long as it lives.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { unsetenv(name_); }

 private:
  const char* const name_;
};

TEST(WatchdogPeriod, IsWhatTheManagerSaysToThisProcess) {
  ServiceManager manager(AbstractName());
  EXPECT_EQ(WatchdogPeriod().value(), absl::InfiniteDuration());
  Variable period("WATCHDOG_USEC", "1500000");
  EXPECT_EQ(WatchdogPeriod().value(), absl::Milliseconds(1500));
  {
    Variable process("WATCHDOG_PID", std::to_string(getpid()));
    EXPECT_EQ(WatchdogPeriod().value(), absl::Milliseconds(1500));
  }
  {
    Variable process("WATCHDOG_PID", std::to_string(getppid()));
    EXPECT_EQ(WatchdogPeriod().value(), absl::InfiniteDuration());
  }
  Variable process("WATCHDOG_PID", "");
  EXPECT_EQ(WatchdogPeriod().value(), absl::Milliseconds(1500));
  Variable no_period("WATCHDOG_USEC", "");
  EXPECT_EQ(WatchdogPeriod().value(), absl::InfiniteDuration());
}

TEST(WatchdogPeriod, IsNoneWithoutAManager) {
  Variable period("WATCHDOG_USEC", "soon");
  EXPECT_EQ(WatchdogPeriod().value(), absl::InfiniteDuration());
}

TEST(WatchdogPeriod, IsRefusedIfItIsMalformed) {
  ServiceManager manager(AbstractName());
  for (const std::string value :
       {"0", "-1", "+1", " 1", "1s", "0x1", "9223372036854775808"}) {
    Variable period("WATCHDOG_USEC", value);
    EXPECT_EQ(WatchdogPeriod().status(),
              absl::InvalidArgumentError(
                  "WATCHDOG_USEC is \"" + value +
                  "\"; it must be a number of microseconds, at least 1"));
  }
  Variable period("WATCHDOG_USEC", "9223372036854775807");
  EXPECT_TRUE(WatchdogPeriod().ok());
  for (const std::string value : {"0", "-1", "init", "2147483648"}) {
    Variable process("WATCHDOG_PID", value);
    EXPECT_EQ(WatchdogPeriod().status(),
              absl::InvalidArgumentError("WATCHDOG_PID is \"" + value +
                                         "\"; it must be the number of a "
                                         "process"));
  }
}

// A process with a manager whose watchdog has a period of so many microseconds,
// and which calls Run().
class Service {
 public:
  explicit Service(const std::string& period)
      : period_("WATCHDOG_USEC", period) {}

  [[noreturn]] void RunAndExit(
      const std::function<absl::Status(Program&)>& main,
      ShutdownPolicy shutdown = {}) {
    std::exit(
        Run(main, {.shutdown = std::move(shutdown), .notify_watchdog = true}));
  }

  ServiceManager& manager() { return manager_; }

 private:
  ServiceManager manager_{AbstractName()};
  const Variable period_;
};

TEST(NotifyWatchdogDeathTest, RunPingsWhileTheProgramRuns) {
  EXPECT_EXIT(
      {
        Service service("2000");
        service.RunAndExit([&](Program&) {
          service.manager().AwaitPing();
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^$");
}

TEST(NotifyWatchdogDeathTest, RunPingsWhileTheProgramDrains) {
  EXPECT_EXIT(
      {
        Service service("2000");
        service.RunAndExit(
            [&](Program& program) {
              SendSelf(SIGTERM);
              while (service.manager().Await() != "STOPPING=1") {
              }
              service.manager().AwaitPing();
              EXPECT_EQ(program.shutdown().phase(), Shutdown::Phase::kDraining);
              return absl::OkStatus();
            },
            {.drain = absl::Hours(1)});
      },
      KilledBySignal(SIGTERM), "^$");
}

TEST(NotifyWatchdogDeathTest, RunPingsWhileTheProgramStops) {
  EXPECT_EXIT(
      {
        Service service("2000");
        service.RunAndExit([&](Program& program) {
          program.tasks().Spawn([&] {
            absl::Status status = Event().Wait();
            service.manager().AwaitPing();
            return status;
          });
          SendSelf(SIGTERM);
          absl::Status status = Event().Wait();
          service.manager().AwaitPing();
          return status;
        });
      },
      KilledBySignal(SIGTERM), "^$");
}

// A stream whose flush waits for a ping.
FILE* FlushedByAPing(ServiceManager& manager) {
  cookie_io_functions_t functions{};
  functions.write = [](void* cookie, const char*, size_t size) {
    static_cast<ServiceManager*>(cookie)->AwaitPing();
    return static_cast<ssize_t>(size);
  };
  return fopencookie(&manager, "w", functions);
}

// The flush is the last that Run() does.
TEST(NotifyWatchdogDeathTest, RunPingsToItsEnd) {
  EXPECT_EXIT(
      {
        Service service("2000");
        FILE* const file = FlushedByAPing(service.manager());
        service.RunAndExit([&](Program&) {
          std::fputs("x", file);
          SendSelf(SIGTERM);
          return Event().Wait();
        });
      },
      KilledBySignal(SIGTERM), "^$");
}

TEST(NotifyWatchdogDeathTest, RunDoesNotWaitForTheNextPing) {
  EXPECT_EXIT(
      {
        Service service("3600000000");
        service.RunAndExit([&](Program&) {
          EXPECT_EQ(service.manager().Await(), "WATCHDOG=1");
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^$");
}

// The pings start them.
TEST(NotifyWatchdogDeathTest, TheThreadsOfThePoolHaveTheMaskOfTheProgram) {
  EXPECT_EXIT(
      {
        Service service("2000");
        service.RunAndExit([&](Program&) {
          service.manager().AwaitPing();
          for (const std::string& thread : Threads()) {
            if (StatusField(thread, "Name") != "tocsin-1") continue;
            // While it starts a thread the C library blocks all of them.
            while (StatusMask(thread, "SigBlk") != 0) sched_yield();
            std::cerr << "blocks none";
          }
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^blocks none$");
}

TEST(NotifyWatchdogDeathTest, RunStartsNothingIfTheManagerAsksAnotherProcess) {
  EXPECT_EXIT(
      {
        size_t threads = 0;
        tocsin::Run([&](Program&) {
          threads = Threads().size();
          return absl::OkStatus();
        });
        Service service("2000");
        Variable process("WATCHDOG_PID", std::to_string(getppid()));
        service.RunAndExit([&](Program&) {
          // Those of the first one are listed for a moment yet.
          while (Threads().size() != threads) sched_yield();
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^$");
}

TEST(NotifyWatchdogDeathTest, RunRefusesAMalformedPeriodAndCallsNothing) {
  EXPECT_EXIT(Service("soon").RunAndExit(
                  [](Program&) -> absl::Status { std::abort(); }),
              ExitedWithCode(1),
              "^INVALID_ARGUMENT: WATCHDOG_USEC is \"soon\"; it must be a "
              "number of microseconds, at least 1\n$");
}

}  // namespace
}  // namespace tocsin
