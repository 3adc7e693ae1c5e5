// The end of the process by a signal, once all that runs at its exit has run.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
#define TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_

namespace tocsin::inline v0_2::internal {

// Has exit(3), or the return of main(), end this process by `signum` in the
// place of its status, after atexit(3) functions, static destructors and the
// destructor functions of the executable. Of several signals the last counts.
// A forked child exits as it would without.
void DieAtExit(int signum);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
