#include "tocsin/signals/internal/die_at_exit.h"

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>

#include "tocsin/signals/internal/self_signal.h"

// LeakSanitizer's, in programs that are built with it.
extern "C" __attribute__((weak)) void __lsan_do_leak_check();

namespace tocsin::inline v0_2::internal {
namespace {

constinit std::atomic<int> signal_to_die_by{0};
constinit std::atomic<pid_t> process_to_die{0};  // none

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
  std::cout.flush();
  std::clog.flush();
  std::fflush(nullptr);
  DieBySignal(signal_to_die_by.load(std::memory_order_relaxed));
}
#pragma GCC diagnostic pop

}  // namespace

void DieAtExit(int signum) {
  signal_to_die_by.store(signum, std::memory_order_relaxed);
  process_to_die.store(getpid(), std::memory_order_release);
}

}  // namespace tocsin::inline v0_2::internal
