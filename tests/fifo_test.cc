#include "tocsin/concurrency/internal/fifo.h"

#include <cstdint>
#include <memory>
#include <thread>

#include "gtest/gtest.h"

namespace tocsin::internal {
namespace {

constexpr int kManySegments = 10'000;

TEST(Fifo, GivesItemsInTheOrderTheyCame) {
  Fifo<int> fifo;
  int next = 0;
  for (int i = 0; i < kManySegments; ++i) {
    fifo.Push(2 * i);
    fifo.Push(2 * i + 1);
    ASSERT_TRUE(fifo.HasItem());
    ASSERT_EQ(fifo.Pop(), next++);
  }
  EXPECT_EQ(fifo.size(), size_t{kManySegments});
  while (fifo.HasItem()) ASSERT_EQ(fifo.Pop(), next++);
  EXPECT_EQ(next, 2 * kManySegments);
  EXPECT_EQ(fifo.size(), 0u);
}

TEST(Fifo, HasRoomBelowItsCapacity) {
  Fifo<int> fifo;
  EXPECT_FALSE(fifo.HasRoom(0));
  fifo.Push(1);
  fifo.Push(2);
  EXPECT_FALSE(fifo.HasRoom(2));
  EXPECT_TRUE(fifo.HasRoom(3));
  ASSERT_TRUE(fifo.HasItem());
  EXPECT_EQ(fifo.Pop(), 1);
  EXPECT_TRUE(fifo.HasRoom(2));
}

TEST(Fifo, TakesItemsOfAnySizeAndAlignment) {
  struct alignas(256) Large {
    std::unique_ptr<int> value;
    char padding[5000] = {};
  };
  Fifo<Large> fifo;
  for (int i = 0; i < 10; ++i) {
    fifo.Push(Large{.value = std::make_unique<int>(i)});
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(fifo.HasItem());
    Large item = fifo.Pop();
    EXPECT_EQ(*item.value, i);
  }
}

TEST(Fifo, AnItemIsThereOnceItIsWhole) {
  struct LooksWhenMoved {
    LooksWhenMoved(Fifo<LooksWhenMoved>& f, bool& s) : fifo(&f), there(&s) {}
    LooksWhenMoved(LooksWhenMoved&& other) noexcept
        : fifo(other.fifo), there(other.there) {
      *there = fifo->HasItem() || fifo->size() > 0;
    }
    Fifo<LooksWhenMoved>* fifo;
    bool* there;
  };
  Fifo<LooksWhenMoved> fifo;
  bool there = true;
  fifo.Push(LooksWhenMoved(fifo, there));
  EXPECT_FALSE(there);
  ASSERT_TRUE(fifo.HasItem());
  fifo.Pop();
  EXPECT_EQ(fifo.size(), 0u);
}

TEST(Fifo, DestroysWhatIsLeft) {
  auto item = std::make_shared<int>(1);
  {
    Fifo<std::shared_ptr<int>> fifo;
    for (int i = 0; i < kManySegments; ++i) {
      fifo.Push(std::shared_ptr<int>(item));
    }
    ASSERT_TRUE(fifo.HasItem());
    fifo.Pop();
    EXPECT_EQ(item.use_count(), kManySegments);
  }
  EXPECT_EQ(item.use_count(), 1);
}

TEST(Fifo, BothEndsWorkAtTheSameTime) {
  Fifo<std::unique_ptr<int>> fifo;
  constexpr size_t kCapacity = 300;  // more than one segment
  std::thread back([&] {
    for (int i = 0; i < kManySegments; ++i) {
      while (!fifo.HasRoom(kCapacity)) std::this_thread::yield();
      fifo.Push(std::make_unique<int>(i));
    }
  });
  for (int i = 0; i < kManySegments; ++i) {
    while (!fifo.HasItem()) std::this_thread::yield();
    ASSERT_EQ(*fifo.Pop(), i);
  }
  back.join();
  EXPECT_FALSE(fifo.HasItem());
}

}  // namespace
}  // namespace tocsin::internal
