// What Run() tells the watchdog of a service manager while the pool or the
// manager hangs.
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <latch>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/service_manager.h"
#include "tests/steps.h"
#include "tocsin/concurrency/internal/available_cpus.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/service_manager.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;

constexpr char kHasPinged[] = "Run: has sent a ping";
constexpr char kCannotPing[] = "Run: the pool has not sent the last ping";

void AwaitStep(const char* step) {
  AtStep at(step, [] {});
  while (!at.passed()) sched_yield();
}

// Returns once no worker of the pool is left for other tasks. There must be no
// monitor, which would start one.
void HangUntil(std::latch& release, TaskSet& tasks) {
  const int workers = internal::AvailableCpus();
  std::latch hanging(workers);
  for (int i = 0; i < workers; ++i) {
    tasks.Spawn([&] {
      hanging.count_down();
      release.wait();
    });
  }
  hanging.wait();
}

[[noreturn]] void RunAndExit(
    const std::function<absl::Status(Program&)>& main) {
  setenv("WATCHDOG_USEC", "2000", 1);
  _exit(Run(main, {.notify_watchdog = true}));
}

TEST(PingRacesDeathTest, NoneIsSentWhileAllWorkersHang) {
  EXPECT_EXIT(
      {
        ServiceManager manager(AbstractName());
        HeldAt monitor("PoolMonitor: looks");
        RunAndExit([&](Program&) {
          manager.AwaitPing();
          std::latch release(1);
          TaskSet others;  // ends before what its tasks wait for
          HangUntil(release, others);
          while (!manager.Take().empty()) {
          }
          for (int i = 0; i < 3; ++i) AwaitStep(kCannotPing);
          std::cerr << "came: " << manager.Take();
          release.count_down();
          manager.AwaitPing();
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^came: $");
}

TEST(PingRacesDeathTest, APoolThatHangsDoesNotHoldUpTheEnd) {
  EXPECT_EXIT(
      {
        ServiceManager manager(AbstractName());
        HeldAt monitor("PoolMonitor: looks");
        TaskSet others;
        std::latch release(1);
        RunAndExit([&](Program&) {
          HangUntil(release, others);
          AwaitStep(kCannotPing);
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^$");
}

TEST(PingRacesDeathTest, AManagerThatDoesNotReadHoldsUpNoTask) {
  EXPECT_EXIT(
      {
        ServiceManager manager(AbstractName());
        while (NotifyStopping().ok()) {
        }
        RunAndExit([&](Program&) {
          for (int i = 0; i < 3; ++i) AwaitStep(kHasPinged);
          return absl::OkStatus();
        });
      },
      ExitedWithCode(0), "^$");
}

}  // namespace
}  // namespace tocsin
