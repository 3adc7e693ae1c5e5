#include "tocsin/signals/internal/direct_handoff.h"

#include <cstdint>
#include <utility>

#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/raw_syscall.h"

namespace tocsin::inline v0_2::internal {

static_assert(kAsleep == uint32_t{Sleeper::kAsleep} &&
              kWoken == uint32_t{Sleeper::kWoken});

TOCSIN_UNINSTRUMENTED void OfferSlot(int signum, Sleeper& sleeper) {
  HandoffSlot& slot = handler_state.handoff_slots[signum];
  slot.word = sleeper.word();
  TOCSIN_STEP("DirectHandoff: about to offer a slot");
  __atomic_store_n(&slot.state, uint32_t{kOffered}, __ATOMIC_SEQ_CST);
}

TOCSIN_UNINSTRUMENTED int TakeSlot(int signum, RawSiginfo& info) {
  HandoffSlot& slot = handler_state.handoff_slots[signum];
  if (MoveSlot(slot, kOffered, kNotOffered)) return 0;
  for (int tries = 0; !MoveSlot(slot, kFilled, kFilling); ++tries) {
    if (__atomic_load_n(&slot.state, __ATOMIC_SEQ_CST) == kNotOffered) return 0;
    TOCSIN_STEP("DirectHandoff: waits for a handler");
    Pause(tries);
  }
  CopyRaw(info.words, slot.info.words);
  const int count = slot.count;
  __atomic_store_n(&slot.state, uint32_t{kNotOffered}, __ATOMIC_SEQ_CST);
  return count;
}

bool IsWaitedFor(int signum) {
  return __atomic_load_n(&handler_state.handoff_slots[signum].state,
                         __ATOMIC_SEQ_CST) == kOffered;
}

bool DirectHandoff::Offer(int signum, Sleeper& sleeper) {
  if (offered_by_[signum] != nullptr) return false;
  offered_by_[signum] = &sleeper;
  OfferSlot(signum, sleeper);
  return true;
}

int DirectHandoff::TakeBack(int signum, RawSiginfo& info) {
  if (!IsStandard(signum)) return 0;
  if (std::exchange(offered_by_[signum], nullptr) == nullptr) return 0;
  return TakeSlot(signum, info);
}

}  // namespace tocsin::inline v0_2::internal
