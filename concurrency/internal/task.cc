#include "tocsin/concurrency/internal/task.h"

#include <pthread.h>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin::internal {

namespace {

constexpr int kBatch = 64;

struct FreeBlock {
  FreeBlock* next;
};

struct Batch {
  FreeBlock* first = nullptr;
  int size = 0;

  void Push(void* block) {
    first = ::new (block) FreeBlock{first};
    ++size;
  }
  void* Pop() {
    --size;
    return std::exchange(first, first->next);
  }
};

// A batch in the store, written into its own first block.
struct StoredBatch {
  FreeBlock* rest;
  int size;
  StoredBatch* next;
};
static_assert(sizeof(StoredBatch) <= sizeof(Task));

constinit SlimMutex store_mutex;
StoredBatch* store ABSL_GUARDED_BY(store_mutex) = nullptr;

void Store(Batch batch) {
  if (batch.size == 0) return;
  void* first = batch.first;
  FreeBlock* rest = batch.first->next;
  MutexLock lock(store_mutex);
  store = ::new (first) StoredBatch{rest, batch.size, store};
}

Batch Fetch() {
  {
    MutexLock lock(store_mutex);
    if (StoredBatch* stored = store; stored != nullptr) {
      const auto [rest, size, next] = *stored;
      store = next;
      return {::new (static_cast<void*>(stored)) FreeBlock{rest}, size};
    }
  }
  Batch fresh;
  auto* slab = static_cast<std::byte*>(
      ::operator new(kBatch * sizeof(Task), std::align_val_t(alignof(Task))));
  for (int i = kBatch; i-- > 0;) fresh.Push(slab + i * sizeof(Task));
  return fresh;
}

// Two batches, so that a thread that takes and gives in turn at the edge of one
// does not go to the store each time.
struct Cache {
  Batch near;
  Batch far;
  bool over = false;  // the thread is ending
};
constinit thread_local Cache cache;

struct EmptyAtExit {
  ~EmptyAtExit() {
    cache.over = true;
    Store(std::exchange(cache.near, {}));
    Store(std::exchange(cache.far, {}));
  }
};

// Apart from `cache`, so that the access to that one costs no check whether the
// thread has a destructor to run for it.
void EmptyCacheAtExit() {
  thread_local EmptyAtExit empty;
  static_cast<void>(&empty);
}

[[maybe_unused]] const int at_fork = pthread_atfork(
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Lock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Unlock(); },
    []() ABSL_NO_THREAD_SAFETY_ANALYSIS { store_mutex.Unlock(); });

}  // namespace

void* Task::Allocate() {
  if (cache.near.size == 0) {
    std::swap(cache.near, cache.far);
    if (cache.near.size == 0) {
      EmptyCacheAtExit();
      cache.near = Fetch();
    }
  }
  void* block = cache.near.Pop();
  if (cache.over) Store(std::exchange(cache.near, {}));
  return block;
}

void Task::Free(Task* task) {
  task->~Task();
  if (cache.near.size == 0) EmptyCacheAtExit();
  if (cache.near.size == kBatch) {
    Store(std::exchange(cache.far, std::exchange(cache.near, {})));
  }
  cache.near.Push(task);
  if (cache.over) Store(std::exchange(cache.near, {}));
}

}  // namespace tocsin::internal
