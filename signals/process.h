// What a process does to itself by signals.
//
// All functions may be called from any thread.
#ifndef TOCSIN_SIGNALS_PROCESS_H_
#define TOCSIN_SIGNALS_PROCESS_H_

#include "absl/status/status.h"

namespace tocsin::inline v0_2 {

// Sends a signal to this process, as kill(getpid(), signum) does: receivers get
// it, whichever thread calls. (raise(3) sends to the calling thread alone,
// where a blocked signal stays pending.) kInvalidArgument, which names the
// number, if it is not a signal.
absl::Status Raise(int signum);

// Ends the process by `signum`, so that its parent sees it killed by that
// signal: a shell then stops its loop, a supervisor knows why. Where that is
// impossible, ends it with status 128 + signum: as process 1 of a pid
// namespace, and for signals whose default action is not to end a process.
// Neither destructors nor atexit(3) functions run, and stdio buffers are not
// flushed.
[[noreturn]] void DieBySignal(int signum);

// Stops the process as Ctrl+Z does, also while a receiver is open for SIGTSTP,
// and returns when it is continued. The receiver of SIGTSTP calls it once it
// has put the terminal in order. Does not stop in an orphaned process group,
// where the kernel ignores the terminal's stop signals (POSIX.1, "Process Group
// Orphaning").
void StopSelf();

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_PROCESS_H_
