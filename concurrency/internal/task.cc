#include "tocsin/concurrency/internal/task.h"

#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <new>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/step.h"

namespace tocsin::inline v0_2::internal {

constinit thread_local BlockCache block_cache;

namespace {

// Blocks that are in no thread's cache are kept in batches. The memory of its
// own blocks describes a batch. Their first words are, block after block: the
// batch that was stored before it, its number of blocks, and their addresses.
class Batch {
 public:
  Batch() = default;
  Batch(void* const* blocks, size_t size, Batch before) {
    for (size_t i = 0; i * kWords < kHeader + size; ++i) {
      ::new (blocks[i]) void*[kWords];
    }
    first_ = static_cast<void**>(blocks[0]);
    first_[0] = before.first_;
    first_[1] = reinterpret_cast<void*>(size);
    for (size_t i = 0; i < size; ++i) {
      const size_t word = kHeader + i;
      static_cast<void**>(blocks[word / kWords])[word % kWords] = blocks[i];
    }
  }

  bool exists() const { return first_ != nullptr; }
  Batch before() const { return Batch(static_cast<void**>(first_[0])); }
  // Returns how many there are. The batch no longer exists then.
  size_t CopyTo(void** blocks) const {
    const auto size = reinterpret_cast<size_t>(first_[1]);
    blocks[0] = first_;
    for (size_t i = 1; i < size; ++i) {
      const size_t word = kHeader + i;
      blocks[i] = static_cast<void**>(blocks[word / kWords])[word % kWords];
    }
    return size;
  }

 private:
  explicit Batch(void** first) : first_(first) {}

  static constexpr size_t kWords = sizeof(Task) / sizeof(void*);
  static constexpr size_t kHeader = 2;

  void** first_ = nullptr;
};

constinit SlimMutex store_mutex;
constinit Batch store ABSL_GUARDED_BY(store_mutex);

void Store(void* const* blocks, size_t size) {
  if (size == 0) return;
  MutexLock lock(store_mutex);
  TOCSIN_STEP("Task: the store is locked");
  store = Batch(blocks, size, store);
}

// At most BlockCache::kBatch.
size_t Fetch(void** blocks) {
  Batch batch;
  {
    MutexLock lock(store_mutex);
    batch = store;
    if (batch.exists()) store = batch.before();
  }
  if (batch.exists()) return batch.CopyTo(blocks);
  constexpr size_t kSize = BlockCache::kBatch;
  auto* slab = static_cast<std::byte*>(
      ::operator new(kSize * sizeof(Task), std::align_val_t(alignof(Task))));
  for (size_t i = 0; i < kSize; ++i) {
    blocks[i] = slab + (kSize - 1 - i) * sizeof(Task);
  }
  return kSize;
}

constinit thread_local bool over = false;  // the thread is ending

struct EmptyAtExit {
  ~EmptyAtExit() {
    over = true;
    BlockCache& cache = block_cache;
    const size_t half = std::min<size_t>(cache.size, BlockCache::kBatch);
    Store(cache.blocks, half);
    Store(cache.blocks + half, cache.size - half);
    cache.size = cache.capacity = 0;
  }
};

// Separate from the cache, so that an access to the cache need not check
// whether the thread has registered its destructor.
void UseCacheUntilExit() {
  thread_local EmptyAtExit empty;
  static_cast<void>(&empty);
  block_cache.capacity = 2 * BlockCache::kBatch;
}

[[maybe_unused]] const int at_fork = pthread_atfork(
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Lock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Unlock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Unlock(); });

}  // namespace

void* Task::AllocateBlockSlowly() {
  BlockCache& cache = block_cache;
  if (over) {
    void* blocks[BlockCache::kBatch];
    const size_t size = Fetch(blocks);
    Store(blocks, size - 1);
    return blocks[size - 1];
  }
  if (cache.capacity == 0) UseCacheUntilExit();
  cache.size = static_cast<uint32_t>(Fetch(cache.blocks));
  return cache.blocks[--cache.size];
}

void Task::FreeBlockSlowly(void* block) {
  BlockCache& cache = block_cache;
  if (over) return Store(&block, 1);
  if (cache.capacity == 0) {
    UseCacheUntilExit();
  } else {
    // The older half, so that neither the next allocation nor the next free has
    // to go to the store.
    constexpr uint32_t kBatch = BlockCache::kBatch;
    Store(cache.blocks, kBatch);
    cache.size -= kBatch;
    std::copy_n(cache.blocks + kBatch, cache.size, cache.blocks);
  }
  cache.blocks[cache.size++] = block;
}

}  // namespace tocsin::inline v0_2::internal
