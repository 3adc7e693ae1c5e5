#include "tocsin/signals/internal/die_at_exit.h"

#include <stdio_ext.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iostream>
#include <utility>

#include "tocsin/signals/internal/self_signal.h"

// LeakSanitizer's, in programs that are built with it.
extern "C" __attribute__((weak)) void __lsan_do_leak_check();

namespace tocsin::inline v0_2::internal {
namespace {

constinit std::atomic<pid_t> process_to_die{0};  // none
// Written before that.
constinit int signal_to_die_by = 0;
constinit bool keeps_core = false;
constinit Instant time_to_die;
constinit Watchdog* watchdog_of_exit = nullptr;

// For a flush that nothing holds up.
constexpr absl::Duration kFlushTime = absl::Milliseconds(100);

// exit(3) runs what atexit(3) and static destructors registered, and then
// .fini_array from its end to its beginning. Priority 0 is at the beginning, so
// it runs after GCC's coverage and sanitizers, which have 99. Priorities below
// 101 are reserved for implementations, hence the warning.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor"
__attribute__((destructor(0))) void Die() {
  if (process_to_die.load(std::memory_order_acquire) != getpid()) return;
  // It is usually a shared library, whose turn would come later.
  if (__lsan_do_leak_check != nullptr) __lsan_do_leak_check();
  watchdog_of_exit->Set(signal_to_die_by,
                        std::max(time_to_die, After(kFlushTime)));
  FlushStreams();
  watchdog_of_exit->Unset();
  // More than a limit of 0, which a core that is piped to a program ignores.
  if (!keeps_core) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  DieBySignal(signal_to_die_by);
}
#pragma GCC diagnostic pop

}  // namespace

void FlushStreams() {
  std::cout.flush();
  std::clog.flush();
  // A thread that waits for input holds its lock; there is nothing to flush.
  const bool is_read = ftrylockfile(stdin) != 0;
  const int locking =
      __fsetlocking(stdin, is_read ? FSETLOCKING_BYCALLER : FSETLOCKING_QUERY);
  std::fflush(nullptr);
  if (is_read) {
    __fsetlocking(stdin, locking);
  } else {
    funlockfile(stdin);
  }
}

void DieAtExit(int signum, bool dumps_core, Instant forced_at,
               std::unique_ptr<Watchdog> watchdog) {
  signal_to_die_by = signum;
  keeps_core = dumps_core;
  time_to_die = forced_at;
  Watchdog* const before = std::exchange(watchdog_of_exit, watchdog.release());
  // That of a parent has no thread here.
  if (process_to_die.load(std::memory_order_acquire) == getpid()) delete before;
  process_to_die.store(getpid(), std::memory_order_release);
}

}  // namespace tocsin::inline v0_2::internal
