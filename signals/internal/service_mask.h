// The signals that are blocked on the threads of the library that no handler,
// SIGPIPE or SIGTTOU may interrupt.
//
// Any thread may use it.
#ifndef TOCSIN_SIGNALS_INTERNAL_SERVICE_MASK_H_
#define TOCSIN_SIGNALS_INTERNAL_SERVICE_MASK_H_

#include <pthread.h>

#include <csignal>
#include <initializer_list>

#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// All signals but the faults, which are raised on the thread that caused them:
// a blocked one would skip the program's crash handler.
inline sigset_t ServiceMask() {
  sigset_t mask;
  sigfillset(&mask);  // without the C library's own, which setuid(2) waits for
  for (int fault :
       {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
    sigdelset(&mask, fault);
  }
  return mask;
}

// Blocks `signals` in the calling thread, besides what it blocks already.
inline void BlockHere(const SignalSet& signals) {
  sigset_t mask;
  sigemptyset(&mask);
  for (int signum : signals) sigaddset(&mask, signum);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
}

// Blocks them in the calling thread, and in those that it starts meanwhile. So
// no handler of the program runs here while dispositions change and locks are
// held: it might call us again.
class [[nodiscard]] ScopedMask {
 public:
  ScopedMask() {
    const sigset_t mask = ServiceMask();
    pthread_sigmask(SIG_SETMASK, &mask, &previous_);
  }
  ScopedMask(const ScopedMask&) = delete;
  ScopedMask& operator=(const ScopedMask&) = delete;
  ~ScopedMask() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

  // The mask of the thread before.
  const sigset_t& previous() const { return previous_; }

 private:
  sigset_t previous_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SERVICE_MASK_H_
