#include "tocsin/signals/internal/signal_handler.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>

#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/raw_syscall.h"

// Handlers are not instrumented and use nothing but the __atomic builtins and
// raw system calls, which leave errno alone. They copy through volatile words,
// so that the compiler does not turn that into a call of memcpy.

// Where our handler returns to when the kernel has called it: an
// rt_sigreturn(2). On x86-64 the program must provide it; on AArch64 it
// replaces the kernel's own. The bytes are those of the C library or the
// kernel, because debuggers and unwinders recognize a signal frame by them.
extern "C" void tocsin_restore_rt();
asm(R"(
.pushsection .text
.globl tocsin_restore_rt
.hidden tocsin_restore_rt
.type tocsin_restore_rt,%function
.balign 16
nop
tocsin_restore_rt:
)"
#if defined(__x86_64__)
    "  .byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05\n"
#elif defined(__aarch64__)
    "  .inst 0xd2801168\n  .inst 0xd4000001\n"
#else
#error "Tocsin's signal handler is written for x86-64 and AArch64."
#endif
    R"(
.size tocsin_restore_rt, .-tocsin_restore_rt
.popsection
)");

namespace tocsin::inline v0_2::internal {

constinit HandlerState handler_state{};

namespace {

// The process is at its RLIMIT_SIGPENDING. Gives the threads that drain the
// queue about 50 ms; returns false after that.
TOCSIN_UNINSTRUMENTED bool WaitForRoom(int tries) {
  if (tries >= 600) return false;
  Pause(tries);
  return true;
}

// Sends to the process as a whole, siginfo unchanged. The kernel allows that
// only with the caller's thread id, which stands for its process here.
TOCSIN_UNINSTRUMENTED void SendToProcess(int signum, uint64_t* info) {
  const long self = Syscall(SYS_gettid);
  for (int tries = 0;; ++tries) {
    const long result =
        Syscall(SYS_rt_sigqueueinfo, self, signum, Address(info));
    if (result != -EAGAIN) return;
    if (!WaitForRoom(tries)) break;
  }
  // A signal as from kill(2) is never refused: the number survives, its siginfo
  // does not.
  __atomic_fetch_add(&handler_state.siginfo_lost, 1, __ATOMIC_RELAXED);
  for (int i = 1; i < kFullWords; ++i) {
    const_cast<volatile uint64_t*>(info)[i] = 0;
  }
  Fields(info)[1] = 0;
  Syscall(SYS_rt_sigqueueinfo, self, signum, Address(info));
}

TOCSIN_UNINSTRUMENTED void Ring(long process) {
  Syscall(SYS_tgkill, process,
          __atomic_load_n(&handler_state.service_thread, __ATOMIC_SEQ_CST),
          kDoorbell);
}

TOCSIN_UNINSTRUMENTED bool Spill(long process, const uint64_t* info) {
  for (SpillSlot& slot : handler_state.spilled) {
    uint32_t free = kFree;
    if (!__atomic_compare_exchange_n(&slot.state, &free, uint32_t{kWriting},
                                     false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)) {
      continue;
    }
    TOCSIN_STEP("Handler: about to fill a spill slot");
    CopyRaw(slot.info.words, info);
    __atomic_store_n(&slot.state, uint32_t{kReady}, __ATOMIC_SEQ_CST);
    Ring(process);
    return true;
  }
  return false;
}

TOCSIN_UNINSTRUMENTED void SendToService(long process, int signum,
                                         uint64_t* info) {
  volatile int32_t* fields = Fields(info);
  const int32_t error = fields[1];
  const int32_t code = fields[2];
  for (int tries = 0;; ++tries) {
    fields[1] = code;
    fields[2] = __atomic_load_n(&handler_state.mark, __ATOMIC_SEQ_CST);
    TOCSIN_STEP("Handler: about to forward");
    const long result = Syscall(
        SYS_rt_tgsigqueueinfo, process,
        __atomic_load_n(&handler_state.service_thread, __ATOMIC_SEQ_CST),
        signum, Address(info));
    if (result == 0) {
      // Read after the signal is there: a thread that sets it then makes the
      // service's thread look again.
      if (__atomic_load_n(&handler_state.ring_for_each, __ATOMIC_SEQ_CST)) {
        Ring(process);
      }
      return;
    }
    fields[1] = error;
    fields[2] = code;
    if (result != -EAGAIN) break;
    if (Spill(process, info)) return;
    if (!WaitForRoom(tries)) break;
  }
  SendToProcess(signum, info);
}

// False if no slot is offered, another handler is writing it, or it is full.
TOCSIN_UNINSTRUMENTED bool HandOver(int signum, const uint64_t* info) {
  if (signum > kStandardSignals) return false;
  HandoffSlot& slot = handler_state.handoff_slots[signum];
  if (MoveSlot(slot, kFilled, kFilling)) {
    const bool room = slot.count < kMostInSlot;
    if (room) ++slot.count;
    __atomic_store_n(&slot.state, uint32_t{kFilled}, __ATOMIC_SEQ_CST);
    return room;
  }
  if (!MoveSlot(slot, kOffered, kFilling)) return false;
  TOCSIN_STEP("Handler: about to hand over");
  CopyRaw(slot.info.words, info);
  slot.count = 1;
  // Once the slot is filled, its thread may be gone; then only the address is
  // used.
  uint32_t* const word = slot.word;
  const bool asleep =
      __atomic_exchange_n(word, uint32_t{kWoken}, __ATOMIC_SEQ_CST) == kAsleep;
  TOCSIN_STEP("Handler: has marked the sleeper");
  __atomic_store_n(&slot.state, uint32_t{kFilled}, __ATOMIC_SEQ_CST);
  if (asleep) {
    Syscall(SYS_futex, Address(word), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
  }
  return true;
}

// For a child made without pthread_atfork(), by vfork(), _Fork() or clone():
// the signal is the child's own. It is ignored if it was before us, and else
// has its default action.
TOCSIN_UNINSTRUMENTED void TakeDefaultAction(int signum, uint64_t* info) {
  if (signum == kDoorbell) return;
  KernelAction action = GetAction(signum);
  action.handler = reinterpret_cast<void*>(
      IgnoredBy(handler_state.before[signum]) ? SIG_IGN : SIG_DFL);
  action.flags &= ~static_cast<unsigned long>(SA_SIGINFO);
  SetAction(signum, action);
  SendToProcess(signum, info);  // pending until the handler has returned
}

// A signal that is not forwarded any more has the effect that it had before us.
// Returns the handler that the caller is to call for that, or null.
TOCSIN_UNINSTRUMENTED void* Decline(int signum, uint64_t* info,
                                    bool our_restorer) {
  const KernelAction& before = handler_state.before[signum];
  const KernelAction found = GetAction(signum);
  const bool restored = found.handler == before.handler;
  if (IsOurs(found)) {
    // Other code had replaced us, and put us back after the close.
    SetAction(signum, before);
  } else if (!our_restorer || !restored) {
    // Either the kernel called us before the close, or the handler that is
    // there calls us as the one that it replaced. Sent to that once more, the
    // signal would come back.
    const int32_t mark = __atomic_load_n(&handler_state.mark, __ATOMIC_SEQ_CST);
    const bool by_kernel = our_restorer || restored;
    if (!by_kernel || Fields(info)[1] == mark) {
      return IsHandler(before) && !restored ? before.handler : nullptr;
    }
    Fields(info)[1] = mark;
  }
  SendToProcess(signum, info);
  return nullptr;
}

// Whether other code has a handler for the doorbell's signal, or will have once
// it is decided whose it is (doorbell_claim.h).
TOCSIN_UNINSTRUMENTED bool MayBeForOthers() {
  const KernelAction action = GetAction(kDoorbell);
  if (IsOurs(action)) return (action.flags & kUndecided) == kUndecided;
  return IsHandler(action);
}

TOCSIN_UNINSTRUMENTED void Handler(int signum, siginfo_t* received,
                                   void* context) {
  // So it is if the kernel called us, unless other code has put us back.
  const bool our_restorer = __builtin_return_address(0) ==
                            reinterpret_cast<void*>(&tocsin_restore_rt);

  // The padding is zeroed: with a si_code it does not know, the kernel accepts
  // nothing else.
  uint64_t info[kFullWords];
  CopyRaw(info, reinterpret_cast<const volatile uint64_t*>(received));
  ClearPadding(info);

  const long process = Syscall(SYS_getpid);
  if (process != __atomic_load_n(&handler_state.process, __ATOMIC_SEQ_CST)) {
    TakeDefaultAction(signum, info);
    return;
  }
  TOCSIN_STEP("Handler: begins");
  if (signum == kDoorbell) {
    // Those that wake a thread of ours do not come here: it blocks them.
    if (our_restorer && MayBeForOthers()) {
      TOCSIN_STEP("Handler: the doorbell may be for others");
      Pause(100);
      SendToProcess(signum, info);
    }
    return;
  }
  // Counted before the look at `forwarded`: StopForwarding() clears that and
  // then waits for the count to be zero. Both orders are sequentially
  // consistent, so either we see that it is cleared, or it sees that we are
  // here. Forward() sets it and waits in the same way.
  __atomic_fetch_add(&handler_state.handlers_running[signum], 1,
                     __ATOMIC_SEQ_CST);
  TOCSIN_STEP("Handler: is counted");
  void* other = nullptr;
  if (__atomic_load_n(&handler_state.forwarded[signum], __ATOMIC_SEQ_CST)) {
    if (!HandOver(signum, info)) SendToService(process, signum, info);
  } else {
    other = Decline(signum, info, our_restorer);
  }
  __atomic_fetch_sub(&handler_state.handlers_running[signum], 1,
                     __ATOMIC_SEQ_CST);
  if (other != nullptr) {
    reinterpret_cast<void (*)(int, siginfo_t*, void*)>(other)(signum, received,
                                                              context);
  }
}

}  // namespace

constinit const HandlerAddresses kHandlerAddresses = {
    .handler = &Handler, .restorer = &tocsin_restore_rt};

KernelAction OurAction(unsigned long flags) {
  return {.handler = reinterpret_cast<void*>(kHandlerAddresses.handler),
          .flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | kRestorer | flags,
          .restorer = reinterpret_cast<void*>(kHandlerAddresses.restorer),
          .mask = ~uint64_t{0}};
}

TOCSIN_UNINSTRUMENTED bool IsOurs(const KernelAction& action) {
  return action.handler == reinterpret_cast<void*>(kHandlerAddresses.handler);
}

TOCSIN_UNINSTRUMENTED void GiveBack(const RawSiginfo& info) {
  uint64_t full[kFullWords];
  CopyRaw(full, info.words);
  ClearPadding(full);
  SendToProcess(Fields(full)[0], full);
}

TOCSIN_UNINSTRUMENTED void RingDoorbell() { Ring(Syscall(SYS_getpid)); }

}  // namespace tocsin::inline v0_2::internal
