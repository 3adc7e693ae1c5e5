#include "tocsin/signals/internal/watchdog.h"

#include <unistd.h>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/last_words.h"
#include "tocsin/signals/internal/self_signal.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<Watchdog>> Watchdog::Start() {
  auto watchdog = absl::WrapUnique(new Watchdog);
  auto run = [](void* self) -> void* {
    pthread_setname_np(pthread_self(), "tocsin-watchdog");
    static_cast<Watchdog*>(self)->Run();
    return nullptr;
  };
  if (const int error =
          pthread_create(&watchdog->thread_, nullptr, run, watchdog.get());
      error != 0) {
    watchdog->word_ = kEnds;
    return absl::ResourceExhaustedError(absl::StrCat(
        "pthread_create for the watchdog of Run(): ", ErrorText(error)));
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
      SayLast("tocsin: the grace is over, and the program has not exited.\n");
      DieBySignal(signum_);
    }
    FutexWait(word_, word, until);
  }
}

}  // namespace tocsin::inline v0_2::internal
