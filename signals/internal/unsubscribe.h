// Ends a receiver's subscription, even the last one for a signal, without
// losing a signal.
//
// May be called from any thread that holds the disposition mutex, but not from
// the service's thread, for which it waits.
//
// At any moment a signal is in one of these places. They are emptied in this
// order:
//   1. in a handler's frame that was set up but has not run yet. After
//      RestoreDisposition() signals have their old effect; after
//      StopForwarding() handlers that start give theirs back to the process;
//   2. in a handler that has already checked whether to forward, for which
//      AwaitHandlers() waits;
//   3. pending on the service's thread, which takes it out; or left in a slot
//      (direct_handoff.h), which is taken back; or taken by a leader
//      (leader.h), which itself sends it again;
//   4. in the queues of receivers, from which a thread takes it or none does.
// When one of several receivers ends, only 4 matters: a signal that another one
// also has in its queue, or that a thread took, counts as received.
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

// Removes `subscription` from the registry, and the handlers and the service's
// thread from the signals that nobody else receives. Returns those that were on
// their way to it, for Dispatcher::Return(). Does nothing the second time.
std::vector<RawSiginfo> Unsubscribe(SignalRoutes& routes, ServiceThread& thread,
                                    Subscriber& subscription)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_
