#include "tocsin/signals/internal/forwarding.h"

#include <sys/random.h>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"

namespace tocsin::inline v0_2::internal {

namespace {

int32_t RandomMark() {
  uint32_t random = 0;
  if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
    random = static_cast<uint32_t>(Now().time_since_epoch().count());
  }
  // Negative, because the kernel accepts only that, and below all that it
  // defines.
  return -1000 - static_cast<int32_t>(random & 0x3fffffff);
}

}  // namespace

void SetServiceThread(pid_t thread) {
  __atomic_store_n(&handler_state.mark, RandomMark(), __ATOMIC_SEQ_CST);
  __atomic_store_n(&handler_state.service_thread, thread, __ATOMIC_SEQ_CST);
}

bool Unwrap(RawSiginfo& info) {
  volatile int32_t* fields = Fields(info.words);
  if (fields[2] != __atomic_load_n(&handler_state.mark, __ATOMIC_SEQ_CST))
    return false;
  fields[2] = fields[1];
  fields[1] = 0;
  return true;
}

bool TakeSpilled(RawSiginfo& info) {
  for (SpillSlot& slot : handler_state.spilled) {
    if (__atomic_load_n(&slot.state, __ATOMIC_SEQ_CST) != kReady) continue;
    CopyRaw(info.words, slot.info.words);
    TOCSIN_STEP("Forwarding: about to free a spill slot");
    __atomic_store_n(&slot.state, uint32_t{kFree}, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

void RingForEach(bool ring) {
  __atomic_store_n(&handler_state.ring_for_each, uint8_t{ring},
                   __ATOMIC_SEQ_CST);
}

uint64_t LostSiginfoCount() {
  return __atomic_load_n(&handler_state.siginfo_lost, __ATOMIC_RELAXED);
}

void ForgetHandlersAfterFork() {
  __atomic_store_n(&handler_state.process, getpid(), __ATOMIC_SEQ_CST);
  for (uint32_t& count : handler_state.handlers_running) {
    __atomic_store_n(&count, 0u, __ATOMIC_SEQ_CST);
  }
  for (SpillSlot& slot : handler_state.spilled) {
    __atomic_store_n(&slot.state, uint32_t{kFree}, __ATOMIC_SEQ_CST);
  }
  for (HandoffSlot& slot : handler_state.handoff_slots) {
    __atomic_store_n(&slot.state, uint32_t{kNotOffered}, __ATOMIC_SEQ_CST);
  }
}

}  // namespace tocsin::inline v0_2::internal
