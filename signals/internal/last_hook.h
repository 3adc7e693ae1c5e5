// The program's own last act before the process dies by force.
//
// Its thread is there beforehand, so that a forced end needs neither memory nor
// a lock, and whatever the hook does, the end waits for it only so long.
#ifndef TOCSIN_SIGNALS_INTERNAL_LAST_HOOK_H_
#define TOCSIN_SIGNALS_INTERNAL_LAST_HOOK_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/clock.h"

namespace tocsin::inline v0_2::internal {

class LastHook {
 public:
  // Null if the hook is empty. kResourceExhausted if the thread cannot be
  // created.
  static absl::StatusOr<std::unique_ptr<LastHook>> Start(
      std::function<void()> hook);

  LastHook(const LastHook&) = delete;
  LastHook& operator=(const LastHook&) = delete;
  ~LastHook();

  // Has the thread call the hook, and waits until it has returned or until
  // then. One thread may call it, once.
  void Call(Instant until);

 private:
  enum State : uint32_t { kWaits, kCalls, kHasReturned, kEnds };

  explicit LastHook(std::function<void()> hook) : hook_(std::move(hook)) {}

  void Run();
  void Move(State state);

  const std::function<void()> hook_;
  std::atomic<uint32_t> state_{kWaits};
  pthread_t thread_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LAST_HOOK_H_
