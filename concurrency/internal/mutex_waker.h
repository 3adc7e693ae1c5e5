// Locks and unlocks the mutexes of those whose scope has changed while they
// were in Await(): unlocking makes Abseil look at their conditions again.
//
// Any thread may ask for it that holds scope_tree_mutex, which guards all this.
// In the order of locking that comes after the mutexes visited.
//
// It is done on a thread of the library, because the one that cancels may hold
// the mutex. While that thread is blocked in one mutex, another takes the next:
// the holder of the first may be waiting for somebody who awaits the second.
//
// A mutex may go as soon as the last Await() has returned from it, so that one
// stays for a visit that is under way.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

class MutexWaker {
 public:
  struct Visits {
    int waiters = 0;
    bool requested = false;
    std::atomic<bool> under_way{false};  // written under scope_tree_mutex
  };

  static MutexWaker& Get() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex) {
    static MutexWaker& waker = *new MutexWaker;
    return waker;
  }

  absl::StatusOr<Visits*> Enter(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // False for the last one while a visit is under way.
  bool Leave(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // Without effect where nobody is between Enter() and Leave().
  void Request(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

 private:
  int StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  absl::Mutex* TakeRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  void Run();
  static void ForgetAllInForkedChild();
  [[maybe_unused]] static const int registered;

  std::unordered_map<absl::Mutex*, Visits> visited_
      ABSL_GUARDED_BY(scope_tree_mutex);  // nodes, as Await() points to them
  std::deque<absl::Mutex*> requests_ ABSL_GUARDED_BY(scope_tree_mutex);
  int threads_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;
  int free_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;  // not blocked in a mutex
  std::atomic<uint32_t> bell_{0};                   // what free ones sleep on
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_
