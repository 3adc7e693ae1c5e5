// System calls made where neither the C library nor a sanitizer may take part:
// in signal handlers, which may have interrupted either, and in a child that
// still shares our memory.
//
// May be called from any thread, and in a signal handler.
#ifndef TOCSIN_SIGNALS_INTERNAL_RAW_SYSCALL_H_
#define TOCSIN_SIGNALS_INTERNAL_RAW_SYSCALL_H_

// For functions that run there, and for all that they call.
#if defined(__clang__)
#define TOCSIN_UNINSTRUMENTED                                 \
  __attribute__((disable_sanitizer_instrumentation, noinline, \
                 no_stack_protector, no_sanitize("address", "undefined")))
#else
#define TOCSIN_UNINSTRUMENTED \
  __attribute__((no_sanitize("thread", "address", "undefined"), noinline))
#endif

namespace tocsin::inline v0_2::internal {

// Returns what the kernel does, an error as its negated number, and leaves
// errno alone. Each file that includes this has its own copy: a call into
// another library might need lazy binding first.
[[maybe_unused]] TOCSIN_UNINSTRUMENTED static long Syscall(
    long number, long a = 0, long b = 0, long c = 0, long d = 0) {
#if defined(__x86_64__)
  long result;
  register long r10 asm("r10") = d;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
               : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  asm volatile("svc #0"
               : "+r"(x0)
               : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
               : "memory");
  return x0;
#else
#error "Tocsin knows the system calls of x86-64 and AArch64."
#endif
}

// A pointer as an argument of Syscall().
template <typename T>
TOCSIN_UNINSTRUMENTED long Address(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_RAW_SYSCALL_H_
