// Runs a program: signals, tasks and an orderly end around a main function.
//
//   absl::Status Main(tocsin::Program& program) {
//     program.tasks().Spawn(ServeRequests);
//     return program.tasks().Wait();
//   }
//   int main() { return tocsin::Run(Main); }
//
// Run() starts the process's SignalService, a TaskGroup and a Shutdown, and
// calls the function in the group's scope. SIGINT and SIGTERM cancel that
// scope: waits in the function and in tasks return, everything unwinds as it
// was built. What does not end within the grace is reported and the process
// dies (see shutdown.h).
//
// Run() returns what main() is to return:
//   0            if the function and all tasks ended well;
//   1            after an error, which it has printed to stderr;
//   128 + signum after a signal. What main() does then, atexit(3) functions and
//                static destructors run, and behind all of these the process
//                dies by that signal, whatever main() returns, so that the
//                shell or supervisor that waits for it knows why.
//
// The death takes the place of the exit status; what ends the process without
// exit(3), as _exit(2), quick_exit(3) and abort(3) do, prevents it.
// LeakSanitizer has looked and coverage is written by then. What shared
// libraries run when they are unloaded comes too late: static destructors of
// objects that were made before main(), and functions with the destructor
// attribute.
//
// A child that is forked after Run() exits as any other. No signal can end
// process 1 of a pid namespace: it exits with main()'s status.
//
// Call it once, from main(), before other threads are started if possible.
#ifndef TOCSIN_SIGNALS_RUN_H_
#define TOCSIN_SIGNALS_RUN_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {

struct RunOptions {
  // Without signals they are left alone, and a program that wants to hear them
  // opens a receiver.
  ShutdownPolicy shutdown = {};

  // kReturn128Plus: the process exits with what main() returns.
  enum class AfterSignal { kDieBySignal, kReturn128Plus };
  AfterSignal after_signal = AfterSignal::kDieBySignal;
};

// What Run() has started, for the function that it calls and its tasks. All
// members may be called from any thread.
class Program {
 public:
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  SignalService& signals() { return signals_; }
  // Its scope is that of the function.
  TaskGroup& tasks() { return tasks_; }
  // For a program that takes part in its shutdown, for example by
  // drain_token().
  Shutdown& shutdown() { return shutdown_; }

 private:
  friend int Run(absl::FunctionRef<absl::Status(Program&)> main,
                 RunOptions options);

  Program(SignalService& signals, TaskGroup& tasks, Shutdown& shutdown)
      : signals_(signals), tasks_(tasks), shutdown_(shutdown) {}

  SignalService& signals_;
  TaskGroup& tasks_;
  Shutdown& shutdown_;
};

int Run(absl::FunctionRef<absl::Status(Program&)> main,
        RunOptions options = {});

}  // namespace tocsin

#endif  // TOCSIN_SIGNALS_RUN_H_
