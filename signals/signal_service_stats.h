// Counts of what went through a SignalService since its start.
//
// A value: each thread has its own.
#ifndef TOCSIN_SIGNALS_SIGNAL_SERVICE_STATS_H_
#define TOCSIN_SIGNALS_SIGNAL_SERVICE_STATS_H_

#include <cstdint>

namespace tocsin::inline v0_2 {

struct SignalServiceStats {
  // Signals taken from the kernel. Those that the kernel merged count once.
  uint64_t received = 0;
  // Those of them that came through our handler, on any thread. The rest came
  // directly to the service's thread, or to one in Receive(), because all other
  // threads block them.
  uint64_t redirected = 0;
  // Events put into queues; one signal counts once for each receiver.
  uint64_t delivered = 0;
  // Signals merged into an event that was queued already.
  uint64_t merged = 0;
  // Real-time signals that a full queue had no room for.
  uint64_t dropped = 0;
  // Signals that were sent to the process again because a receiver closed.
  uint64_t redelivered = 0;
  // Unread events that a receiver was told to discard.
  uint64_t discarded = 0;
  // Signals whose disposition a closing did not restore, because other code had
  // replaced our handler.
  uint64_t conflicts = 0;
  // How often other code was found to have replaced our handler of a signal,
  // for good or for a time. It is looked for whenever a receiver is opened or
  // closed, and every second.
  uint64_t replaced = 0;
  // Signals that arrived as a bare number, because the process was at its limit
  // of pending signals (RLIMIT_SIGPENDING).
  uint64_t siginfo_lost = 0;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SIGNAL_SERVICE_STATS_H_
