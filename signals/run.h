// Runs a program: signals, tasks and an orderly end around a main function.
//
//   absl::Status Main(tocsin::SignalService& service, tocsin::TaskGroup& group)
//   {
//     group.Spawn(ServeRequests);
//     return group.Wait();
//   }
//   int main() { return tocsin::Run(Main); }
//
// Run() starts the process's SignalService and a TaskGroup, and calls the
// function in the group's scope. SIGINT and SIGTERM cancel that scope: waits in
// the function and in tasks of the group return, everything unwinds as it was
// built. Whoever does not end within the grace is reported and the process dies
// (see shutdown.h).
//
// Run() returns what main() is to return:
//   0    if the function and all tasks ended well;
//   1    after an error, which it has printed to stderr;
// and after a signal it does not return: the process dies by that signal, so
// that the shell or supervisor that waits for it knows why. As process 1 of a
// pid namespace, which no signal can end, and where RunOptions say so, it
// returns 128 plus the signal's number.
//
// Call it once, from main(), before other threads are started if possible.
#ifndef TOCSIN_SIGNALS_RUN_H_
#define TOCSIN_SIGNALS_RUN_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {

struct RunOptions {
  // The signals that stop the program. None: they are left alone, and a program
  // that wants to hear them opens a receiver.
  SignalSet stop_on = SignalSet::Termination();
  // As in ShutdownPolicy.
  absl::Duration drain = absl::ZeroDuration();
  absl::Duration grace = absl::Seconds(30);
  SecondSignal second = SecondSignal::kDieNow;

  enum class AfterSignal { kDieBySignal, kReturn128Plus };
  AfterSignal after_signal = AfterSignal::kDieBySignal;
};

int Run(absl::FunctionRef<absl::Status(SignalService&, TaskGroup&)> main,
        RunOptions options = {});

// For a function that takes part in the shutdown, for example by its
// drain_token().
int Run(
    absl::FunctionRef<absl::Status(SignalService&, TaskGroup&, Shutdown&)> main,
    RunOptions options = {});

}  // namespace tocsin

#endif  // TOCSIN_SIGNALS_RUN_H_
