// The part of a siginfo that the kernel fills, as handlers and queues carry it.
//
// A value, used by one thread at a time; signal handlers may carry it too.
#ifndef TOCSIN_SIGNALS_INTERNAL_RAW_SIGINFO_H_
#define TOCSIN_SIGNALS_INTERNAL_RAW_SIGINFO_H_

#include <csignal>
#include <cstdint>

namespace tocsin::inline v0_2::internal {

// The kernel keeps at most one pending signal of each of these; the rest are
// real-time signals.
// An array indexed by signal number has this size.
inline constexpr int kSignals = 65;
inline constexpr int kStandardSignals = 31;
inline bool IsStandard(int signum) { return signum <= kStandardSignals; }

// The 48 bytes of a siginfo_t that the kernel fills; the other 80 are padding.
struct RawSiginfo {
  uint64_t words[6];

  int signum() const { return static_cast<int>(words[0] & 0xffffffff); }
  siginfo_t Full() const;
  static RawSiginfo From(const siginfo_t& info);
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_RAW_SIGINFO_H_
