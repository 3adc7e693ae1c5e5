#include "tocsin/signals/internal/last_hook.h"

#include "absl/memory/memory.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/signals/internal/service_mask.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<LastHook>> LastHook::Start(
    std::function<void()> hook) {
  if (hook == nullptr) return nullptr;
  auto last = absl::WrapUnique(new LastHook(std::move(hook)));
  const ScopedMask mask;  // which the thread inherits
  if (const int error =
          StartThread<&LastHook::Run, "tocsin-hook", BirthMask::kInherited>(
              last->thread_, last.get());
      error != 0) {
    last->state_ = kEnds;
    return NoThread("the hook of a forced end", error);
  }
  return last;
}

LastHook::~LastHook() {
  if (state_ == kEnds) return;
  Move(kEnds);
  pthread_join(thread_, nullptr);
}

void LastHook::Call(Instant until) {
  Move(kCalls);
  while (state_ == kCalls && Now() < until) FutexWait(state_, kCalls, until);
}

void LastHook::Run() {
  while (state_ == kWaits) FutexWait(state_, kWaits);
  if (state_ != kCalls) return;
  hook_();
  Move(kHasReturned);
}

void LastHook::Move(State state) {
  state_ = state;
  FutexWakeAll(&state_);
}

}  // namespace tocsin::inline v0_2::internal
