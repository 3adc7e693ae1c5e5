// Waits that end when the thread's cancel scope is cancelled.
//
// Each may be called from any thread and blocks the calling one. Each looks at
// the scope first: in one that is cancelled already it returns at once, having
// done and consumed nothing. OK means that what was waited for is there, even
// if the scope was cancelled in the same moment; kCancelled that the scope was
// cancelled; kDeadlineExceeded that its deadline passed.
//
//   while (true) {
//     absl::StatusOr<short> ready = PollFd(socket, POLLIN);
//     if (!ready.ok()) return ready.status();
//     ...
//   }
//
// Event, Semaphore and BlockingRegion come with this header; a queue is in
// blocking_queue.h.
#ifndef TOCSIN_CONCURRENCY_WAIT_H_
#define TOCSIN_CONCURRENCY_WAIT_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/semaphore.h"

namespace tocsin::inline v0_2 {

// OK once the time has come. Zero, a negative duration and a time in the past
// return at once; an infinite one ends only with the scope. `time` is read off
// the wall clock once: a clock that is set during the sleep does not move it.
// (Not SleepFor(): by its argument, a call without `tocsin::` would find
// Abseil's, which observes no scope.)
absl::Status Sleep(absl::Duration duration);
absl::Status SleepUntil(absl::Time time);

// Like absl::Mutex::Await(), for a mutex that the caller holds, exclusively or
// shared: releases it until `condition` is true, and holds it again when it
// returns, whatever it returns. OK means that the condition is true now.
//
// The thread that cancels the scope may hold the mutex: a thread of the library
// locks it for a moment, so that Abseil evaluates the condition again. The
// first Await() that blocks in a scope starts that thread; kResourceExhausted
// if the system refuses it.
absl::Status Await(absl::Mutex& mutex, const absl::Condition& condition)
    ABSL_SHARED_LOCKS_REQUIRED(mutex);

// Blocks as poll(2) does until one of `events` (POLLIN, POLLOUT, ...) holds for
// the file descriptor, or POLLERR or POLLHUP, and returns those that do.
// kInvalidArgument if `fd` is not open. Keep it open until the call returns:
// the kernel does not report a close. While it blocks in a scope the call uses
// one more descriptor; kResourceExhausted if there is none.
absl::StatusOr<short> PollFd(int fd, short events);

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_WAIT_H_
