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
// scope: waits in the function and in tasks return, and everything unwinds in
// order. Whatever does not end within the grace is reported, and the process
// dies (see shutdown.h).
//
// Run() returns what main() is to return:
//   0             if the function and all tasks ended well;
//   1             after an error, which it has printed to stderr: of the
//                 function, which may also throw, or of a task;
//   128 + number  after a signal. When the program then exits, the process dies
//                 by that signal, whatever main() returned, so that the shell
//                 or supervisor that waits for it knows why.
//
// It dies last: the rest of main(), atexit(3) functions, static destructors,
// LeakSanitizer's check and the writing of coverage come first. Only what
// shared libraries run when they are unloaded is skipped: the destructors of
// objects that they made before main(), and their functions with the destructor
// attribute. _exit(2), quick_exit(3) and abort(3) end the process as they
// always do. A child that is forked after Run() exits normally. Process 1 of a
// pid namespace, which no signal can end, exits with the status.
//
// After a signal all of this ends with the grace, whatever hangs: a destructor,
// a callback, the printing of an error to a pipe that nobody reads, the last
// flush. What comes after Run() is bounded by option. The threads that see to
// it, tocsin-watchdog and tocsin-hook, block all signals but the faults: no
// handler that hangs may stop them. Code that signals each thread and waits for
// the answers gets none from them.
//
// Once Run() has returned, a further signal has its previous effect. But after
// a signal, what ShutdownPolicy::broken_pipe says holds up to the end.
//
// Call it once, from main(), before other threads are started if possible.
#ifndef TOCSIN_SIGNALS_RUN_H_
#define TOCSIN_SIGNALS_RUN_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin::inline v0_2 {

struct RunOptions {
  // When and how the program is stopped. If `shutdown.signals` is empty, no
  // signal is touched, and a program that wants some opens a receiver.
  ShutdownPolicy shutdown = {};

  enum class AfterSignal {
    // Also by SIGQUIT, without the core that it is for: all went well.
    kDieBySignal,
    // The same, with the core.
    kDumpCore,
    // The process exits with what main() returns.
    kReturn128Plus,
  };
  AfterSignal after_signal = AfterSignal::kDieBySignal;

  // After a signal the grace bounds all that Run() does, up to its return. Here
  // it also bounds what comes then: the rest of main(), atexit(3) functions and
  // static destructors.
  bool grace_until_exit = false;

  // Whether the service manager is sent WATCHDOG=1 at half the period that it
  // asks for (see WatchdogPeriod() in service_manager.h). If it asks for none,
  // this does nothing. A period that cannot be read is an error.
  //
  // Each is sent by a task on ThreadPool::Default(), and so says that the pool
  // starts tasks, but not that the function and each task get on. If the pool
  // starts none, none is sent, and the manager acts. Where all workers compute,
  // a task may start a tenth of a second late: the period should be longer.
  //
  // They are sent up to the end of Run(), also while the program drains, stops
  // and cleans up. What comes after Run() has half a period.
  bool notify_watchdog = false;

  // For Program::signals().
  SignalServiceOptions signals = {};
};

// What Run() has started, for the function that it calls and its tasks. All
// members may be called from any thread.
class Program {
 public:
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  SignalService& signals() { return signals_; }
  // The function runs in the scope of this group.
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

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_RUN_H_
