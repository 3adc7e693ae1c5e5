// The dedicated thread, which waits in the kernel for all signals that nobody
// else waits for, and dispatches them.
//
// Start(), Join() and Synchronize() are called by threads that start, stop and
// change the service, under the disposition mutex, which the service's thread
// itself only tries to take.
#ifndef TOCSIN_SIGNALS_INTERNAL_SERVICE_THREAD_H_
#define TOCSIN_SIGNALS_INTERNAL_SERVICE_THREAD_H_

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <csignal>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "tocsin/signals/internal/disposition.h"

namespace tocsin::inline v0_2::internal {

class SignalRoutes;

// The dedicated thread, which waits for all that nobody else waits for, and
// dispatches it.
class ServiceThread {
 public:
  explicit ServiceThread(SignalRoutes& routes) : routes_(routes) {}
  ServiceThread(const ServiceThread&) = delete;
  ServiceThread& operator=(const ServiceThread&) = delete;

  // Starts it, with the mask of the calling thread, and returns when it runs.
  // Returns 0, or the error of pthread_create(3). It never unblocks what is in
  // `blocked`.
  int Start(const sigset_t& blocked);
  void Join() { pthread_join(thread_, nullptr); }
  pid_t id() const { return static_cast<pid_t>(id_.load()); }

  // Notes that the caller changes something under the routes' mutex, which the
  // thread must look at. The caller then rings the doorbell.
  void NoteChange() { change_.fetch_add(1); }
  // Makes it take over what was changed, and waits until it has: it then does
  // not wait for signals that it must not take any more.
  void Synchronize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disposition_mutex);

 private:
  void Run();
  // Unblocks what other code has a handler for, which may wait for an answer
  // from each thread. Not what the program blocks to wait for it, or has no
  // handler for: its action must not happen here.
  // False, and nothing done, while dispositions change.
  bool LetHandlersIn();

  SignalRoutes& routes_;
  sigset_t stays_blocked_;
  pthread_t thread_;
  std::atomic<uint32_t> id_{0};      // set by the thread
  std::atomic<uint32_t> change_{0};  // moved under the routes' mutex
  std::atomic<uint32_t> taken_over_{0};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_SERVICE_THREAD_H_
