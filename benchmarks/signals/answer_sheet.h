// Memory shared with the sender, in which receivers answer its signals.
//
// Receivers are written in several languages, so this is its layout in bytes:
//      0  uint32  not 0 once the receivers are open
//      8  uint64  what the program measured itself
//    128  a line of 128 bytes for each receiver:
//         +0  uint64  CLOCK_MONOTONIC at the last one of its first signal, ns
//         +8  uint64  how many of them it has received
//        +16  the same two for its second signal
#ifndef TOCSIN_BENCHMARKS_SIGNALS_ANSWER_SHEET_H_
#define TOCSIN_BENCHMARKS_SIGNALS_ANSWER_SHEET_H_

#include <atomic>
#include <cstdint>
#include <ctime>

namespace tocsin::benchmarks {

constexpr int kMaxReceivers = 64;

struct Answer {
  std::atomic<uint64_t> time;
  std::atomic<uint64_t> count;
};

struct AnswerSheet {
  struct alignas(128) Line {
    Answer answers[2];
  };

  std::atomic<uint32_t> open;
  std::atomic<uint64_t> measured;
  Line lines[kMaxReceivers];
};
static_assert(sizeof(AnswerSheet) == 128 * (1 + kMaxReceivers));

inline uint64_t MonotonicNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_SIGNALS_ANSWER_SHEET_H_
