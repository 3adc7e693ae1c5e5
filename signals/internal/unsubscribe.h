// How a receiver's subscription ends: also the last one for a signal, without
// one being lost.
//
// May be called from any thread that holds the disposition mutex, but not from
// the service's, for which it waits.
//
// A signal is, at any moment, in one of these places. They are emptied in this
// order:
//   1. in a handler's frame that was set up but has not run yet. After
//      RestoreDisposition() signals have their old effect; after
//      StopForwarding() handlers that start give theirs back to the process;
//   2. in a handler that is past its look at whether to forward, for which
//      AwaitHandlers() waits;
//   3. pending on the service's thread, which takes it out; or left in a slot
//      (direct_handoff.h), which is taken back; or taken by a leader
//      (leader.h), which itself sends it again;
//   4. in the queues of receivers, from which somebody takes it or none does.
// When one of several receivers goes, 4 is what matters: a signal that another
// one has in its queue too, or that somebody took, has been heard.
#ifndef TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_
#define TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::inline v0_2::internal {

class ServiceThread;
class SignalRoutes;
class Subscriber;

// Takes `subscription` out of the registry, and the handlers and the service's
// thread off the signals that nobody else receives. Returns those that were on
// their way to it and must be sent again. Does nothing the second time.
std::vector<RawSiginfo> Unsubscribe(SignalRoutes& routes, ServiceThread& thread,
                                    Subscriber& subscription)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_
