// Names a step of a protocol, at which a test may run code of its own.
//
//   TOCSIN_STEP("Sleeper: about to sleep");
//
// It compiles to nothing, except in the targets called with_steps, which only
// tests link (tests/steps.h). There it runs on any thread, also in a signal
// handler, and under whatever locks are held.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_STEP_H_
#define TOCSIN_CONCURRENCY_INTERNAL_STEP_H_

#ifdef TOCSIN_STEPS

namespace tocsin::inline v0_2::internal {

// What a test runs at each step. Read only by the __atomic builtins, like
// everything that a signal handler reads.
using StepFunction = void (*)(const char* step);
inline constinit StepFunction at_step = nullptr;

}  // namespace tocsin::inline v0_2::internal

#define TOCSIN_STEP(step)                                                \
  do {                                                                   \
    const ::tocsin::internal::StepFunction at_step_now =                 \
        __atomic_load_n(&::tocsin::internal::at_step, __ATOMIC_SEQ_CST); \
    if (at_step_now != nullptr) at_step_now(step);                       \
  } while (false)

#else

#define TOCSIN_STEP(step) static_cast<void>(0)

#endif  // TOCSIN_STEPS

#endif  // TOCSIN_CONCURRENCY_INTERNAL_STEP_H_
