// A list of waiters, and the lock that guards them and what they wait for.
//
// Any thread that holds the lock may use the list.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WAIT_QUEUE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WAIT_QUEUE_H_

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/waiter_list.h"

namespace tocsin::inline v0_2::internal {

template <typename Waiter>
struct WaitQueue {
  mutable SlimMutex mutex;
  WaiterList<Waiter> waiters ABSL_GUARDED_BY(mutex);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WAIT_QUEUE_H_
