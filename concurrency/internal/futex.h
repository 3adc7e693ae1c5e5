// The three futex(2) calls that the library sleeps and wakes with.
//
// Any thread may make them, in a forked child too.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_FUTEX_H_
#define TOCSIN_CONCURRENCY_INTERNAL_FUTEX_H_

#ifndef __linux__
#error "Tocsin needs Linux: it is built on futex(2) and sigwaitinfo(2)."
#endif

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <ctime>

#include "tocsin/concurrency/internal/clock.h"

namespace tocsin::inline v0_2::internal {

// A wake-up that names some bits is for threads that sleep with one of them.
inline constexpr uint32_t kAnyBit = FUTEX_BITSET_MATCH_ANY;

// Sleeps while `word` is `expected`, until a wake-up, a signal handler or
// `deadline`; the caller then checks again what it waits for. False if the
// deadline has passed.
inline bool FutexWait(std::atomic<uint32_t>& word, uint32_t expected,
                      Instant deadline = kNever, uint32_t bits = kAnyBit) {
  timespec until;
  if (deadline != kNever) until = ToTimespec(deadline);
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG,
                 expected, deadline == kNever ? nullptr : &until, nullptr,
                 bits) == 0 ||
         errno != ETIMEDOUT;
}

// Only the address counts, so the memory may be gone by now: at worst another
// thread's sleep there ends early, which every user of futexes must expect.
inline void FutexWakeOne(const std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr,
          0);
}

inline void FutexWakeAll(const std::atomic<uint32_t>* word,
                         uint32_t bits = kAnyBit) {
  syscall(SYS_futex, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, INT_MAX,
          nullptr, nullptr, bits);
}

// Wake-ups that are due once a lock is released. Declare it before the lock, so
// that its destructor, which makes the system calls, runs after the unlocking.
// Allocates nothing: if there are very many, some are sent early.
class FutexWakes {
 public:
  FutexWakes() = default;
  FutexWakes(const FutexWakes&) = delete;
  FutexWakes& operator=(const FutexWakes&) = delete;
  ~FutexWakes() { Send(); }

  // Null is allowed, and wakes nothing.
  void Add(const std::atomic<uint32_t>* word) {
    if (word == nullptr) return;
    if (size_ == kCapacity) Send();
    words_[size_++] = word;
  }
  // For all threads that sleep on `word` with one of these bits. Several in a
  // row for the same word make one system call.
  void Add(const std::atomic<uint32_t>* word, uint32_t bits) {
    if (bits_ != 0 && word != shared_word_) Send();
    shared_word_ = word;
    bits_ |= bits;
  }
  void Send() {
    if (bits_ != 0) FutexWakeAll(shared_word_, bits_);
    for (int i = 0; i < size_; ++i) FutexWakeOne(words_[i]);
    size_ = 0;
    bits_ = 0;
  }

 private:
  static constexpr int kCapacity = 64;

  int size_ = 0;
  const std::atomic<uint32_t>* words_[kCapacity];
  const std::atomic<uint32_t>* shared_word_ = nullptr;
  uint32_t bits_ = 0;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_FUTEX_H_
