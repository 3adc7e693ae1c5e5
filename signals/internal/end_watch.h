// Waits for the end of a child on a thread of its own, where the kernel gives
// no pidfd to poll(2).
//
// One thread makes it and tells it the child. Then any thread may ask.
#ifndef TOCSIN_SIGNALS_INTERNAL_END_WATCH_H_
#define TOCSIN_SIGNALS_INTERNAL_END_WATCH_H_

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace tocsin::inline v0_2::internal {

class EndWatch {
 public:
  // Starts the thread before there is a child, so that none is made that nobody
  // could wait for.
  static absl::StatusOr<std::unique_ptr<EndWatch>> Start();
  EndWatch(const EndWatch&) = delete;
  EndWatch& operator=(const EndWatch&) = delete;
  // Waits for the end of the child, if there is one, and it is ours.
  ~EndWatch();

  // Called once. The child is not waited for before fd() is readable.
  void Watch(pid_t child);

  // Readable once the child has ended. Close-on-exec.
  int fd() const { return fd_; }
  // Once that is so, whether the kernel or other code had waited for the child
  // already: its number may be another's.
  bool lost() const { return lost_; }

 private:
  EndWatch() = default;
  void Run();

  enum : uint32_t { kNotTold = 0, kNone = ~uint32_t{0} };

  const pid_t process_ = getpid();
  int fd_ = -1;
  std::atomic<uint32_t> child_{kNotTold};
  std::atomic<bool> lost_{false};
  pthread_t thread_;
  bool started_ = false;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_END_WATCH_H_
