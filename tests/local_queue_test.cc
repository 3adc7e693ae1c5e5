// A shard and its local queues, by one thread and without their lock.
#include "tocsin/concurrency/internal/local_queue.h"

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_ring.h"

namespace tocsin::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Task& NewTask() {
  return *Task::New([] { return absl::OkStatus(); });
}

// Nobody looks into the group, whose address is enough.
TaskQueue& Group(int& place) { return reinterpret_cast<TaskQueue&>(place); }

class LocalQueueTest : public testing::Test {
 protected:
  // As at the start of a group.
  void Push(LocalQueue& local, int tasks) {
    for (int i = 0; i < tasks; ++i) {
      local.tasks.MakeRoom(spare_);
      local.Push(NewTask(), numbers_given_);
    }
  }
  void Begin(LocalQueue& local, RunningTask& running) {
    local.Link(running, *local.tasks.TakeOldest());
  }
  void End(LocalQueue& local, RunningTask& running) {
    running.task->Discard();
    local.Unlink(running);
    local.Count(-1);
  }
  static std::vector<const RunningTask*> Running(const LocalQueue& local) {
    std::vector<const RunningTask*> running;
    for (const RunningTask* r = local.begun; r != nullptr; r = r->next) {
      running.push_back(r);
    }
    return running;
  }
  static std::vector<const LocalQueue*> Ready(const Shard& shard)
      ABSL_NO_THREAD_SAFETY_ANALYSIS {
    std::vector<const LocalQueue*> ready;
    for (const LocalQueue* q = shard.first_ready; q; q = q->next_ready) {
      ready.push_back(q);
    }
    return ready;
  }

  std::atomic<uint64_t> numbers_given_{0};
  TaskRing spare_;
  Shard shard_;
};

TEST_F(LocalQueueTest, CountsWhatHasNotEnded) {
  LocalQueue local(shard_);
  Push(local, 2);
  EXPECT_EQ(local.unfinished, 2);
  RunningTask first;
  RunningTask second;
  Begin(local, first);
  Begin(local, second);
  EXPECT_TRUE(local.tasks.empty());
  EXPECT_EQ(local.unfinished, 2);
  End(local, first);
  EXPECT_EQ(local.unfinished, 1);
  End(local, second);
  EXPECT_EQ(local.unfinished, 0);
}

TEST_F(LocalQueueTest, ListsThoseThatRunInWhateverOrderTheyEnd) {
  LocalQueue local(shard_);
  Push(local, 3);
  RunningTask first;
  RunningTask second;
  RunningTask third;
  Begin(local, first);
  Begin(local, second);
  Begin(local, third);
  EXPECT_EQ(first.local, &local);
  EXPECT_THAT(Running(local), ElementsAre(&third, &second, &first));
  End(local, second);
  EXPECT_THAT(Running(local), ElementsAre(&third, &first));
  End(local, third);
  EXPECT_THAT(Running(local), ElementsAre(&first));
  End(local, first);
  EXPECT_THAT(Running(local), IsEmpty());
}

TEST_F(LocalQueueTest, TwoOfOneGroupGiveNoNumberTwice) {
  LocalQueue here(shard_);
  LocalQueue there(shard_);
  Push(here, 1);
  Push(there, 1);
  Push(here, 1);
  EXPECT_EQ(here.tasks[0]->number, 1);
  EXPECT_EQ(here.tasks[1]->number, 2);
  EXPECT_EQ(there.tasks[0]->number, LocalQueue::kNumbers + 1);
  for (RunningTask running; !here.tasks.empty();) {
    Begin(here, running);
    End(here, running);
  }
  RunningTask running;
  Begin(there, running);
  EXPECT_EQ(running.name(), "task 1025");
  End(there, running);
}

TEST_F(LocalQueueTest, ThoseThatAreReadyStandInLineAtTheirShard) {
  LocalQueue first(shard_);
  LocalQueue second(shard_);
  LocalQueue third(shard_);
  Shard::Enter(first);
  Shard::Enter(second);
  Shard::Enter(third);
  Shard::Enter(first);  // is there
  EXPECT_THAT(Ready(shard_), ElementsAre(&first, &second, &third));
  Shard::Leave(second);
  Shard::Leave(second);  // is not there
  EXPECT_THAT(Ready(shard_), ElementsAre(&first, &third));
  Shard::Leave(first);
  Shard::Enter(first);
  EXPECT_THAT(Ready(shard_), ElementsAre(&third, &first));
  Shard::Leave(first);
  Shard::Leave(third);
  EXPECT_THAT(Ready(shard_), IsEmpty());
}

TEST_F(LocalQueueTest, AShardLooksReadyUntilSomebodySeesThatItIsNot) {
  LocalQueue local(shard_);
  EXPECT_FALSE(shard_.looks_ready);
  Shard::Enter(local);
  EXPECT_TRUE(shard_.IsReady());
  Shard::Leave(local);
  EXPECT_TRUE(shard_.looks_ready);
  EXPECT_FALSE(shard_.IsReady());
  EXPECT_FALSE(shard_.looks_ready);
}

TEST_F(LocalQueueTest, IsStuckIfNothingWasTakenBetweenTwoLooks)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  LocalQueue local(shard_);
  Shard::Enter(local);
  EXPECT_FALSE(shard_.Stuck());
  EXPECT_TRUE(shard_.Stuck());
  ++local.taken;
  EXPECT_FALSE(shard_.Stuck());
  EXPECT_TRUE(shard_.Stuck());
  Shard::Leave(local);
  EXPECT_FALSE(shard_.Stuck());
}

TEST_F(LocalQueueTest, AnAccountThatIsGivenBackIsTheNextGroups)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  int places[2];
  TaskQueue& one = Group(places[0]);
  TaskQueue& other = Group(places[1]);
  EXPECT_EQ(shard_.FindAccount(one), nullptr);
  LocalQueue& account = shard_.AddAccount(one);
  EXPECT_EQ(shard_.FindAccount(one), &account);
  EXPECT_EQ(shard_.FindAccount(other), nullptr);
  Push(account, 1);
  RunningTask running;
  Begin(account, running);
  End(account, running);
  Shard::Spare(account);
  EXPECT_EQ(shard_.FindAccount(one), nullptr);
  EXPECT_EQ(&shard_.AddAccount(other), &account);
  EXPECT_EQ(shard_.FindAccount(other), &account);
  EXPECT_EQ(account.number, account.numbers_end);  // it has none of the first's
  Shard::Spare(account);
}

}  // namespace
}  // namespace tocsin::internal
