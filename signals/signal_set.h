// A set of signals, and the names of signals.
//
//   SignalSet reload_and_stop({SIGHUP, SIGTERM});
//   for (int signum : reload_and_stop) std::cout << SignalName(signum) << "\n";
//
// SignalSet is a value: copied, compared, and used by one thread at a time.
#ifndef TOCSIN_SIGNALS_SIGNAL_SET_H_
#define TOCSIN_SIGNALS_SIGNAL_SET_H_

#ifndef __linux__
#error \
    "Tocsin needs Linux: it is built on rt_tgsigqueueinfo(2) and sigwaitinfo(2)."
#endif

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tocsin::inline v0_2 {

class SignalSet {
 public:
  class iterator;

  SignalSet() = default;
  // A number that is not a signal is remembered, so that CheckReceivable() can
  // name it.
  SignalSet(std::initializer_list<int> signals) {
    for (int signum : signals) insert(signum);
  }

  // SIGINT and SIGTERM: what Ctrl+C and a supervisor send to end a program.
  static SignalSet Termination() { return {SIGINT, SIGTERM}; }

  // False for a number that is not a signal.
  bool contains(int signum) const {
    return IsSignal(signum) && (bits_ & Bit(signum)) != 0;
  }
  // Does nothing for a signal that is already in it.
  void insert(int signum) {
    if (IsSignal(signum)) {
      bits_ |= Bit(signum);
    } else {
      if (!malformed_) not_a_signal_ = signum;  // the first one is named
      malformed_ = true;
    }
  }
  // Does nothing for a signal that is not in it.
  void erase(int signum) {
    if (IsSignal(signum)) bits_ &= ~Bit(signum);
  }
  // Whether it contains no signal, and how many it contains. A number that is
  // not a signal does not count: a set of only such a number is empty, but not
  // equal to SignalSet().
  bool empty() const { return bits_ == 0; }
  size_t size() const {
    return static_cast<size_t>(__builtin_popcountll(bits_));
  }

  // In ascending order of number.
  iterator begin() const;
  iterator end() const;

  friend bool operator==(const SignalSet&, const SignalSet&) = default;

 private:
  friend absl::Status CheckReceivable(const SignalSet& signals);

  static bool IsSignal(int signum) { return signum >= 1 && signum <= 64; }
  static uint64_t Bit(int signum) { return uint64_t{1} << (signum - 1); }

  uint64_t bits_ = 0;
  int not_a_signal_ = 0;
  bool malformed_ = false;
};

class SignalSet::iterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = int;
  using difference_type = std::ptrdiff_t;
  using pointer = const int*;
  using reference = int;

  iterator() = default;
  int operator*() const { return __builtin_ctzll(rest_) + 1; }
  iterator& operator++() {
    rest_ &= rest_ - 1;
    return *this;
  }
  iterator operator++(int) {
    iterator old = *this;
    ++*this;
    return old;
  }
  friend bool operator==(const iterator&, const iterator&) = default;

 private:
  friend class SignalSet;
  explicit iterator(uint64_t rest) : rest_(rest) {}
  uint64_t rest_ = 0;
};

inline SignalSet::iterator SignalSet::begin() const { return iterator(bits_); }
inline SignalSet::iterator SignalSet::end() const { return iterator(); }

// "SIGTERM", "SIGRTMIN+3"; "signal 4096" for a number without a name.
std::string SignalName(int signum);

// The number of a signal given as "TERM", "SIGTERM", "15", "RTMIN+3" or
// "RTMAX-1", in upper or lower case. kInvalidArgument for anything else. Not
// every signal that has a number can be received: see CheckReceivable().
absl::StatusOr<int> ParseSignal(std::string_view text);

// OK if all of `signals` can be received, else kInvalidArgument, which names
// the first that cannot, the reason, and what to do instead. Refused: SIGKILL
// and SIGSTOP; the faults SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and SIGSYS;
// SIGABRT; SIGTTIN and SIGTTOU; the C library's 32 and 33; SIGSTKFLT, with
// which the service wakes itself; numbers that are not signals; the empty set.
absl::Status CheckReceivable(const SignalSet& signals);

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SIGNAL_SET_H_
