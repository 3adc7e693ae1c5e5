// A capacity limiter: a number of permits that threads take and give back, and
// wait for while all are in use.
//
// Any member may be called from any thread; a permit may be given back by
// another thread than the one that took it. Destroy the semaphore only once
// no thread is inside it and no Permit is left.
//
//   Semaphore connections(8);
//   absl::StatusOr<Semaphore::Permit> permit = connections.Acquire();
//   if (!permit.ok()) return permit.status();  // the scope was cancelled
//   ...                                        // given back with `permit`
//
// First come, first served: a thread that wants many permits is not overtaken
// by others that want few, TryAcquire() included. The one exception is a thread
// that wants more than the limit: it waits until set_limit() makes it possible,
// and delays no other thread until then.
//
// A wait that is cancelled leaves no trace: it holds no permit afterwards and
// does not delay those behind it. A permit that is granted at that very moment
// counts: Acquire() is OK then.
#ifndef TOCSIN_CONCURRENCY_SEMAPHORE_H_
#define TOCSIN_CONCURRENCY_SEMAPHORE_H_

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/wait_queue.h"

namespace tocsin::inline v0_2 {

class Semaphore {
 public:
  // Gives back what it holds when it is destroyed. Moved, never copied.
  class [[nodiscard]] Permit {
   public:
    Permit(Permit&& other) noexcept
        : semaphore_(std::exchange(other.semaphore_, nullptr)),
          count_(other.count_) {}
    Permit& operator=(Permit&& other) noexcept {
      Permit(std::move(other)).swap(*this);
      return *this;
    }
    ~Permit() {
      if (semaphore_ != nullptr) semaphore_->Release(count_);
    }

   private:
    friend class Semaphore;
    Permit(Semaphore* semaphore, int64_t count)
        : semaphore_(semaphore), count_(count) {}
    void swap(Permit& other) {
      std::swap(semaphore_, other.semaphore_);
      std::swap(count_, other.count_);
    }

    Semaphore* semaphore_;
    int64_t count_;
  };

  // A limit of zero admits no thread until it is raised; a negative one counts
  // as zero.
  explicit Semaphore(int64_t limit);
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  // Takes `count` permits, all at once, and blocks until they are free.
  // kCancelled or kDeadlineExceeded, and none taken, if the thread's scope ends
  // the wait first, or had ended when it began. kInvalidArgument for a count
  // below 1.
  absl::StatusOr<Permit> Acquire(int64_t count = 1);

  // Takes them if that is possible now without overtaking a waiting thread.
  // Otherwise, and for a count below 1, returns nothing.
  std::optional<Permit> TryAcquire(int64_t count = 1);

  // How many permits there are, and how many of them are in use: as it was at
  // some moment of the call.
  int64_t limit() const;
  int64_t in_use() const;

  // A higher limit admits waiting threads. A lower one takes no permit back: no
  // thread is admitted until enough are given back.
  void set_limit(int64_t limit);

 private:
  struct Waiter;
  struct WakeUps;

  void Release(int64_t count);
  void Admit(WakeUps& wakes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex);
  bool TakeNow(int64_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex);

  internal::WaitQueue<Waiter> queue_;
  int64_t limit_ ABSL_GUARDED_BY(queue_.mutex);
  int64_t in_use_ ABSL_GUARDED_BY(queue_.mutex) = 0;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_SEMAPHORE_H_
