#include "tocsin/signals/run.h"

#include <cxxabi.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "absl/base/config.h"
#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/exception.h"
#include "tocsin/concurrency/internal/status_text.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/signals/internal/die_at_exit.h"
#include "tocsin/signals/internal/heartbeat.h"
#include "tocsin/signals/internal/notify_socket.h"
#include "tocsin/signals/internal/watchdog.h"
#include "tocsin/signals/service_manager.h"

namespace tocsin::inline v0_2 {
namespace {

void Print(const absl::Status& error) {
  std::fprintf(stderr, "%s\n", internal::TextOf(error).c_str());
}

// What pthread_exit(3) throws has no object, to which the reference is bound.
__attribute__((noinline, no_sanitize("undefined"))) absl::Status Call(
    absl::FunctionRef<absl::Status(Program&)> main, Program& program) {
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
#endif
    return main(program);
#ifdef ABSL_HAVE_EXCEPTIONS
  } catch (const abi::__forced_unwind&) {  // pthread_exit(3)
    throw;
  } catch (...) {
    return internal::StatusOfException("the main function");
  }
#endif
}

// Tells the service manager that the pool starts tasks. Its end is not held up
// by a pool that hangs: a task that has not started is dropped, and one that
// has does not block.
class Pings {
 public:
  // Null if the manager asks for none.
  static absl::StatusOr<std::unique_ptr<Pings>> Start() {
    const absl::StatusOr<absl::Duration> period = WatchdogPeriod();
    if (!period.ok()) return period.status();
    if (*period == absl::InfiniteDuration()) return nullptr;
    auto socket = internal::NotifySocket::Open();
    if (!socket.ok()) return socket.status();
    auto pings = absl::WrapUnique(new Pings(*std::move(socket)));
    auto heartbeat = internal::Heartbeat::Start(
        *period / 2, [&pings = *pings] { pings.SendNext(); });
    if (!heartbeat.ok()) return heartbeat.status();
    pings->heartbeat_ = *std::move(heartbeat);
    return pings;
  }

 private:
  // It stays open: a program that has run out of descriptors is alive.
  explicit Pings(std::unique_ptr<internal::NotifySocket> socket)
      : socket_(std::move(socket)) {}

  // One at a time. Without memory the next one is tried.
  void SendNext() {
    if (under_way_.exchange(true)) {
      TOCSIN_STEP("Run: the pool has not sent the last ping");
      return;
    }
#ifdef ABSL_HAVE_EXCEPTIONS
    try {
#endif
      tasks_.Spawn([this] {
        const absl::Cleanup over = [this] { under_way_ = false; };
        // The manager's queue may be full: it has enough to read then.
        socket_->Send("WATCHDOG=1", MSG_DONTWAIT).IgnoreError();
        TOCSIN_STEP("Run: has sent a ping");
      });
#ifdef ABSL_HAVE_EXCEPTIONS
    } catch (const std::bad_alloc&) {
      under_way_ = false;
    }
#endif
  }

  const std::unique_ptr<internal::NotifySocket> socket_;
  std::atomic<bool> under_way_{false};
  // Not in the scope that a signal cancels.
  TaskSet tasks_{{.name = "pings of Run()", .cancel_on_error = false}};
  std::unique_ptr<internal::Heartbeat> heartbeat_;
};

}  // namespace

int Run(absl::FunctionRef<absl::Status(Program&)> main, RunOptions options) {
  absl::StatusOr<std::unique_ptr<internal::Watchdog>> watchdog =
      internal::Watchdog::Start();
  if (!watchdog.ok()) {
    Print(watchdog.status());
    return 1;
  }
  absl::Status status;
  std::optional<int> stopped_by;
  internal::Instant forced_at;
  std::unique_ptr<Pings> pings;
  {
    absl::StatusOr<std::unique_ptr<SignalService>> service =
        SignalService::Start(std::move(options.signals));
    if (!service.ok()) {
      Print(service.status());
      return 1;
    }
    if (options.notify_watchdog) {
      absl::StatusOr<std::unique_ptr<Pings>> started = Pings::Start();
      if (!started.ok()) {
        Print(started.status());
        return 1;
      }
      pings = *std::move(started);
    }
    TaskGroup::Options group_options;
    group_options.name = "main";
    status = RunTaskGroup(
        [&](TaskGroup& group) {
          absl::StatusOr<std::unique_ptr<Shutdown>> shutdown =
              Shutdown::Start(**service, group, options.shutdown);
          if (!shutdown.ok()) return shutdown.status();
          Program program(**service, group, **shutdown);
          absl::Status ended = Call(main, program);
          if (!ended.ok()) group.Cancel(ended);
          // Waits here, where the Shutdown still ends tasks that hang.
          if (absl::Status tasks = group.Wait(); ended.ok()) ended = tasks;
          // From here on the watchdog forces.
          if (auto stop = (*shutdown)->HandOver()) {
            stopped_by = stop->signum;
            forced_at = stop->forced_at;
            (*watchdog)->UseHook(std::move(stop->hook));
            (*watchdog)->Set(*stopped_by, forced_at);
          }
          return ended;
        },
        group_options);
  }
  if (!status.ok()) Print(status);
  if (!stopped_by.has_value()) return status.ok() ? 0 : 1;
  // While the grace bounds it: static destructors flush as well.
  internal::FlushStreams();
  pings.reset();
  if (!options.grace_until_exit) {
    (*watchdog)->Unset();
    (*watchdog)->UseHook(nullptr);
  }
  if (options.after_signal != RunOptions::AfterSignal::kReturn128Plus &&
      getpid() != 1) {
    const bool dumps_core =
        options.after_signal == RunOptions::AfterSignal::kDumpCore;
    internal::DieAtExit(*stopped_by, dumps_core, forced_at,
                        *std::move(watchdog));
  } else if (options.grace_until_exit) {
    (void)watchdog->release();  // Lives until the process ends.
  }
  return 128 + *stopped_by;
}

}  // namespace tocsin::inline v0_2
