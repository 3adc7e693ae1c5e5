#include "tocsin/concurrency/internal/task.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>
#include <utility>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/step.h"

// What is queued keeps alive what its closures have.
extern "C" __attribute__((weak)) void __lsan_register_root_region(
    const void* begin, size_t size);
extern "C" __attribute__((weak)) void __lsan_unregister_root_region(
    const void* begin, size_t size);

namespace tocsin::inline v0_2::internal {

constinit thread_local BlockCache block_cache;

namespace {

// The memory of blocks. The address of a block tells its slab, which knows
// which of its blocks are free: in no thread's cache, and no task. So none of
// them has to be touched, and the slab goes back to the system once they all
// are. (What is freed to malloc() stays there as long as something behind it is
// in use.)
class Slab {
 public:
  static constexpr size_t kSize = size_t{64} << 10;  // and its alignment
  static constexpr size_t kPlaces = kSize / sizeof(Task);
  static constexpr size_t kBlocks = kPlaces - 3;  // the rest is the slab itself

  static Slab* New() {
    // Usually below the last one, and so aligned as well.
    std::byte* memory = Map(kSize);
    if (Excess(memory) != 0) {
      munmap(memory, kSize);
      memory = Map(2 * kSize);
      const size_t before = (kSize - Excess(memory)) % kSize;
      if (before > 0) munmap(memory, before);
      memory += before;
      munmap(memory + kSize, kSize - before);
    }
    if (__lsan_register_root_region != nullptr) {
      __lsan_register_root_region(memory, kSize);
    }
    TOCSIN_STEP("Task: has mapped a slab");
    return ::new (static_cast<void*>(memory)) Slab;
  }
  // False if the system refuses that, at the limit of mappings.
  static bool Delete(Slab* slab) {
    if (munmap(slab, kSize) != 0) return false;
    TOCSIN_STEP("Task: has unmapped a slab");
    if (__lsan_unregister_root_region != nullptr) {
      __lsan_unregister_root_region(slab, kSize);
    }
    return true;
  }
  static Slab* Of(void* block) {
    return reinterpret_cast<Slab*>(static_cast<std::byte*>(block) -
                                   Excess(block));
  }

  size_t free() const { return free_; }
  // Returns how many: the first of these blocks, as far as they are of this
  // slab.
  size_t Put(void* const* blocks, size_t size) {
    size_t put = 0;
    do {
      const size_t place = Excess(blocks[put]) / sizeof(Task);
      is_free_[place / 64] |= uint64_t{1} << place % 64;
      ++put;
    } while (put < size && Of(blocks[put]) == this);
    free_ += put;
    return put;
  }
  // Returns how many: `most`, or all that are free. The last has the lowest
  // address.
  size_t Take(void** blocks, size_t most) {
    const size_t taken = std::min(most, free_);
    free_ -= taken;
    std::byte* const start = reinterpret_cast<std::byte*>(this);
    size_t left = taken;
    for (size_t word = 0; left > 0; ++word) {
      uint64_t bits = is_free_[word];
      for (; bits != 0 && left > 0; bits &= bits - 1) {
        const size_t place = word * 64 + std::countr_zero(bits);
        blocks[--left] = start + place * sizeof(Task);
      }
      is_free_[word] = bits;
    }
    return taken;
  }

  // For the list that it is in.
  Slab* next = nullptr;
  Slab* previous = nullptr;

 private:
  static size_t Excess(void* address) {
    return reinterpret_cast<uintptr_t>(address) % kSize;
  }
  static std::byte* Map(size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) DieOrThrow();
    return static_cast<std::byte*>(memory);
  }
  [[noreturn]] static void DieOrThrow() {
#ifdef ABSL_HAVE_EXCEPTIONS
    throw std::bad_alloc();
#else
    std::fputs("tocsin: no memory for a task\n", stderr);
    std::abort();
#endif
  }

  Slab() {
    std::fill(std::begin(is_free_), std::end(is_free_), ~uint64_t{0});
    is_free_[0] <<= kPlaces - kBlocks;
  }

  size_t free_ = kBlocks;
  uint64_t is_free_[kPlaces / 64];
};
static_assert(sizeof(Slab) <= (Slab::kPlaces - Slab::kBlocks) * sizeof(Task));

// The slabs that have free blocks.
class Store {
 public:
  // As many bytes of free slabs as are kept for the next tasks.
  static constexpr size_t kKept = size_t{64} << 20;

  void Put(void* const* blocks, size_t size) {
    Slab* surplus = nullptr;
    {
      MutexLock lock(mutex_);
      TOCSIN_STEP("Task: the store is locked");
      for (size_t i = 0; i < size;) {
        Slab* const slab = Slab::Of(blocks[i]);
        if (slab->free() == 0) Enter(*slab);
        i += slab->Put(blocks + i, size - i);
        if (slab->free() < Slab::kBlocks) continue;
        Leave(*slab);
        if (free_count_ < kKept / Slab::kSize) {
          Keep(*slab);
        } else {
          slab->next = std::exchange(surplus, slab);
        }
      }
    }
    Delete(surplus);
  }

  // At most so many, and at least one.
  size_t Take(void** blocks, size_t most) {
    Slab* fresh = nullptr;
    size_t size = 0;
    while (true) {
      {
        MutexLock lock(mutex_);
        if (used_ == nullptr && fresh == nullptr && free_ != nullptr) {
          fresh = std::exchange(free_, free_->next);
          --free_count_;
        }
        if (fresh != nullptr) Enter(*fresh);
        while (used_ != nullptr && size < most) {
          Slab& slab = *used_;
          size += slab.Take(blocks + size, most - size);
          if (slab.free() == 0) Leave(slab);
        }
      }
      if (size > 0) return size;
      fresh = Slab::New();
    }
  }

  void GiveBackFree() {
    Slab* slabs;
    {
      MutexLock lock(mutex_);
      slabs = std::exchange(free_, nullptr);
      free_count_ = 0;
    }
    Delete(slabs);
  }

  SlimMutex& mutex() { return mutex_; }

 private:
  void Delete(Slab* slabs) ABSL_LOCKS_EXCLUDED(mutex_) {
    while (Slab* slab = slabs) {
      slabs = slab->next;
      if (Slab::Delete(slab)) continue;
      MutexLock lock(mutex_);
      Keep(*slab);
    }
  }

  void Keep(Slab& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    slab.next = std::exchange(free_, &slab);
    ++free_count_;
  }

  void Enter(Slab& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    slab.previous = nullptr;
    slab.next = std::exchange(used_, &slab);
    if (slab.next != nullptr) slab.next->previous = &slab;
  }
  void Leave(Slab& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    (slab.previous != nullptr ? slab.previous->next : used_) = slab.next;
    if (slab.next != nullptr) slab.next->previous = slab.previous;
  }

  SlimMutex mutex_;
  // Those of which some blocks are free, and those of which all are.
  Slab* used_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Slab* free_ ABSL_GUARDED_BY(mutex_) = nullptr;
  size_t free_count_ ABSL_GUARDED_BY(mutex_) = 0;
};
constinit Store store;

constinit thread_local bool over = false;  // the thread is ending

struct EmptyAtExit {
  ~EmptyAtExit() {
    over = true;
    BlockCache& cache = block_cache;
    store.Put(cache.blocks, cache.size);
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
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store.mutex().Lock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store.mutex().Unlock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store.mutex().Unlock(); });

}  // namespace

void* Task::AllocateBlockSlowly() {
  BlockCache& cache = block_cache;
  if (over) {
    void* block;
    store.Take(&block, 1);
    return block;
  }
  if (cache.capacity == 0) UseCacheUntilExit();
  cache.size =
      static_cast<uint32_t>(store.Take(cache.blocks, BlockCache::kBatch));
  return cache.blocks[--cache.size];
}

void Task::FreeBlockSlowly(void* block) {
  BlockCache& cache = block_cache;
  if (over) return store.Put(&block, 1);
  if (cache.capacity == 0) {
    UseCacheUntilExit();
  } else {
    // The older half, so that neither the next allocation nor the next free has
    // to go to the store.
    constexpr uint32_t kBatch = BlockCache::kBatch;
    store.Put(cache.blocks, kBatch);
    cache.size -= kBatch;
    std::copy_n(cache.blocks + kBatch, cache.size, cache.blocks);
  }
  cache.blocks[cache.size++] = block;
}

void Task::GiveBackMemory() {
  BlockCache& cache = block_cache;
  store.Put(cache.blocks, std::exchange(cache.size, 0));
  store.GiveBackFree();
}

}  // namespace tocsin::inline v0_2::internal
