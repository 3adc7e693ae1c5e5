// Ends a program as operators expect: by a signal, in phases, in bounded time.
//
//   TaskGroup group;
//   absl::StatusOr<std::unique_ptr<Shutdown>> shutdown =
//       Shutdown::Start(service, group, {.drain = absl::Seconds(5)});
//   if (!shutdown.ok()) return shutdown.status();
//   group.Spawn([&] { Serve((*shutdown)->drain_token()); });
//   return group.Wait();
//
// The phases, each entered once and in this order:
//   running    until the first signal;
//   draining   for ShutdownPolicy::drain: drain_token() is requested, and the
//              program tells its clients to go elsewhere while it still serves;
//   stopping   the scope of the tasks is cancelled, with the signal as reason,
//              and the program has ShutdownPolicy::grace to clean up;
//   forced     the grace is over, or a second signal forces the end (see
//              SecondSignal): the living children made by ChildProcess are
//              killed, what has not ended is written to stderr, and the
//              process dies by the first signal.
//
// The first signal also tells the service manager, if there is one, as
// NotifyStopping() does.
//
// Run() does all of this for a main function; few programs use this class
// directly.
//
// What has not ended is told as a tree: each task with what it waits for in the
// library, and since when; the tasks of a group are below what waits for it.
//
//   tocsin: stopping since SIGTERM from pid 1 (uid 0) at ... and the grace of
//   10s is over. What has not ended:
//   tocsin:   main waits in Wait() for 10s, for group "main" (thread 4711)
//   tocsin:     connection 1 waits in PollFd() for 42.7s (thread 4713)
//   tocsin:     index waits in Wait() for 11.2s, for group "files" (thread 14)
//   tocsin:       file 7 runs (thread 15)
//   tocsin:       file 8 has not begun
//
// `runs` is also what hangs outside of the library; a BlockingRegion around a
// call shows which. A thread that has used no pool is not known.
//
// The last phase runs on the service's thread. It takes no memory, and no lock
// that another thread can hold: it is reached even if every worker, main() and
// a stop callback hang. What it reports is put together on another thread; if
// that hangs, the process dies a quarter of a second later without it. Nothing
// is written if descriptor 2 was not open when the process started, or is not
// what it was when the Shutdown was made: a file with data may have its number.
// Callbacks of drain_token() and those of the scope run on two threads of the
// shutdown's own: those of the drain do not hold up the stop, and run beside it
// where there is no drain.
//
// All members may be called from any thread. The service and the tasks
// must outlive it.
#ifndef TOCSIN_SIGNALS_SHUTDOWN_H_
#define TOCSIN_SIGNALS_SHUTDOWN_H_

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {

namespace internal {
class LastHook;
}  // namespace internal

// What a second of the policy's signals does. Programs send signals twice by
// routine: timeout(1) to its child and then to its group, a supervisor to all
// processes that it knows of, a terminal to a parent that passes them on. Only
// a person at a terminal means the second one.
enum class SecondSignal {
  // A SIGINT ends the drain, or forces the end, if it comes 250 ms or more
  // after draining or stopping began. No other signal does anything.
  kInterruptForces,
  // Any forces the end at once; but the first one again while draining, unless
  // it is SIGINT, does nothing.
  kAnyForces,
  // Only the end of the grace forces the end.
  kIgnore,
};

// What a write to a pipe or socket that nobody reads does, in a program that
// has set no disposition for SIGPIPE. At Ctrl+C in `program | tee log` tee is
// gone first, and the clean-up's first line of output would kill the program.
// Children made by ChildProcess are killed as ever.
enum class BrokenPipe {
  kKills,
  kFailsWhileStopping,  // with EPIPE, once draining or stopping has begun
  kFails,               // as long as the Shutdown exists
};

struct ShutdownPolicy {
  // If empty, the Shutdown receives no signal and stays in kRunning.
  SignalSet signals = SignalSet::Termination();
  // Whether those of them that are ignored in Start() stay so: a shell's
  // background jobs and nohup(1) start programs that way.
  bool honor_ignored = true;
  // How long the program goes on serving. Zero or less: not at all.
  absl::Duration drain = absl::ZeroDuration();
  // How long the clean-up may take, from the beginning of stopping. Kubernetes
  // and systemd kill after a limit of their own: stay below it.
  absl::Duration grace = absl::Seconds(30);
  SecondSignal on_second_signal = SecondSignal::kInterruptForces;
  BrokenPipe broken_pipe = BrokenPipe::kFailsWhileStopping;
  // Whether the service manager is asked to wait for the sum of drain and
  // grace, instead of as long as it is configured to (TimeoutStopSec=).
  bool extend_timeout = false;
  // Called when the end is forced, before the report is written: for what
  // outlives the process, such as the modes of a terminal. Other threads may
  // hold any lock and hang: only what signal-safety(7) allows may be called.
  // The process waits for it a quarter of a second. It has a thread of its own,
  // where all signals are blocked. What it refers to must exist as long as the
  // Shutdown or Run(), and with RunOptions::grace_until_exit until the end.
  std::function<void()> on_forced = {};
};

class Program;
struct RunOptions;

class Shutdown {
 public:
  enum class Phase { kRunning, kDraining, kStopping };

  // From here on the signals of `policy` begin the shutdown. Fails as
  // SignalService::Open() does, with kResourceExhausted if its thread cannot be
  // created, or with kAlreadyExists if the service has a Shutdown; then nothing
  // has changed.
  static absl::StatusOr<std::unique_ptr<Shutdown>> Start(
      SignalService& service, TaskSet& tasks, ShutdownPolicy policy = {});

  Shutdown(const Shutdown&) = delete;
  Shutdown& operator=(const Shutdown&) = delete;
  // Destroy it when the program has ended, in time or without any signal.
  // Nothing is forced from here on, and signals that came meanwhile are
  // discarded. Waits for callbacks that are running.
  ~Shutdown();

  Phase phase() const;

  // Its stop is requested when draining begins, or before the scope is
  // cancelled if there is no draining.
  std::stop_token drain_token() const;

  // The signal that began it; std::nullopt while running.
  std::optional<SignalEvent> cause() const;

 private:
  friend int Run(absl::FunctionRef<absl::Status(Program&)> main,
                 RunOptions options);
  class Phases;

  explicit Shutdown(std::unique_ptr<Phases> phases);

  // For Run(), which goes on without it: from here on it hears and forces
  // nothing, and what was ignored for broken pipes stays so. What it has begun,
  // if anything, goes on.
  struct Stop {
    int signum;
    internal::Instant forced_at;
    std::unique_ptr<internal::LastHook> hook;  // may be null
  };
  std::optional<Stop> HandOver();

  const std::unique_ptr<Phases> phases_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SHUTDOWN_H_
