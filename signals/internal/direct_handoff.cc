#include "tocsin/signals/internal/direct_handoff.h"

#include <cstdint>

#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/raw_syscall.h"

namespace tocsin::internal {

static_assert(kAsleep == uint32_t{Sleeper::kAsleep} &&
              kWoken == uint32_t{Sleeper::kWoken});

TOCSIN_UNINSTRUMENTED void TakeSeat(int signum, Sleeper& sleeper) {
  Seat& seat = handler_state.seats[signum];
  seat.word = sleeper.word();
  TOCSIN_STEP("Forwarder: about to take a seat");
  __atomic_store_n(&seat.state, uint32_t{kTaken}, __ATOMIC_SEQ_CST);
}

TOCSIN_UNINSTRUMENTED int ClearSeat(int signum, RawSiginfo& info) {
  Seat& seat = handler_state.seats[signum];
  if (MoveSeat(seat, kTaken, kEmpty)) return 0;
  for (int tries = 0; !MoveSeat(seat, kFilled, kFilling); ++tries) {
    if (__atomic_load_n(&seat.state, __ATOMIC_SEQ_CST) == kEmpty) return 0;
    TOCSIN_STEP("Forwarder: waits for a seat to be filled");
    Pause(tries);
  }
  CopyRaw(info.words, seat.info.words);
  const int count = seat.count;
  __atomic_store_n(&seat.state, uint32_t{kEmpty}, __ATOMIC_SEQ_CST);
  return count;
}

bool IsWaitedFor(int signum) {
  return __atomic_load_n(&handler_state.seats[signum].state,
                         __ATOMIC_SEQ_CST) == kTaken;
}

}  // namespace tocsin::internal
