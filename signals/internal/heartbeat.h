// Calls a function again and again, at an interval.
//
// It does so on a thread of its own, which has the mask of the thread that
// starts it: so have the threads that the function starts.
#ifndef TOCSIN_SIGNALS_INTERNAL_HEARTBEAT_H_
#define TOCSIN_SIGNALS_INTERNAL_HEARTBEAT_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tocsin::inline v0_2::internal {

class Heartbeat {
 public:
  // The first call comes at once. kResourceExhausted if the thread cannot be
  // created.
  static absl::StatusOr<std::unique_ptr<Heartbeat>> Start(
      absl::Duration interval, std::function<void()> beat);

  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;
  // Waits for a call that is under way.
  ~Heartbeat();

 private:
  Heartbeat(absl::Duration interval, std::function<void()> beat)
      : interval_(interval), beat_(std::move(beat)) {}

  void Run();

  const absl::Duration interval_;
  const std::function<void()> beat_;
  std::atomic<uint32_t> ends_{0};  // the thread sleeps on it
  pthread_t thread_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_HEARTBEAT_H_
