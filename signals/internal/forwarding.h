// The other end of the handlers' forwarding: to whom they forward, what is in
// what arrives, and when none is under way any more.
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

// Names the thread that handlers forward to; before the first Forward().
void SetServiceThread(pid_t thread)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Handlers that start from now on give their signal back to the process.
void StopForwarding(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Waits until handlers that had started before have forwarded theirs.
void AwaitHandlers(int signum);

// Takes the mark off a forwarded siginfo. False if it bears none.
bool Unwrap(RawSiginfo& info);

// Takes a signal that the kernel's queue had no room for (RLIMIT_SIGPENDING),
// and that a handler kept in a slot. False if there is none. The bell rings for
// each.
bool TakeSpilled(RawSiginfo& info);

// Whether the doorbell rings for every signal that is forwarded, because the
// service's thread leaves some to a leader (leader.h).
void RingForEach(bool ring);

// Signals whose siginfo could not be kept because the process was at its
// RLIMIT_SIGPENDING for long: they arrived as a bare number.
uint64_t LostSiginfoCount();

// In a forked child: what handlers did in the parent did not happen here.
void ForgetHandlersAfterFork();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_FORWARDING_H_
