// What a thread waits for, and since when: for reports.
//
// Its thread writes it; any thread may read it while the first one exists.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_WAIT_NOTE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_WAIT_NOTE_H_

#include <atomic>

#include "tocsin/concurrency/internal/clock.h"

namespace tocsin::inline v0_2::internal {

class TaskQueue;

struct Wait {
  const char* call = nullptr;        // null: it does not wait
  Instant since{};                   // or not known yet
  const TaskQueue* group = nullptr;  // whose end it waits for
};

class WaitNote {
 public:
  constexpr WaitNote() = default;
  WaitNote(const WaitNote&) = delete;
  WaitNote& operator=(const WaitNote&) = delete;

  // What it reads while it is written may be of two waits.
  Wait Read() const {
    Wait wait;
    wait.call = call_.load(std::memory_order_acquire);
    wait.since = since_.load(std::memory_order_relaxed);
    if (wait.call != nullptr) {
      wait.group = group_.load(std::memory_order_relaxed);
    }
    return wait;
  }
  void Write(const Wait& wait) {
    if (wait.call == nullptr) {
      return call_.store(nullptr, std::memory_order_release);
    }
    since_.store(wait.since, std::memory_order_relaxed);
    group_.store(wait.group, std::memory_order_relaxed);
    call_.store(wait.call, std::memory_order_release);
  }

 private:
  std::atomic<const char*> call_{nullptr};
  std::atomic<Instant> since_{};
  std::atomic<const TaskQueue*> group_{nullptr};
};

extern constinit thread_local WaitNote wait_note;

// The thread waits as long as this lives.
class [[nodiscard]] NotedWait {
 public:
  explicit NotedWait(const Wait& wait) : outer_(wait_note.Read()) {
    wait_note.Write(wait);
  }
  NotedWait(const NotedWait&) = delete;
  NotedWait& operator=(const NotedWait&) = delete;
  ~NotedWait() { wait_note.Write(outer_); }

 private:
  const Wait outer_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_WAIT_NOTE_H_
