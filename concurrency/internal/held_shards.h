// The shards of all pools, held: as long as it exists, no task begins or ends.
//
// On the stack of a thread that holds Roster::mutex and the lock of no shard.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_HELD_SHARDS_H_
#define TOCSIN_CONCURRENCY_INTERNAL_HELD_SHARDS_H_

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {

class HeldShards {
 public:
  HeldShards() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Roster::Entry* e = Roster::pools; e != nullptr; e = e->next) {
      auto& pool = static_cast<WorkerSlots&>(*e);
      for (Shard& shard : pool.shards()) shards_.push_back(&shard);
    }
    std::sort(shards_.begin(), shards_.end(), std::less<>());  // as LockBoth
    for (Shard* shard : shards_) shard->lock.Lock();
  }
  HeldShards(const HeldShards&) = delete;
  HeldShards& operator=(const HeldShards&) = delete;
  ~HeldShards() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Shard* shard : shards_) shard->lock.Unlock();
  }

  const std::vector<Shard*>& shards() const { return shards_; }
  // Not if it is of a pool of the parent, in a forked child.
  bool Have(const Shard& shard) const {
    return std::binary_search(shards_.begin(), shards_.end(), &shard,
                              std::less<>());
  }

 private:
  std::vector<Shard*> shards_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_HELD_SHARDS_H_
