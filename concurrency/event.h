// Something that happens once, and that any number of threads wait for.
//
// Any member may be called from any thread. The event may be destroyed as soon
// as Wait() or is_set() has reported that it is set, even if Set() has not
// returned yet, provided that no other thread is inside it.
//
//   Event ready;
//   group.Spawn([&] { Load(); ready.Set(); });
//   if (absl::Status status = ready.Wait(); !status.ok()) return status;
//
// What was written before Set() is seen after Wait() returned OK and after
// is_set() returned true.
#ifndef TOCSIN_CONCURRENCY_EVENT_H_
#define TOCSIN_CONCURRENCY_EVENT_H_

#include <atomic>

#include "absl/status/status.h"
#include "tocsin/concurrency/internal/wait_queue.h"

namespace tocsin::inline v0_2 {

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  // Ends all waits, those that have begun and those to come. A second call does
  // nothing.
  void Set();

  // Blocks until the event is set. kCancelled or kDeadlineExceeded if the
  // thread's scope ends the wait first, or had ended when it began.
  absl::Status Wait();

  // Does not block and ignores the scope.
  bool is_set() const { return set_.load(std::memory_order_acquire); }

 private:
  struct Waiter;

  std::atomic<bool> set_{false};  // becomes true under the lock of queue_
  internal::WaitQueue<Waiter> queue_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_EVENT_H_
