// Ends the process by a signal after everything that runs at its exit.
//
// May be called from any thread.
#ifndef TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
#define TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_

namespace tocsin::inline v0_2::internal {

// Makes exit(3), or the return of main(), end this process by `signum` instead
// of with its status, after atexit(3) functions, static destructors and the
// destructor functions of the executable. The last call wins. A forked child
// exits normally.
void DieAtExit(int signum);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DIE_AT_EXIT_H_
