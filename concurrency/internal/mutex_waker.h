// Locks and unlocks the mutexes of threads in Await() whose scope has changed,
// or whose deadline has passed: unlocking makes Abseil evaluate their
// conditions again. (Abseil's own timeouts follow the wall clock.)
//
// Any thread that holds scope_tree_mutex may request it; that mutex guards all
// of this. In the lock order it comes after the mutexes visited.
//
// A thread of the library does it, because the thread that cancels may hold the
// mutex. While that thread is blocked in one mutex, another takes the next: the
// holder of the first may be waiting for a thread that awaits the second.
//
// A mutex may be destroyed as soon as the last Await() has returned from it, so
// that one does not return while a visit is under way.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_
#define TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <set>
#include <tuple>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/scope_links.h"

namespace tocsin::inline v0_2::internal {

class MutexWaker {
 public:
  struct Visits {
    int waiters = 0;
    bool requested = false;
    std::atomic<bool> under_way{false};  // written under scope_tree_mutex
  };

  // When the mutex is to be visited for a thread in Await(), whose deadline
  // passes then. Guarded by scope_tree_mutex.
  struct Alarm {
    struct Earlier {
      bool operator()(const Alarm* a, const Alarm* b) const {
        return std::tie(a->time, a) < std::tie(b->time, b);
      }
    };

    absl::Mutex& mutex;
    Instant time = kNever;
    std::set<Alarm*, Earlier>::node_type node = {};  // while it is not set
  };

  static MutexWaker& Get() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  absl::StatusOr<Visits*> Enter(Alarm& alarm)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // False for the last one while a visit is under way.
  bool Leave(Alarm& alarm) ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // Takes no memory. kNever: not at all.
  void Set(Alarm& alarm, Instant time)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // Does nothing if no thread is between Enter() and Leave().
  void Request(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

 private:
  int StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  // Requests what is due. Returns when the next alarm is.
  Instant RingAlarms() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  void CallThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  absl::Mutex* TakeRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  void Run();
  static void ForgetAllInForkedChild();
  [[maybe_unused]] static const int registered;

  std::unordered_map<absl::Mutex*, Visits> visited_
      ABSL_GUARDED_BY(scope_tree_mutex);  // node-based: Await() points to them
  std::deque<absl::Mutex*> requests_ ABSL_GUARDED_BY(scope_tree_mutex);
  std::set<Alarm*, Alarm::Earlier> alarms_ ABSL_GUARDED_BY(scope_tree_mutex);
  int threads_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;
  int free_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;  // not blocked in a mutex
  std::atomic<uint32_t> bell_{0};                   // free threads sleep on it
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_MUTEX_WAKER_H_
