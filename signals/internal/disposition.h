// The dispositions of signals: replaced by our handler, put back, asked for.
//
// May be called from any thread; one that changes a disposition holds
// disposition_mutex.
#ifndef TOCSIN_SIGNALS_INTERNAL_DISPOSITION_H_
#define TOCSIN_SIGNALS_INTERNAL_DISPOSITION_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin::inline v0_2::internal {

// Serialises what changes dispositions. The service's thread never takes it, so
// one may wait for that thread while holding it.
extern SlimMutex disposition_mutex;

// Installs the handler for `signum` and keeps the disposition it replaces.
void Forward(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Puts that back, to the last flag. False if somebody has replaced our handler
// meanwhile: then theirs stays.
bool RestoreDisposition(int signum)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

// Whether `signum` is ignored, by the disposition that Forward() found if it is
// being forwarded.
bool IsIgnored(int signum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);
// Whether our handler is in place.
bool HandlerInPlace(int signum);

// Sets the disposition of `signum` to the default, as the kernel sees it, and
// puts back what was there.
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
