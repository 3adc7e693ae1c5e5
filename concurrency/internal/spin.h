// Waiting for a moment without a system call.
//
// Any thread may do so.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_SPIN_H_
#define TOCSIN_CONCURRENCY_INTERNAL_SPIN_H_

#include <sched.h>

#include <chrono>

namespace tocsin::inline v0_2::internal {

// Lets a sibling of this core, or the memory, get on for some ten cycles.
inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Looks again and again until `done()`, or for as long as it takes to fall
// asleep and be woken. After a few microseconds it lets other threads run in
// between. Returns whether it was done in the end.
template <typename Predicate>
bool SpinUntil(Predicate done) {
  constexpr auto kAlone = std::chrono::microseconds(3);
  constexpr auto kTime = std::chrono::microseconds(50);
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    if (done()) return true;
    // Not more often: each look takes the cache line from the threads at work.
    for (int i = 0; i < 8; ++i) Pause();
    const auto spent = std::chrono::steady_clock::now() - start;
    if (spent > kTime) return false;
    if (spent > kAlone) sched_yield();
  }
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_SPIN_H_
