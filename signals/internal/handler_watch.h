// Notices what other code of the process does to the dispositions of signals
// that are received, or left alone because they are ignored.
//
// The service's thread uses it, and no other.
#ifndef TOCSIN_SIGNALS_INTERNAL_HANDLER_WATCH_H_
#define TOCSIN_SIGNALS_INTERNAL_HANDLER_WATCH_H_

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class SignalRoutes;

class HandlerWatch {
 public:
  // `on_replaced`, which may be empty, is told of signals that other code gets
  // now, or has got for a time.
  HandlerWatch(SignalRoutes& routes,
               std::function<void(const SignalSet&)> on_replaced);
  HandlerWatch(const HandlerWatch&) = delete;
  HandlerWatch& operator=(const HandlerWatch&) = delete;

  // Looks at all of them, and takes up those that are not ignored any more.
  // Does nothing while dispositions change: who changes them may wait for this
  // thread. Returns how soon to look again.
  absl::Duration Look() ABSL_LOCKS_EXCLUDED(disposition_mutex);

 private:
  SignalSet FindReplaced() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
  // Returns those that are still left alone.
  SignalSet TakeUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

  SignalRoutes& routes_;
  const std::function<void(const SignalSet&)> on_replaced_;
  SignalSet known_;  // those of which it was told, as long as it lasts
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_HANDLER_WATCH_H_
