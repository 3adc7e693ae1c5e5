#include "tocsin/concurrency/internal/task_ring.h"

#include <cstddef>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tocsin/concurrency/internal/task.h"

namespace tocsin::internal {
namespace {

class TaskRingTest : public testing::Test {
 protected:
  Task* task(int i) { return &tasks_[i]; }
  // Those of the numbers from `begin` to `end`.
  void Push(TaskRing& ring, int begin, int end) {
    for (int i = begin; i < end; ++i) {
      ring.MakeRoom(none_);
      ring.Push(task(i));
    }
  }
  void ExpectOldest(TaskRing& ring, int begin, int end) {
    for (int i = begin; i < end; ++i) {
      ASSERT_FALSE(ring.empty());
      EXPECT_EQ(ring.TakeOldest(), task(i)) << i;
    }
  }
  // How many have room without new memory. Empties it.
  static size_t Room(TaskRing& ring) {
    while (!ring.full()) ring.Push(nullptr);
    const size_t room = ring.size();
    while (!ring.empty()) ring.TakeOldest();
    return room;
  }

 private:
  const std::unique_ptr<Task[]> tasks_ = std::make_unique<Task[]>(10'000);
  TaskRing none_;
};

TEST_F(TaskRingTest, GivesTheOldestAndTheNewest) {
  TaskRing ring;
  EXPECT_TRUE(ring.empty());
  Push(ring, 0, 4);
  EXPECT_EQ(ring.size(), 4);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ring[i], task(i));
  EXPECT_EQ(ring.TakeNext(), task(3));
  EXPECT_EQ(ring.TakeOldest(), task(0));
  EXPECT_EQ(ring[0], task(1));
  EXPECT_EQ(ring.TakeNext(), task(2));
  EXPECT_EQ(ring.TakeOldest(), task(1));
  EXPECT_TRUE(ring.empty());
}

TEST_F(TaskRingTest, KeepsAFewWithoutMemory) {
  TaskRing ring;
  EXPECT_EQ(Room(ring), 4);
}

// From wherever in its memory the oldest lies.
TEST_F(TaskRingTest, KeepsTheOrderWhenItGrows) {
  for (int taken = 0; taken < 10; ++taken) {
    TaskRing ring;
    for (int i = 0; i < taken; ++i) {
      Push(ring, i, i + 1);
      ExpectOldest(ring, i, i + 1);
    }
    Push(ring, 0, 100);
    EXPECT_EQ(ring.size(), 100);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(ring[i], task(i));
    ExpectOldest(ring, 0, 100);
    EXPECT_TRUE(ring.empty());
  }
}

TEST_F(TaskRingTest, TakesTheMemoryOfTheSpareOneBeforeItAsksForMore) {
  TaskRing spare;
  Push(spare, 0, 50);
  ExpectOldest(spare, 0, 50);
  TaskRing ring;
  Push(ring, 0, 4);
  ring.MakeRoom(spare);
  EXPECT_EQ(ring.size(), 4);
  ExpectOldest(ring, 0, 4);
  EXPECT_EQ(Room(ring), 64);
  EXPECT_EQ(Room(spare), 4);
}

TEST_F(TaskRingTest, MakesRoomWhereTheSpareOneHasNone) {
  TaskRing spare;
  TaskRing ring;
  Push(ring, 0, 4);
  ring.MakeRoom(spare);
  ring.Push(task(4));
  ExpectOldest(ring, 0, 5);
}

// As many as there is room for, and one more.
TEST_F(TaskRingTest, MovesTheOldestInTheirOrder) {
  for (int count = 1; count <= 5; ++count) {
    TaskRing none;
    TaskRing from;
    TaskRing to;
    Push(from, 0, 10);
    to.MoveOldest(from, count, none);
    EXPECT_EQ(from.size(), 10 - count);
    EXPECT_EQ(to.size(), count);
    for (int i = 0; i < count; ++i) EXPECT_EQ(to[i], task(i));
    ExpectOldest(from, count, 10);
    ExpectOldest(to, 0, count);
  }
}

TEST_F(TaskRingTest, MovesTasksIntoTheMemoryOfTheSpareOneFirst) {
  TaskRing spare;
  Push(spare, 0, 50);
  ExpectOldest(spare, 0, 50);
  TaskRing from;
  TaskRing to;
  Push(from, 0, 10);
  to.MoveOldest(from, 10, spare);
  ExpectOldest(to, 0, 10);
  EXPECT_EQ(Room(to), 64);
  EXPECT_EQ(Room(spare), 4);
}

TEST_F(TaskRingTest, GivesTheNewestFirstAndThenInOrderWhatWasMoved) {
  TaskRing none;
  TaskRing from;
  TaskRing to;
  Push(from, 0, 10);
  to.MoveOldest(from, 4, none);
  EXPECT_EQ(to.TakeOldest(), task(0));
  EXPECT_EQ(to.TakeNext(), task(1));
  Push(to, 20, 22);
  EXPECT_EQ(to.TakeNext(), task(21));
  EXPECT_EQ(to.TakeNext(), task(20));
  EXPECT_EQ(to.TakeNext(), task(2));
  EXPECT_EQ(to.TakeNext(), task(3));
  Push(to, 30, 32);
  EXPECT_EQ(to.TakeNext(), task(31));
  EXPECT_EQ(to.TakeNext(), task(30));
  EXPECT_TRUE(to.empty());
}

// Whether it grows by itself or by the spare one's memory.
TEST_F(TaskRingTest, KnowsWhatWasMovedAlsoWhenItHasGrown) {
  for (int spare_size : {0, 50}) {
    TaskRing spare;
    Push(spare, 0, spare_size);
    ExpectOldest(spare, 0, spare_size);
    TaskRing none;
    TaskRing from;
    TaskRing to;
    Push(from, 0, 10);
    to.MoveOldest(from, 4, none);
    EXPECT_EQ(to.TakeNext(), task(0));
    Push(to, 20, 21);
    to.MakeRoom(spare);
    Push(to, 21, 22);
    EXPECT_EQ(to.TakeNext(), task(21));
    EXPECT_EQ(to.TakeNext(), task(20));
    for (int i = 1; i < 4; ++i) EXPECT_EQ(to.TakeNext(), task(i));
    EXPECT_TRUE(to.empty());
  }
}

TEST_F(TaskRingTest, SwapsFewForFewAndForMany) {
  for (int here : {0, 3, 20}) {
    for (int there : {0, 2, 40}) {
      TaskRing a;
      TaskRing b;
      Push(a, 0, here);
      Push(b, 100, 100 + there);
      a.Swap(b);
      ExpectOldest(a, 100, 100 + there);
      EXPECT_TRUE(a.empty());
      ExpectOldest(b, 0, here);
      EXPECT_TRUE(b.empty());
    }
  }
}

TEST_F(TaskRingTest, LeavesTheLargerMemoryUnlessItIsVeryLarge) {
  auto grown = [&](TaskRing& ring, int size) {
    Push(ring, 0, size);
    ExpectOldest(ring, 0, size);
  };
  TaskRing spare;
  TaskRing large;
  grown(large, 100);
  large.LeaveMemoryTo(spare);
  EXPECT_EQ(Room(spare), 128);
  EXPECT_EQ(Room(large), 4);
  TaskRing small;
  grown(small, 20);
  small.LeaveMemoryTo(spare);
  EXPECT_EQ(Room(spare), 128);
  TaskRing largest_kept;
  grown(largest_kept, 4096);
  largest_kept.LeaveMemoryTo(spare);
  EXPECT_EQ(Room(spare), 4096);
  TaskRing huge;
  grown(huge, 4097);
  huge.LeaveMemoryTo(spare);
  EXPECT_EQ(Room(spare), 4096);
  // Where it would stay with the empty one.
  EXPECT_EQ(Room(huge), 4);
  EXPECT_EQ(Room(small), 4);
}

TEST_F(TaskRingTest, ShrinksToWhatItNeedsButNeverToLittle) {
  TaskRing ring;
  Push(ring, 0, 5000);
  ring.Shrink();
  EXPECT_EQ(ring.size(), 5000);
  ExpectOldest(ring, 0, 3500);
  ring.Shrink();
  ExpectOldest(ring, 3500, 4500);
  ring.Shrink();
  EXPECT_EQ(ring.size(), 500);
  EXPECT_EQ(ring[499], task(4999));
  ExpectOldest(ring, 4500, 5000);
  EXPECT_EQ(Room(ring), 4096);
  ring.Shrink();
  EXPECT_EQ(Room(ring), 4096);
}

}  // namespace
}  // namespace tocsin::internal
