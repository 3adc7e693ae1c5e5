// A closure on its way to a thread, in one cache line.
//
// Belongs to one thread at a time: the one that made it, then the one that took
// it from the queue.
//
// Blocks come from a cache of the thread and return to that of the thread that
// ran the task; caches trade with a common store in batches. Once warm, a task
// costs no allocation, as long as its closure fits in. The store keeps 64 MiB
// of free blocks at most, and the rest goes back to the system.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "tocsin/concurrency/task_options.h"

namespace tocsin::inline v0_2::internal {

// GCC emits this instruction only for CPUs that are known to have it; all
// others skip it.
inline void PrefetchToWrite(const void* at) {
#if defined(__x86_64__)
  asm volatile("prefetchw (%0)" : : "r"(at));
#else
  __builtin_prefetch(at, 1);
#endif
}

// Blocks that the thread has at hand, newest last.
struct BlockCache {
  static constexpr uint32_t kBatch = 64;  // so many are traded at a time

  uint32_t size = 0;
  uint32_t capacity = 0;  // 0 before the first block comes, and at thread exit
  void* blocks[2 * kBatch] = {};

  // The block that will be asked for soon, if there are as many. It usually
  // comes from another core, if this one does not run its tasks itself.
  void* Ahead() const { return blocks[(size - 8) % (2 * kBatch)]; }
};
extern constinit thread_local BlockCache block_cache;

class alignas(64) Task {
 public:
  // Calls the closure and returns what it does.
  struct CallClosure {
    template <typename F>
    static absl::Status Call(F& f) {
      return f();
    }
  };

  // A task that runs How::Call(f).
  template <typename How = CallClosure, typename F>
  static Task* New(F&& f);
  template <typename How = CallClosure, typename F>
  static Task* New(F&& f, TaskOptions options);

  // Runs the closure and destroys it, also if it throws.
  absl::Status Run() { return act_(*this, true); }
  // Destroys the closure if it has not run.
  void Discard() { act_(*this, false).IgnoreError(); }
  // Gives the block back. The closure has been destroyed by one of the above.
  static void Free(Task* task) {
    task->~Task();
    BlockCache& cache = block_cache;
    if (cache.size == cache.capacity) return FreeBlockSlowly(task);
    cache.blocks[cache.size++] = task;
  }

  // Gives the free blocks back to the system that this thread and the store
  // have, except those in a piece of 64 KiB of which some block is not free.
  static void GiveBackMemory();

  // Null if they are the defaults.
  const TaskOptions* options() const { return options_.get(); }

  union {
    Task* next = nullptr;  // for the list it is in
    uint64_t number;       // its name in reports, if it has no other
  };

 private:
  static constexpr size_t kInline = 40;
  template <typename F>
  static constexpr bool kFits = sizeof(F) <= kInline &&
                                alignof(F) <= alignof(void*);

  static void* AllocateBlock() {
    BlockCache& cache = block_cache;
    if (cache.size == 0) return AllocateBlockSlowly();
    void* block = cache.blocks[--cache.size];
    PrefetchToWrite(cache.Ahead());
    return block;
  }
  static void* AllocateBlockSlowly();
  static void FreeBlockSlowly(void* block);

  absl::Status (*act_)(Task&, bool run) = nullptr;
  std::unique_ptr<TaskOptions> options_;
  alignas(void*) std::byte closure_[kInline];
};
static_assert(sizeof(Task) == 64);

// Nothing takes the address of the caller's closure, so that the compiler can
// construct it directly in the block.
template <typename How, typename F>
Task* Task::New(F&& f) {
  using Closure = std::decay_t<F>;
  struct Release {
    void operator()(Task* task) const { Free(task); }
  };
  std::unique_ptr<Task, Release> task(::new (AllocateBlock()) Task);
  if constexpr (kFits<Closure>) {
    ::new (static_cast<void*>(task->closure_)) Closure(std::forward<F>(f));
  } else {
    ::new (static_cast<void*>(task->closure_))
        Closure*(new Closure(std::forward<F>(f)));
  }
  task->act_ = [](Task& self, bool run) {
    void* const at = self.closure_;
    Closure* closure;
    if constexpr (kFits<Closure>) {
      closure = std::launder(static_cast<Closure*>(at));
    } else {
      closure = *std::launder(static_cast<Closure**>(at));
    }
    struct Destroy {
      Closure* closure;
      ~Destroy() {
        if constexpr (kFits<Closure>) {
          closure->~Closure();
        } else {
          delete closure;
        }
      }
    } destroy{closure};
    return run ? How::Call(*closure) : absl::OkStatus();
  };
  return task.release();
}

template <typename How, typename F>
Task* Task::New(F&& f, TaskOptions options) {
  std::unique_ptr<TaskOptions> kept;
  if (options.start_even_if_cancelled || !options.name.empty()) {
    kept = std::make_unique<TaskOptions>(std::move(options));
  }
  Task* task = New<How>(std::forward<F>(f));
  task->options_ = std::move(kept);
  return task;
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_H_
