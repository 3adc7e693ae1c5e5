// Receives the signals of this process, on a thread of its own, for any number
// of receivers.
//
//   absl::StatusOr<std::unique_ptr<SignalService>> service =
//       SignalService::Start();
//   absl::StatusOr<SignalReceiver> receiver = (*service)->Open({SIGTERM});
//   absl::StatusOr<SignalEvent> event = receiver->Receive();
//
// Start it first in main(); starting it later, on any thread, is correct too.
// It touches only signals that a receiver is open for, and no signal mask
// except that of its own thread: children, debuggers, profilers and crash
// handlers do not notice it. That thread blocks what is received, what the
// thread that called Start() blocks, and what has no handler; a handler of
// other code may run there. (One that is installed later is seen when a
// receiver is opened or closed, else within a second.) The price is that such a
// signal interrupts the thread that the kernel picks, usually the main thread:
// system calls are restarted where SA_RESTART covers them and fail with EINTR
// elsewhere (signal(7) lists both). ScopedSignalBlock avoids that.
//
// SIGSTKFLT belongs to the service while it is alive: the service wakes itself
// with it, and its handler keeps a second service from starting. The debugger
// rr, which needs that signal for itself, cannot record such a program.
//
// All members may be called from any thread.
#ifndef TOCSIN_SIGNALS_SIGNAL_SERVICE_H_
#define TOCSIN_SIGNALS_SIGNAL_SERVICE_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service_stats.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {

class FakeSignals;
class Shutdown;

namespace internal {
class Dispatcher;
}  // namespace internal

struct SignalServiceOptions {
  // Called when other code of the process is found to have replaced our handler
  // of a signal that is received, for good or for a time; once each time. On
  // the service's thread, which takes no signal meanwhile, with no lock held.
  // It must not open or close a receiver or end the service: these wait for
  // that thread.
  std::function<void(const SignalSet& signals)> on_replaced;
};

class SignalService {
 public:
  // Starts the service's thread. At most one service is alive in a process,
  // also where several of its shared objects have a copy of this library linked
  // into them: kAlreadyExists for a second one. Where the first one is of
  // another copy, or other code has a handler for SIGSTKFLT, the status names
  // the file that it is in. kResourceExhausted if the thread cannot be created.
  // kFailedPrecondition or kUnimplemented names a system call that signals
  // would be lost without, and that a seccomp filter or an emulator refuses. A
  // child made by fork() may start one of its own.
  static absl::StatusOr<std::unique_ptr<SignalService>> Start(
      SignalServiceOptions options = {});

  SignalService(const SignalService&) = delete;
  SignalService& operator=(const SignalService&) = delete;

  // Closes the receivers that are open (what they have queued can still be
  // received) and joins the thread.
  ~SignalService();

  // Opens a receiver for `signals`. Every open receiver gets every signal that
  // it is subscribed to, and a slow one delays no other. Once this call has
  // returned, each of these signals is received and has no other effect, also
  // if other code has replaced our handler meanwhile. What was there before is
  // there again after the close, even where other code, such as system(3), puts
  // our handler back later than that.
  //
  // Does not wait for signals; takes tens of microseconds. kInvalidArgument,
  // and nothing has changed, if one of the signals cannot be received (see
  // CheckReceivable()) or an option is out of range. kFailedPrecondition in a
  // child made by fork(): start a service there.
  absl::StatusOr<SignalReceiver> Open(const SignalSet& signals,
                                      ReceiverOptions options = {});

  // What has gone through the service so far.
  SignalServiceStats stats() const;

  // OK if our handler is in place for every signal that is being received;
  // kFailedPrecondition names the signals for which other code of this process
  // has installed a handler since, which now gets them.
  absl::Status Verify() const;

 private:
  friend class FakeSignals;
  friend class Shutdown;

  // `dispatcher` is driven by the kernel or by a test.
  explicit SignalService(std::shared_ptr<internal::Dispatcher> dispatcher);

  absl::StatusOr<SignalReceiver> Open(const SignalSet& signals,
                                      const ReceiverOptions& options,
                                      bool observed);

  const std::shared_ptr<internal::Dispatcher> dispatcher_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SIGNAL_SERVICE_H_
