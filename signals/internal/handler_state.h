// What signal handlers share with threads, and how either side copies a siginfo
// and waits for the other.
//
// A handler may run on any thread at any moment, even while that thread runs
// code of this file.
#ifndef TOCSIN_SIGNALS_INTERNAL_HANDLER_STATE_H_
#define TOCSIN_SIGNALS_INTERNAL_HANDLER_STATE_H_

#include <sys/syscall.h>
#include <sys/types.h>

#include <csignal>
#include <cstdint>

#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/raw_syscall.h"

namespace tocsin::inline v0_2::internal {

// A signal that waits for the service's thread because the kernel would not
// queue it. Free, then being written by one handler, then ready for the thread.
struct SpillSlot {
  uint32_t state;
  RawSiginfo info;
};
enum : uint32_t { kFree, kWriting, kReady };

// A direct hand-off. Not offered until a thread offers it; then being written
// by one handler, then filled with `count` signals that came before the thread
// took it back.
struct HandoffSlot {
  uint32_t state;
  int32_t count;
  uint32_t* word;  // of the sleeper
  RawSiginfo info;
};
enum : uint32_t { kNotOffered, kOffered, kFilling, kFilled };

// More signals than come while a thread is being woken. The limit keeps short
// how long delivering them takes.
constexpr int32_t kMostInSlot = 1000;

// The values of a sleeper's word that a handler uses (wakeable.h).
enum : uint32_t { kAsleep = 1, kWoken = 3 };

// All that handlers share with threads. Threads write it under
// disposition_mutex or the dispatcher's mutex, except to free spill slots and
// to count lost siginfos. Both sides use the __atomic builtins on it, except on
// the contents of a slot, which belong to one side at a time, as its state
// says.
struct HandlerState {
  pid_t process;
  pid_t service_thread;
  int32_t mark;  // si_code of a forwarded signal
  uint8_t ring_for_each;
  uint32_t handlers_running[kSignals];
  uint64_t siginfo_lost;
  uint8_t forwarded[kSignals];
  // What a signal has for its effect once it is not forwarded any more. Written
  // while no handler of it looks.
  KernelAction before[kSignals];
  SpillSlot spilled[64];
  HandoffSlot handoff_slots[kStandardSignals + 1];
};
extern HandlerState handler_state;

// si_signo, si_errno and si_code are the first three ints of a siginfo_t,
// si_pid and si_uid the fifth and sixth.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static volatile int32_t* Fields(
    uint64_t* info) {
  return reinterpret_cast<volatile int32_t*>(info);
}

constexpr int kFullWords = sizeof(siginfo_t) / sizeof(uint64_t);
constexpr int kRawWords = sizeof(RawSiginfo) / sizeof(uint64_t);

[[maybe_unused]] TOCSIN_UNINSTRUMENTED static void CopyRaw(
    volatile uint64_t* to, const volatile uint64_t* from) {
  for (int i = 0; i < kRawWords; ++i) to[i] = from[i];
}

[[maybe_unused]] TOCSIN_UNINSTRUMENTED static void ClearPadding(
    volatile uint64_t* info) {
  for (int i = kRawWords; i < kFullWords; ++i) info[i] = 0;
}

// Lets other threads run; after 100 tries also those of a lower priority.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static void Pause(int tries) {
  if (tries < 100) {
    Syscall(SYS_sched_yield);
    return;
  }
  volatile int64_t pause[2];  // a timespec
  pause[0] = 0;
  pause[1] = 50'000;
  Syscall(SYS_nanosleep, Address(&pause));
}

[[maybe_unused]] TOCSIN_UNINSTRUMENTED static bool MoveSlot(HandoffSlot& slot,
                                                            uint32_t from,
                                                            uint32_t to) {
  return __atomic_compare_exchange_n(&slot.state, &from, to, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_HANDLER_STATE_H_
