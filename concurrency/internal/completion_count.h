// How many tasks of a group have not ended, which is known in parts.
//
// Each local queue of the group counts its own, under the lock of its shard.
// One at another shard than the group's home that has something unfinished is
// an account, and all that is counted for the group as a whole is how many of
// these are open: so a group is told only when the first task comes to an
// account, or the last one there ends. Any thread may ask and count.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_COMPLETION_COUNT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_COMPLETION_COUNT_H_

#include <atomic>
#include <cstdint>

#include "tocsin/concurrency/internal/local_queue.h"

namespace tocsin::inline v0_2::internal {

class CompletionCount {
 public:
  bool NothingUnfinished(const LocalQueue& home) const {
    return home.unfinished.load() == 0 && accounts_.load() == 0;
  }
  bool HasAccounts() const { return accounts_.load() != 0; }

  // One more is open. The first only under the lock of the home shard, unless
  // something is unfinished for sure.
  void OpenAccount() { accounts_.fetch_add(1); }
  // One is closed. False, and nothing done, if it is the last.
  [[nodiscard]] bool CloseAccountButTheLast() {
    int64_t open = accounts_.load();
    while (open > 1) {
      if (accounts_.compare_exchange_weak(open, open - 1)) return true;
    }
    return false;
  }
  // The same for the last, under the lock of the home shard.
  void CloseAccount() { accounts_.fetch_sub(1); }

 private:
  std::atomic<int64_t> accounts_{0};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_COMPLETION_COUNT_H_
