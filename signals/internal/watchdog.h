// Ends the process by a signal once its time is over, whatever hangs.
//
// One thread at a time may set it. Its own thread takes no lock and no memory.
#ifndef TOCSIN_SIGNALS_INTERNAL_WATCHDOG_H_
#define TOCSIN_SIGNALS_INTERNAL_WATCHDOG_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/signals/internal/last_hook.h"
#include "tocsin/signals/internal/last_words.h"

namespace tocsin::inline v0_2::internal {

class Watchdog {
 public:
  // kResourceExhausted if a thread cannot be created.
  static absl::StatusOr<std::unique_ptr<Watchdog>> Start();

  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  // From here on the process and its children die at `time`, it by `signum`.
  void Set(int signum, Instant time);
  // From here on it does not. Does not return if it is dying.
  void Unset();
  // It calls `hook`, which may be null, before the process dies. While it is
  // not set; what the previous hook refers to may be destroyed then.
  void UseHook(std::unique_ptr<LastHook> hook) { hook_ = std::move(hook); }

 private:
  enum State : uint32_t { kUnset, kSet, kFires, kEnds };
  static constexpr uint32_t kStates = 4;

  Watchdog() = default;

  void Run();
  // False, and nothing done, if the word is not `from` any more.
  bool Move(uint32_t from, State to);

  // A State, and above it how often it has changed: nobody takes a new state
  // for the one that it has looked at. The thread sleeps on it.
  std::atomic<uint32_t> word_{kUnset};
  // Written while it is not set.
  std::atomic<int> signum_{0};
  std::atomic<Instant> time_{kNever};
  std::unique_ptr<LastHook> hook_;  // may be null
  const LastWords last_words_;
  pthread_t thread_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_WATCHDOG_H_
