#include "tocsin/signals/internal/heartbeat.h"

#include "absl/memory/memory.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/start_thread.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<Heartbeat>> Heartbeat::Start(
    absl::Duration interval, std::function<void()> beat) {
  auto heartbeat = absl::WrapUnique(new Heartbeat(interval, std::move(beat)));
  if (const int error = StartThread<&Heartbeat::Run, "tocsin-beat">(
          heartbeat->thread_, heartbeat.get());
      error != 0) {
    heartbeat->ends_ = 1;
    return NoThread("the heartbeat of Run()", error);
  }
  return heartbeat;
}

Heartbeat::~Heartbeat() {
  if (ends_.exchange(1) != 0) return;
  FutexWakeOne(&ends_);
  pthread_join(thread_, nullptr);
}

void Heartbeat::Run() {
  while (ends_ == 0) {
    beat_();
    const Instant next = After(interval_);
    while (ends_ == 0 && Now() < next) FutexWait(ends_, 0, next);
  }
}

}  // namespace tocsin::inline v0_2::internal
