// The receiving end of the handlers' forwarding: sets the thread to forward to,
// unwraps what arrives, and waits until no handler is under way.
//
// May be called from any thread, but not in a signal handler.
#ifndef TOCSIN_SIGNALS_INTERNAL_FORWARDING_H_
#define TOCSIN_SIGNALS_INTERNAL_FORWARDING_H_

#include <sys/types.h>

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::inline v0_2::internal {

// Sets the thread that handlers forward to. Call it before the first Forward().
void SetServiceThread(pid_t thread)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Removes the mark from a forwarded siginfo. False if it has none.
bool Unwrap(RawSiginfo& info);

// Takes a signal that the kernel's queue had no room for (RLIMIT_SIGPENDING),
// and that a handler kept in a slot. False if there is none. The doorbell rings
// for each.
bool TakeSpilled(RawSiginfo& info);

// Sets whether the doorbell rings for every signal that is forwarded, because
// the service's thread leaves some to a leader (leader.h).
void RingForEach(bool ring);

// Signals whose siginfo could not be kept because the process was at its
// RLIMIT_SIGPENDING for long: they arrived as a bare number.
uint64_t LostSiginfoCount();

// Called in a forked child: resets what handlers in the parent had begun.
void ForgetHandlersAfterFork();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_FORWARDING_H_
