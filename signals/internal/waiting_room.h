// Where the threads in Receive() sleep side by side, on one futex word, so that
// one system call wakes all those that a signal is for.
//
// Any thread may sleep here, and wake those that do.
//
// Each thread sleeps with one of 32 bits, which a wake-up names. A thread that
// shares its bit with another sometimes wakes for nothing, and sleeps on.
#ifndef TOCSIN_SIGNALS_INTERNAL_WAITING_ROOM_H_
#define TOCSIN_SIGNALS_INTERNAL_WAITING_ROOM_H_

#include <atomic>
#include <cstdint>

#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wakeable.h"

namespace tocsin::inline v0_2::internal {

class WaitingRoom {
 public:
  class Place;

  WaitingRoom() = default;
  WaitingRoom(const WaitingRoom&) = delete;
  WaitingRoom& operator=(const WaitingRoom&) = delete;

 private:
  std::atomic<uint32_t> calls_{0};  // how many wake-ups were called for
  std::atomic<uint32_t> places_{0};
};

class WaitingRoom::Place final : public BlockingCall {
 public:
  explicit Place(WaitingRoom& room)
      : room_(room),
        bit_(uint32_t{1} << room.places_.fetch_add(1,
                                                   std::memory_order_relaxed) %
                                32) {}

  // A thread that wakes this one marks the sleeper, then counts, then makes the
  // system call. So this one sees either the mark or a new count.
  void Block(const Sleeper& sleeper, Instant until) override {
    bool time_left = true;
    while (time_left) {
      const uint32_t calls = room_.calls_.load();
      if (sleeper.woken()) return;
      TOCSIN_STEP("WaitingRoom: about to sleep");
      time_left = FutexWait(room_.calls_, calls, until, bit_);
    }
  }

  void Interrupt() override {
    FutexWakes wakes;
    InterruptLater(wakes);
  }
  void InterruptLater(FutexWakes& wakes) override {
    room_.calls_.fetch_add(1);
    wakes.Add(&room_.calls_, bit_);
  }

 private:
  WaitingRoom& room_;
  const uint32_t bit_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_WAITING_ROOM_H_
