// The claim on the doorbell's signal: so at most one service is alive in a
// process, even if several of its shared objects have a copy of the library
// linked into them.
//
// Such copies have no memory in common, only the signal's disposition. Whoever
// has its handler there has the service. To look at a disposition and replace
// it takes two calls, and what happens between them must not be lost. So a copy
// exchanges it first, by one call, for its handler with a mark that all copies
// know. The one that got an unmarked action for it decides, with nobody in
// between: it puts its handler, or what it found. The others wait until the
// mark is gone. They look before they exchange, so only a start or stop of a
// service that happens at that very moment is ever disturbed.
//
// A bell that comes then is not lost: bells go to threads that block the
// signal, which take it whatever its disposition. A SIGSTKFLT that other code
// means is sent again, until the decision is made.
#ifndef TOCSIN_SIGNALS_INTERNAL_DOORBELL_CLAIM_H_
#define TOCSIN_SIGNALS_INTERNAL_DOORBELL_CLAIM_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/signals/internal/disposition.h"

namespace tocsin::inline v0_2::internal {

// kAlreadyExists if the signal has a handler that is not ours; it names the
// file that the handler is in.
absl::Status ClaimDoorbell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Restores the disposition from before, unless other code has replaced ours.
void ReleaseDoorbell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DOORBELL_CLAIM_H_
