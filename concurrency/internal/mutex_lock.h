// absl::MutexLock for every release of Abseil, whose constructor took a pointer
// until 20250814 and takes a reference since; also for a SlimMutex.
//
// For the thread that locks, in a block.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_MUTEX_LOCK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_MUTEX_LOCK_H_

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tocsin::inline v0_2::internal {

template <typename Mutex>
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
#if defined(ABSL_LTS_RELEASE_VERSION) && ABSL_LTS_RELEASE_VERSION < 20250814
    mutex_.Lock();
#else
    mutex_.lock();
#endif
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() ABSL_UNLOCK_FUNCTION() {
#if defined(ABSL_LTS_RELEASE_VERSION) && ABSL_LTS_RELEASE_VERSION < 20250814
    mutex_.Unlock();
#else
    mutex_.unlock();
#endif
  }

 private:
  Mutex& mutex_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_MUTEX_LOCK_H_
