// Ends the process by a signal after everything that runs at its exit.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
#define TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_

#include <memory>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/signals/internal/watchdog.h"

namespace tocsin::inline v0_2::internal {

// Flushes all streams. A thread that reads from stdin does not hold it up; one
// that holds the lock of another stream does, and so does a reader that hangs.
void FlushStreams();

// Makes exit(3), or the return of main(), end this process by `signum` instead
// of with its status, after atexit(3) functions, static destructors and the
// destructor functions of the executable. The last call wins. A forked child
// exits normally.
//
// Streams are flushed last. A thread that holds the lock of one, for example
// because it reads, may keep that from ending: the watchdog then does so at
// `forced_at`, or a moment after the flush began.
void DieAtExit(int signum, bool dumps_core, Instant forced_at,
               std::unique_ptr<Watchdog> watchdog);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
