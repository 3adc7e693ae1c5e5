// Waits that would never end, because each of several tasks waits for the group
// of the next: one is refused, and the others end.
#include "tocsin/concurrency/internal/task_wait.h"

#include <array>
#include <latch>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/steps.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"

namespace tocsin {
namespace {

class TaskWaitTest : public testing::TestWithParam<int> {
 protected:
  const std::unique_ptr<ThreadPool> pool_ =
      *ThreadPool::Create({.threads = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(Threads, TaskWaitTest, testing::Values(1, 2, 8));

TEST_P(TaskWaitTest, OfACircleOneIsRefused) {
  constexpr size_t kSets = 5;
  std::array<std::unique_ptr<TaskSet>, kSets> sets;
  for (size_t i = 0; i < kSets; ++i) {
    sets[i] = std::make_unique<TaskSet>(
        TaskSet::Options{.pool = pool_.get(), .name = absl::StrCat("set ", i)});
  }
  std::array<absl::Status, kSets> statuses;
  std::latch all(kSets);
  for (size_t i = 0; i < kSets; ++i) {
    sets[i]->Spawn([&, i] {
      all.arrive_and_wait();
      statuses[i] = sets[(i + 1) % kSets]->Wait();
    });
  }
  for (auto& set : sets) EXPECT_TRUE(set->Wait().ok());
  int refused = 0;
  for (size_t i = 0; i < kSets; ++i) {
    if (statuses[i].ok()) continue;
    ++refused;
    EXPECT_EQ(statuses[i].code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(statuses[i].ToString(),
                testing::HasSubstr(absl::StrCat("\"set ", (i + 1) % kSets)));
  }
  EXPECT_EQ(refused, 1);
}

// The waits of others, and of the same set, are no part of the circle.
TEST_P(TaskWaitTest, ThoseBesideTheCircleEndWell) {
  TaskSet a({.pool = pool_.get()});
  TaskSet b({.pool = pool_.get()});
  TaskSet beside({.pool = pool_.get()});
  std::latch both(2);
  absl::Status in_a;
  absl::Status in_b;
  a.Spawn([&] {
    both.arrive_and_wait();
    in_a = b.Wait();
  });
  b.Spawn([&] {
    both.arrive_and_wait();
    in_b = a.Wait();
  });
  beside.Spawn([&] { return a.Wait(); });
  beside.Spawn([&] { return b.Wait(); });
  EXPECT_TRUE(beside.Wait().ok());
  EXPECT_NE(in_a.ok(), in_b.ok());
}

// A destructor cannot be refused: whoever waits for it can.
TEST_P(TaskWaitTest, TheDestructorOfTheOthersGoesOn) {
  TaskSet outer({.pool = pool_.get()});
  absl::Status refused;
  outer.Spawn([&] {
    TaskSet inner({.pool = pool_.get()});
    Event begun;
    inner.Spawn([&] {
      begun.Set();
      refused = outer.Wait();
    });
    EXPECT_TRUE(begun.Wait().ok());
  });
  EXPECT_TRUE(outer.Wait().ok());
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(TaskWaitTest, ThatLastsIsNotRefusedWhereItCanEnd) {
  TaskSet awaited({.pool = pool_.get()});
  TaskSet waits({.pool = pool_.get()});
  Event has_lasted;
  AtStep looked("TaskWait: has looked for a circle", [&] { has_lasted.Set(); });
  Event begun;  // on another thread than that of the wait
  awaited.Spawn([&] {
    begun.Set();
    return has_lasted.Wait();
  });
  EXPECT_TRUE(begun.Wait().ok());
  waits.Spawn([&] { return awaited.Wait(); });
  EXPECT_TRUE(waits.Wait().ok());
  EXPECT_TRUE(awaited.Wait().ok());
  EXPECT_TRUE(looked.passed());
}

TEST(TaskWaitDeathTest, DestructorsAloneEndTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto* a = new TaskSet;
        auto* b = new TaskSet;
        std::latch both(2);
        a->Spawn([&] {
          both.arrive_and_wait();
          delete b;
        });
        b->Spawn([&] {
          both.arrive_and_wait();
          delete a;
        });
        std::latch(1).wait();
      },
      "destroyed by a task that it would have to wait for");
}

}  // namespace
}  // namespace tocsin
