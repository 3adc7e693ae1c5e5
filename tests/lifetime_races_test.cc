// Whoever lets the owner of a scope or a group go touches it no more: each
// window in which that could be is held open at its step, and what is gone is
// gone from memory.
#include <sched.h>

#include <atomic>
#include <functional>
#include <latch>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/own_pages.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/task_set.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

// Scopes. --------------------------------------------------------------------

bool IsCancelled(const CancelScope&) {
  return internal::current_scope->cancelled();
}

// Its thread learns of a change by looking, and has never slept in it.
class ScopeLifetime : public testing::Test {
 protected:
  // Changes a scope of another thread, which leaves it in the middle of that,
  // as soon as it looks changed.
  static void ExpectNotTouchedAfter(
      const std::function<void(CancelScope&)>& change,
      const std::function<bool(const CancelScope&)>& looks_changed =
          IsCancelled,
      bool in_clean_up = false) {
    std::atomic<CancelScope*> scope = nullptr;
    ScopedThread owner([&] {
      CancelScope outer;
      outer.Cancel();
      // A scope with a deadline is looked at each time.
      OwnPages<CancelScope> own(
          CancelScope::Options{.timeout = absl::Hours(1), .shield = true});
      std::optional<CleanUpScope> clean_up;
      if (in_clean_up) {
        own->Cancel();
        clean_up.emplace();
      }
      scope = &*own;
      while (!looks_changed(*own)) sched_yield();
    });
    while (scope == nullptr) sched_yield();
    HeldAt changed("CancelScope: changed, not yet announced");
    ScopedThread changer([&] { change(*scope); });
    changed.AwaitThread();
    owner.Join();
    changed.Release();
  }
};

TEST_F(ScopeLifetime, EndsWhenItIsSeenToBeCancelled) {
  ExpectNotTouchedAfter([](CancelScope& scope) { scope.Cancel(); });
}

TEST_F(ScopeLifetime, EndsWhenTheEndOfItsCleanUpIsSeenToHaveMoved) {
  ExpectNotTouchedAfter(
      [](CancelScope& scope) {
        scope.Cancel(absl::CancelledError(), absl::ZeroDuration());
      },
      IsCancelled, true);
}

TEST_F(ScopeLifetime, EndsWhenItsDeadlineIsSeenToHaveMoved) {
  ExpectNotTouchedAfter(
      [](CancelScope& scope) { scope.set_deadline(absl::UnixEpoch()); },
      [](const CancelScope& scope) {
        return scope.deadline() == absl::UnixEpoch();
      });
}

TEST_F(ScopeLifetime, EndsWhenItsShieldIsSeenToBeLifted) {
  ExpectNotTouchedAfter([](CancelScope& scope) { scope.set_shield(false); });
}

// Groups. --------------------------------------------------------------------

// Where nobody runs tasks but who waits.
std::unique_ptr<ThreadPool> NoThreads() {
  return *ThreadPool::Create({.threads = 0, .max_threads = 0});
}

TEST(GroupLifetime, LastsUntilACancelThatEndsItIsThrough) {
  auto pool = *ThreadPool::Create({.threads = 1});
  HeldAt cancelled("GroupState: has cancelled its scope");
  OwnPages<TaskSet> tasks(TaskSet::Options{.pool = pool.get()});
  std::latch asleep(1);
  tasks->Spawn([&] {
    asleep.count_down();
    return Event().Wait();
  });
  asleep.wait();
  ScopedThread canceller([&, set = &*tasks] { set->Cancel(); });
  cancelled.AwaitThread();
  std::atomic<bool> ended = false;
  ScopedThread owner([&] {
    EXPECT_TRUE(tasks->Wait().ok());
    tasks.reset();
    ended = true;
  });
  owner.AwaitAsleep();
  EXPECT_FALSE(ended);
  cancelled.Release();
  owner.Join();
  pool.reset();
}

TEST(GroupLifetime, LastsUntilAllThatWaitForItsEndAreOut) {
  auto pool = NoThreads();
  OwnPages<TaskSet> tasks(TaskSet::Options{.pool = pool.get()});
  std::latch inside(1);
  std::latch release(1);
  tasks->Spawn([&] {
    inside.count_down();
    release.wait();
    return absl::NotFoundError("the same for both");
  });
  std::atomic<bool> waited = false;
  std::atomic<bool> destroyed = false;
  ScopedThread owner([&] {
    EXPECT_TRUE(absl::IsNotFound(tasks->Wait()));
    waited = true;
    tasks.reset();
    pool.reset();
    destroyed = true;
  });
  inside.wait();
  HeldAt slept("GroupJoin: has slept");
  ScopedThread other(
      [set = &*tasks] { EXPECT_TRUE(absl::IsNotFound(set->Wait())); });
  other.AwaitAsleep();
  release.count_down();
  slept.AwaitThread();
  while (!waited) sched_yield();
  owner.AwaitAsleep();
  EXPECT_FALSE(destroyed);
  slept.Release();
}

// The thread that has waited for a handle is not waited for by anybody.
TEST(GroupLifetime, EndsWithATaskThatAnotherWaitRan) {
  for (int limit : {0, 1}) {
    auto pool = NoThreads();
    OwnPages<TaskSet> tasks(
        TaskSet::Options{.pool = pool.get(), .max_running = limit});
    std::latch inside(1);
    std::latch release(1);
    TaskHandle<int> handle = tasks->SpawnWithResult([&] {
      inside.count_down();
      release.wait();
      return 1;
    });
    HeldAt ended("TaskQueue: has ended a task that a wait ran");
    ScopedThread waiter([&] { EXPECT_EQ(*handle.Take(), 1); });
    inside.wait();
    ScopedThread owner([&] {
      EXPECT_TRUE(tasks->Wait().ok());
      tasks.reset();
      pool.reset();
    });
    release.count_down();
    ended.AwaitThread();
    owner.Join();
    ended.Release();
  }
}

// Who waits for one of its tasks, asleep, is in its list.
TEST(GroupLifetime, EndsWithoutThoseWhoWaitForTheTurnOfATask) {
  auto pool = NoThreads();
  OwnPages<TaskSet> tasks(
      TaskSet::Options{.pool = pool.get(), .max_running = 1});
  std::latch inside(1);
  std::latch release(1);
  tasks->Spawn([&] {
    inside.count_down();
    release.wait();
  });
  TaskHandle<int> handle = tasks->SpawnWithResult([] { return 1; });
  ScopedThread owner([&] {
    EXPECT_TRUE(tasks->Wait().ok());
    tasks.reset();
    pool.reset();
  });
  inside.wait();
  HeldAt slept("TaskHandle: has slept");
  ScopedThread waiter([&] { EXPECT_EQ(*handle.Take(), 1); });
  waiter.AwaitAsleep();
  release.count_down();
  slept.AwaitThread();
  owner.Join();
  slept.Release();
}

// Turns. ---------------------------------------------------------------------

// Three tasks of which one runs at a time, the first by a thread that waits for
// it. Two threads that sleep wait for the others.
class TurnTest : public testing::Test {
 protected:
  TurnTest() {
    inside_.wait();
    waits_for_second_.emplace([this] { EXPECT_TRUE(second_.Wait().ok()); });
    waits_for_second_->AwaitAsleep();
    // Asleep last, it is woken first.
    waits_for_third_.emplace(
        [this] { EXPECT_TRUE(absl::IsCancelled(third_.Wait())); });
    waits_for_third_->AwaitAsleep();
  }

  const std::unique_ptr<ThreadPool> pool_ = NoThreads();
  TaskSet tasks_{{.pool = pool_.get(), .max_running = 1}};
  std::latch inside_{1};
  std::latch release_{1};
  TaskHandle<void> first_ = tasks_.SpawnWithResult([this] {
    inside_.count_down();
    release_.wait();
  });
  TaskHandle<void> second_ = tasks_.SpawnWithResult([] {});
  TaskHandle<void> third_ = tasks_.SpawnWithResult([] {});
  ScopedThread waits_for_first_{[this] { EXPECT_TRUE(first_.Wait().ok()); }};
  std::optional<ScopedThread> waits_for_second_;
  std::optional<ScopedThread> waits_for_third_;
};

TEST_F(TurnTest, IsPassedOnByAWaitThatIsGivenUp) {
  HeldAt cancelled("TaskHandle: wait is over");
  waits_for_third_->scope().Cancel();
  cancelled.AwaitThread();
  release_.count_down();
  waits_for_first_.Join();
  cancelled.Release();
  waits_for_second_->Join();
}

TEST_F(TurnTest, IsPassedOnByWhoCancelsTheTask) {
  HeldAt slept("TaskHandle: has slept");
  release_.count_down();
  slept.AwaitThread();
  waits_for_first_.Join();
  third_.Cancel();
  waits_for_second_->Join();
  slept.Release();
}

// The start of a task.
// ---------------------------------------------------------

TEST(TaskHandleRaces, ACancelInTheMiddleOfAStartIsACancel) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskSet tasks({.pool = pool.get()});
  HeldAt starts("TaskHandle: its task is in its scope");
  TaskHandle<int> handle = tasks.SpawnWithResult([] { return 1; });
  starts.AwaitThread();
  // Its scope is not cancelled yet.
  HeldAt requested("CancelScope: its stop token is requested");
  ScopedThread canceller([&] { handle.Cancel(); });
  requested.AwaitThread();
  starts.Release();
  EXPECT_TRUE(absl::IsCancelled(handle.Wait()));
  EXPECT_TRUE(absl::IsCancelled(handle.Take().status()));
  requested.Release();
}

}  // namespace
}  // namespace tocsin
