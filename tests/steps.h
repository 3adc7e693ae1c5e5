// What happens at a step of the library (concurrency/internal/step.h), so that
// a test holds a race open for as long as it likes.
//
//   HeldAt held("Semaphore: wait is over");  // the first thread that comes
//   there ScopedThread thread([&] { status = semaphore.Acquire(); });
//   thread.AwaitAsleep();
//   thread.scope().Cancel();
//   held.AwaitThread();                  // it stands there now
//   ASSERT_TRUE(permit.reset());
//   held.Release();
//
// For tests that link the libraries "with_steps", and no others.
#ifndef TOCSIN_TESTS_STEPS_H_
#define TOCSIN_TESTS_STEPS_H_

#ifndef TOCSIN_STEPS
#error "Link //concurrency:with_steps or //signals:with_steps"
#endif

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>

#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin {

// Runs `act` on the first thread that comes to `step`; on no other, and once.
// At most eight exist at a time, made and destroyed by one thread.
class AtStep {
 public:
  AtStep(const char* step, std::function<void()> act)
      : step_(step), act_(std::move(act)) {
    for (Place& place : places) {
      AtStep* empty = nullptr;
      if (!place.at.compare_exchange_strong(empty, this)) continue;
      __atomic_store_n(&internal::at_step, &Come, __ATOMIC_SEQ_CST);
      place_ = &place;
      return;
    }
    abort();
  }
  AtStep(const AtStep&) = delete;
  AtStep& operator=(const AtStep&) = delete;
  // Waits until `act` is over, if it has begun.
  ~AtStep() {
    place_->at.store(nullptr);
    while (place_->looking.load() != 0) sched_yield();
  }

  // Whether some thread has come.
  bool passed() const { return taken_.load(); }

 private:
  struct Place {
    std::atomic<AtStep*> at;
    std::atomic<int> looking;  // threads that may be in it
  };

  static void Come(const char* step) {
    const int error = errno;  // a handler leaves it as it was
    for (Place& place : places) {
      place.looking.fetch_add(1);
      AtStep* const at = place.at.load();
      if (at != nullptr && std::strcmp(at->step_, step) == 0 &&
          !at->taken_.exchange(true)) {
        at->act_();
      }
      place.looking.fetch_sub(1);
    }
    errno = error;
  }

  inline static constinit Place places[8] = {};

  const char* const step_;
  const std::function<void()> act_;
  std::atomic<bool> taken_{false};
  Place* place_ = nullptr;
};

// Stops the first thread that comes to `step`, until Release() or the end of
// the block.
class HeldAt {
 public:
  explicit HeldAt(const char* step) : at_(step, [this] { Stop(); }) {}
  ~HeldAt() { Release(); }

  // Returns once a thread stands there.
  void AwaitThread() {
    while (state_.load() == kNobody) internal::FutexWait(state_, kNobody);
  }
  // Lets it go on; and if none has come yet, stops none.
  void Release() {
    state_.store(kReleased);
    internal::FutexWakeAll(&state_);
  }

 private:
  enum : uint32_t { kNobody, kStopped, kReleased };

  void Stop() {
    uint32_t nobody = kNobody;
    if (!state_.compare_exchange_strong(nobody, kStopped)) return;
    internal::FutexWakeAll(&state_);
    while (state_.load() == kStopped) internal::FutexWait(state_, kStopped);
  }

  std::atomic<uint32_t> state_{kNobody};
  AtStep at_;  // uses it
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_STEPS_H_
