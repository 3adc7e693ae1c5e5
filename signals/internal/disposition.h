// Replaces dispositions of signals by our handler, restores and queries them.
//
// May be called from any thread; a thread that changes a disposition holds
// disposition_mutex.
#ifndef TOCSIN_SIGNALS_INTERNAL_DISPOSITION_H_
#define TOCSIN_SIGNALS_INTERNAL_DISPOSITION_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

// Serialises changes of dispositions. The service's thread only tries to take
// it, so its holder may wait for that thread.
extern SlimMutex disposition_mutex;
// How soon that thread tries again.
inline constexpr absl::Duration kWhileTheyChange = absl::Milliseconds(1);

// Installs the handler for `signum`, and keeps the disposition that it
// replaces. Also where it is installed already and other code has replaced it.
void Forward(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Restores that disposition, including every flag. False if other code has
// replaced our handler meanwhile: then that handler stays.
bool RestoreDisposition(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Handlers that start from now on leave the signal to the disposition that was
// there before us.
void StopForwarding(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Waits until handlers that had started before have forwarded their signals.
void AwaitHandlers(int signum);

// What has become of our handler since Forward().
enum class HandlerIs {
  kInPlace,
  kReplaced,  // by other code
  kPutBack,   // by other code, which had replaced it for a time
};
HandlerIs FindHandler(int signum);
// Makes a handler that was put back ours again to the last flag.
void Reinstall(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// The signals that have a handler, and not ours.
SignalSet HandledByOthers();

// Whether `signum` is ignored; if it is being forwarded, whether it was before
// Forward().
bool IsIgnored(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Ignores SIGPIPE, so that a write to a broken pipe fails and does not kill.
// False if its disposition is not the default, and stays.
bool IgnoreBrokenPipes() ABSL_LOCKS_EXCLUDED(disposition_mutex);
// Undoes it, unless the disposition has been changed since.
void KillOnBrokenPipes() ABSL_LOCKS_EXCLUDED(disposition_mutex);

// Sets the disposition of `signum` to the default, as the kernel sees it, and
// restores the previous one when destroyed.
class [[nodiscard]] ScopedDefaultDisposition {
 public:
  explicit ScopedDefaultDisposition(int signum)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
  ScopedDefaultDisposition(const ScopedDefaultDisposition&) = delete;
  ScopedDefaultDisposition& operator=(const ScopedDefaultDisposition&) = delete;
  ~ScopedDefaultDisposition();

 private:
  const int signum_;
  uint64_t previous_[4];
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_DISPOSITION_H_
