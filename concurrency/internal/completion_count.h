// The number of tasks of a group that have not ended, kept in parts.
//
// Each local queue of the group counts its own, under the lock of its shard. A
// local queue at another shard than the group's home is an account while it has
// something unfinished. The group as a whole counts only its open accounts, and
// this count changes only when the first task comes to an account, or the last
// one there ends. Any thread may read it and count.
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

  // Counts one more as open. The first only under the lock of the home shard,
  // unless something is certain to be unfinished.
  void OpenAccount() { accounts_.fetch_add(1); }
  // Counts one as closed. If it is the last, does nothing and returns false.
  [[nodiscard]] bool CloseAccountButTheLast() {
    int64_t open = accounts_.load();
    while (open > 1) {
      if (accounts_.compare_exchange_weak(open, open - 1)) return true;
    }
    return false;
  }
  // The same for any. The last only under the lock of the home shard.
  void CloseAccount() { accounts_.fetch_sub(1); }

 private:
  std::atomic<int64_t> accounts_{0};
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_COMPLETION_COUNT_H_
