#include "tocsin/signals/internal/watchdog.h"

#include <unistd.h>

#include "absl/memory/memory.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/start_thread.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/living_child.h"
#include "tocsin/signals/internal/self_signal.h"
#include "tocsin/signals/internal/service_mask.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<Watchdog>> Watchdog::Start() {
  auto watchdog = absl::WrapUnique(new Watchdog);
  const ScopedMask mask;  // which the thread inherits
  if (const int error =
          StartThread<&Watchdog::Run, "tocsin-watchdog", BirthMask::kInherited>(
              watchdog->thread_, watchdog.get());
      error != 0) {
    watchdog->word_ = kEnds;
    return NoThread("the watchdog of Run()", error);
  }
  return watchdog;
}

Watchdog::~Watchdog() {
  if (word_ % kStates == kEnds) return;
  Unset();
  Move(word_, kEnds);
  pthread_join(thread_, nullptr);
}

void Watchdog::Set(int signum, Instant time) {
  Unset();
  signum_ = signum;
  time_ = time;
  Move(word_, kSet);
}

void Watchdog::Unset() {
  for (uint32_t word = word_; word % kStates != kUnset; word = word_) {
    if (word % kStates == kFires) {
      pause();
    } else {
      Move(word, kUnset);
    }
  }
}

bool Watchdog::Move(uint32_t from, State to) {
  if (!word_.compare_exchange_strong(from,
                                     from / kStates * kStates + kStates + to)) {
    return false;
  }
  FutexWakeOne(&word_);
  return true;
}

void Watchdog::Run() {
  while (true) {
    const uint32_t word = word_;
    if (word % kStates == kEnds) return;
    const Instant until = word % kStates == kSet ? time_.load() : kNever;
    TOCSIN_STEP("Watchdog: has looked at its time");
    if (until <= Now() && Move(word, kFires)) {
      KillLivingChildren();
      if (hook_ != nullptr) hook_->Call(After(LastWords::kPutOff));
      last_words_.Say(
          "tocsin: the grace is over, and the program has not exited.\n");
      DieBySignal(signum_);
    }
    FutexWait(word_, word, until);
  }
}

}  // namespace tocsin::inline v0_2::internal
