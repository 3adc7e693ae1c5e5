#include "tocsin/signals/internal/forwarder.h"

#include <sched.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/signals/internal/raw_syscall.h"

// Handlers are not instrumented and use nothing but the __atomic builtins and
// raw system calls, which leave errno alone. Where they copy, they do so
// through volatile words, so that the compiler makes no call to memcpy of it.

// Where our handler returns to when the kernel has called it: a
// rt_sigreturn(2). x86-64 asks the program for it; on AArch64 it is in the
// place of the kernel's own. The bytes are those of the C library or the
// kernel, by which debuggers and unwinders know a signal frame.
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

namespace tocsin::internal {

constexpr int kSignals = 65;  // an array indexed by signal number has this size

// A signal that waits for the service's thread because the kernel would not
// queue it. Free, then being written by one handler, then ready for the thread.
struct SpillSlot {
  uint32_t state;
  RawSiginfo info;
};
enum : uint32_t { kFree, kWriting, kReady };

// Empty, until a thread takes it; then being written by one handler, and filled
// with `count` signals that came before the thread cleared it.
struct Seat {
  uint32_t state;
  int32_t count;
  uint32_t* word;  // of the sleeper
  RawSiginfo info;
};
enum : uint32_t { kEmpty, kTaken, kFilling, kFilled };

// More than a thread that is being woken ever misses. It keeps the time short
// that handing them on takes.
constexpr int32_t kMostInSeat = 1000;

// What a sleeper's word says, as far as a handler looks (sleeper.h).
enum : uint32_t { kAsleep = 1, kWoken = 3 };

// All that handlers share with threads. Threads write it while they hold the
// service's control mutex; both sides use only the __atomic builtins on it.
struct HandlerState {
  pid_t process;
  pid_t service_thread;
  int32_t mark;  // si_code of a forwarded signal
  uint8_t ring_for_each;
  uint32_t handlers_running[kSignals];
  uint64_t siginfo_lost;
  uint8_t forwarded[kSignals];
  uint8_t ignored_before[kSignals];
  SpillSlot spilled[64];
  Seat seats[kStandardSignals + 1];
};
constinit HandlerState handler_state{};

// struct sigaction as rt_sigaction(2) takes it.
struct KernelAction {
  void* handler;
  unsigned long flags;
  void* restorer;
  uint64_t mask;
};

// Not sigaction(3), for two reasons. Under ThreadSanitizer that one installs a
// handler that runs "later", which for a thread asleep in a futex is never. And
// the C library takes its own two signals out of sa_mask; with them blocked
// too, pthread_cancel() cannot unwind through our handler.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static KernelAction GetAction(
    int signum) {
  KernelAction action;
  Syscall(SYS_rt_sigaction, signum, 0, Address(&action), sizeof(uint64_t));
  return action;
}
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static void SetAction(
    int signum, const KernelAction& action) {
  Syscall(SYS_rt_sigaction, signum, Address(&action), 0, sizeof(uint64_t));
}

// si_signo, si_errno and si_code are the first three ints of a siginfo_t,
// si_pid and si_uid the fifth and sixth.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static volatile int32_t* Fields(
    uint64_t* info) {
  return reinterpret_cast<volatile int32_t*>(info);
}

constexpr unsigned long kRestorer = 0x04000000;  // SA_RESTORER, in no header

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

// Lets others run, also those of a lower priority if need be.
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

static_assert(kAsleep == uint32_t{Sleeper::kAsleep} &&
              kWoken == uint32_t{Sleeper::kWoken});

[[maybe_unused]] TOCSIN_UNINSTRUMENTED static bool MoveSeat(Seat& seat,
                                                            uint32_t from,
                                                            uint32_t to) {
  return __atomic_compare_exchange_n(&seat.state, &from, to, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

namespace {

// The process is at its RLIMIT_SIGPENDING. Gives those who drain the queue
// about 50 ms; false when that was in vain.
TOCSIN_UNINSTRUMENTED bool WaitForRoom(int tries) {
  if (tries >= 600) return false;
  Pause(tries);
  return true;
}

// To the process as a whole, siginfo unchanged. The kernel allows that under
// the thread id of the caller only, which stands for its process here.
TOCSIN_UNINSTRUMENTED void SendToProcess(int signum, uint64_t* info) {
  const long self = Syscall(SYS_gettid);
  for (int tries = 0;; ++tries) {
    const long result =
        Syscall(SYS_rt_sigqueueinfo, self, signum, Address(info));
    if (result != -EAGAIN) return;
    if (!WaitForRoom(tries)) break;
  }
  // A signal by kill(2) is never refused: the number survives, its siginfo does
  // not.
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
    TOCSIN_STEP("Forwarder: about to fill a slot");
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
    TOCSIN_STEP("Forwarder: about to forward");
    const long result = Syscall(
        SYS_rt_tgsigqueueinfo, process,
        __atomic_load_n(&handler_state.service_thread, __ATOMIC_SEQ_CST),
        signum, Address(info));
    if (result == 0) {
      // After the signal is there: who sets this has the thread look once more.
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

// False if nobody sits there, or another handler is at it.
TOCSIN_UNINSTRUMENTED bool LeaveInSeat(int signum, const uint64_t* info) {
  if (signum > kStandardSignals) return false;
  Seat& seat = handler_state.seats[signum];
  if (MoveSeat(seat, kFilled, kFilling)) {
    const bool room = seat.count < kMostInSeat;
    if (room) ++seat.count;
    __atomic_store_n(&seat.state, uint32_t{kFilled}, __ATOMIC_SEQ_CST);
    return room;
  }
  if (!MoveSeat(seat, kTaken, kFilling)) return false;
  TOCSIN_STEP("Forwarder: about to fill a seat");
  CopyRaw(seat.info.words, info);
  seat.count = 1;
  // Its thread may be gone once the seat is filled; then only the address
  // counts.
  uint32_t* const word = seat.word;
  const bool asleep =
      __atomic_exchange_n(word, uint32_t{kWoken}, __ATOMIC_SEQ_CST) == kAsleep;
  TOCSIN_STEP("Forwarder: has marked the sleeper");
  __atomic_store_n(&seat.state, uint32_t{kFilled}, __ATOMIC_SEQ_CST);
  if (asleep) {
    Syscall(SYS_futex, Address(word), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
  }
  return true;
}

// A child made behind the back of pthread_atfork(), by vfork(), _Fork() or
// clone(): the signal is its own, and it does what it would do without us.
TOCSIN_UNINSTRUMENTED void TakeDefaultAction(int signum, uint64_t* info) {
  if (signum == kDoorbell) return;
  KernelAction action = GetAction(signum);
  action.handler = reinterpret_cast<void*>(
      __atomic_load_n(&handler_state.ignored_before[signum], __ATOMIC_SEQ_CST)
          ? SIG_IGN
          : SIG_DFL);
  action.flags &= ~static_cast<unsigned long>(SA_SIGINFO);
  SetAction(signum, action);
  SendToProcess(signum, info);  // pending until the handler has returned
}

TOCSIN_UNINSTRUMENTED void Handler(int signum, siginfo_t* received, void*) {
  // A handler that replaced ours may call it as its predecessor, also after we
  // have closed. Sending the signal again would then bring it back here for
  // ever.
  const bool called_by_kernel = __builtin_return_address(0) ==
                                reinterpret_cast<void*>(&tocsin_restore_rt);

  // The padding is zeroed: with a si_code it does not know, the kernel takes
  // nothing else.
  uint64_t info[kFullWords];
  CopyRaw(info, reinterpret_cast<const volatile uint64_t*>(received));
  ClearPadding(info);

  const long process = Syscall(SYS_getpid);
  if (process != __atomic_load_n(&handler_state.process, __ATOMIC_SEQ_CST)) {
    TakeDefaultAction(signum, info);
    return;
  }
  TOCSIN_STEP("Forwarder: handler begins");
  // Counted before the look at `forwarded`: StopForwarding() clears that and
  // then waits for the count to be zero. Both orders are sequentially
  // consistent, so either we see that it is cleared, or it sees that we are
  // here.
  __atomic_fetch_add(&handler_state.handlers_running[signum], 1,
                     __ATOMIC_SEQ_CST);
  TOCSIN_STEP("Forwarder: handler is counted");
  if (__atomic_load_n(&handler_state.forwarded[signum], __ATOMIC_SEQ_CST)) {
    if (!LeaveInSeat(signum, info)) SendToService(process, signum, info);
  } else if (signum != kDoorbell && called_by_kernel) {
    SendToProcess(signum, info);
  }
  __atomic_fetch_sub(&handler_state.handlers_running[signum], 1,
                     __ATOMIC_SEQ_CST);
}

constinit KernelAction previous[kSignals] ABSL_GUARDED_BY(
    disposition_mutex) = {};

struct HandlerAddresses {
  void (*handler)(int, siginfo_t*, void*);
  void (*restorer)();
};
constinit const HandlerAddresses kHandlerAddresses = {
    .handler = &Handler, .restorer = &tocsin_restore_rt};

bool IgnoredBy(const KernelAction& action) {
  return action.handler == reinterpret_cast<void*>(SIG_IGN);
}

int32_t RandomMark() {
  uint32_t random = 0;
  if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
    random = static_cast<uint32_t>(absl::ToUnixNanos(internal::Now()));
  }
  // Negative, for the kernel takes only these; and below all that it defines.
  return -1000 - static_cast<int32_t>(random & 0x3fffffff);
}

}  // namespace

ABSL_CONST_INIT SlimMutex disposition_mutex;

void SetServiceThread(pid_t thread) {
  __atomic_store_n(&handler_state.mark, RandomMark(), __ATOMIC_SEQ_CST);
  __atomic_store_n(&handler_state.service_thread, thread, __ATOMIC_SEQ_CST);
  __atomic_store_n(&handler_state.process, getpid(), __ATOMIC_SEQ_CST);
}

void Forward(int signum) {
  previous[signum] = GetAction(signum);
  KernelAction action{};
  action.handler = reinterpret_cast<void*>(kHandlerAddresses.handler);
  action.flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | kRestorer;
  action.mask = ~uint64_t{0};
  if (signum == SIGCHLD) {
    // Which children become zombies, and which changes are told, stays as it
    // was.
    action.flags |= previous[signum].flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
    if (IgnoredBy(previous[signum])) action.flags |= SA_NOCLDWAIT;
  }
  action.restorer = reinterpret_cast<void*>(kHandlerAddresses.restorer);
  __atomic_store_n(&handler_state.ignored_before[signum],
                   uint8_t{IgnoredBy(previous[signum])}, __ATOMIC_SEQ_CST);
  __atomic_store_n(&handler_state.forwarded[signum], uint8_t{1},
                   __ATOMIC_SEQ_CST);
  TOCSIN_STEP("Forwarder: about to install the handler");
  SetAction(signum, action);
}

bool RestoreDisposition(int signum) {
  if (!HandlerInPlace(signum)) return false;
  SetAction(signum, previous[signum]);
  return true;
}

void StopForwarding(int signum) {
  __atomic_store_n(&handler_state.forwarded[signum], uint8_t{0},
                   __ATOMIC_SEQ_CST);
}

void AwaitHandlers(int signum) {
  while (__atomic_load_n(&handler_state.handlers_running[signum],
                         __ATOMIC_SEQ_CST) != 0) {
    TOCSIN_STEP("Forwarder: waits for a handler");
    sched_yield();
  }
}

bool IsIgnored(int signum) {
  if (HandlerInPlace(signum)) {
    return __atomic_load_n(&handler_state.ignored_before[signum],
                           __ATOMIC_SEQ_CST);
  }
  return IgnoredBy(GetAction(signum));
}

bool HandlerInPlace(int signum) {
  return GetAction(signum).handler ==
         reinterpret_cast<void*>(kHandlerAddresses.handler);
}

int TakePending(uint64_t signals, RawSiginfo& info, absl::Duration timeout) {
  // Not sigwaitinfo(3), which hides that a signal came from pthread_kill(3).
  siginfo_t full;
  const timespec limit = absl::ToTimespec(timeout);
  const long result =
      Syscall(SYS_rt_sigtimedwait, Address(&signals), Address(&full),
              timeout == absl::InfiniteDuration() ? 0 : Address(&limit),
              sizeof(signals));
  if (result > 0) info = RawSiginfo::From(full);
  return static_cast<int>(result);
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
    TOCSIN_STEP("Forwarder: about to free a slot");
    __atomic_store_n(&slot.state, uint32_t{kFree}, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

TOCSIN_UNINSTRUMENTED void GiveBack(const RawSiginfo& info) {
  uint64_t full[kFullWords];
  CopyRaw(full, info.words);
  ClearPadding(full);
  SendToProcess(info.signum(), full);
}

TOCSIN_UNINSTRUMENTED void RingDoorbell() { Ring(Syscall(SYS_getpid)); }

void RingForEach(bool ring) {
  __atomic_store_n(&handler_state.ring_for_each, uint8_t{ring},
                   __ATOMIC_SEQ_CST);
}

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

uint64_t LostSiginfoCount() {
  return __atomic_load_n(&handler_state.siginfo_lost, __ATOMIC_RELAXED);
}

void ForgetHandlersAfterFork() {
  for (uint32_t& count : handler_state.handlers_running) {
    __atomic_store_n(&count, 0u, __ATOMIC_SEQ_CST);
  }
  for (SpillSlot& slot : handler_state.spilled) {
    __atomic_store_n(&slot.state, uint32_t{kFree}, __ATOMIC_SEQ_CST);
  }
  for (Seat& seat : handler_state.seats) {
    __atomic_store_n(&seat.state, uint32_t{kEmpty}, __ATOMIC_SEQ_CST);
  }
}

ScopedDefaultDisposition::ScopedDefaultDisposition(int signum)
    : signum_(signum) {
  const KernelAction action = GetAction(signum);
  static_assert(sizeof(previous_) == sizeof(action));
  std::memcpy(previous_, &action, sizeof(action));
  KernelAction default_action{};
  SetAction(signum, default_action);
}

ScopedDefaultDisposition::~ScopedDefaultDisposition() {
  KernelAction action;
  std::memcpy(&action, previous_, sizeof(action));
  SetAction(signum_, action);
}

}  // namespace tocsin::internal
