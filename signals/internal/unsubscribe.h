// How a receiver's subscription ends: also the last one for a signal, without
// one being lost.
//
// May be called from any thread that holds the disposition mutex, but not from
// the service's, for which it waits.
#ifndef TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_
#define TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/raw_siginfo.h"

namespace tocsin::internal {

class KernelSignals;
class Subscription;

// Takes `subscription` out of the registry, and the handlers and the service's
// thread off the signals that nobody else receives. Returns those that were on
// their way to it and must be sent again. Does nothing the second time.
std::vector<RawSiginfo> Unsubscribe(KernelSignals& kernel,
                                    Subscription& subscription)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

}  // namespace tocsin::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_UNSUBSCRIBE_H_
