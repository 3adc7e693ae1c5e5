#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/status_matchers.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using internal::MutexLock;

// The number of threads that the library has for Await().
ptrdiff_t Visitors() {
  const std::vector<std::string> threads = Threads();
  return std::count_if(threads.begin(), threads.end(), [](const auto& thread) {
    return StatusField(thread, "Name") == "tocsin-await";
  });
}

// The one that there is, as a task.
std::string Visitor() {
  const std::vector<std::string> threads = Threads();
  return *std::find_if(threads.begin(), threads.end(), [](const auto& thread) {
    return StatusField(thread, "Name") == "tocsin-await";
  });
}

// A thread that goes to sleep later finds what is asked of it without a bell.
void AwaitVisitorAsleep() {
  while (Visitors() == 0) sched_yield();
  AwaitState(Visitor(), "S");
}

class AwaitTest : public ::testing::Test {
 protected:
  absl::Status AwaitReady() {
    MutexLock lock(mutex_);
    absl::Status status = Await(mutex_, absl::Condition(&ready_));
    mutex_.AssertHeld();
    EXPECT_TRUE(ready_ || !status.ok());
    return status;
  }
  void SetReady() {
    MutexLock lock(mutex_);
    ready_ = true;
  }

  absl::Mutex mutex_;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST_F(AwaitTest, ReturnsWhenTheConditionIsTrue) {
  SetReady();
  EXPECT_TRUE(AwaitReady().ok());
}

TEST_F(AwaitTest, WaitsForTheConditionInAScopeAndOutside) {
  absl::Status inside;
  absl::Status outside;
  ScopedThread waiter([&] { inside = AwaitReady(); });
  std::thread no_scope([&] { outside = AwaitReady(); });
  waiter.AwaitAsleep();
  SetReady();
  waiter.Join();
  no_scope.join();
  EXPECT_TRUE(inside.ok());
  EXPECT_TRUE(outside.ok());
}

TEST_F(AwaitTest, FailsInACancelledScopeThoughTheConditionIsTrue) {
  SetReady();
  CancelScope scope;
  scope.Cancel();
  EXPECT_TRUE(absl::IsCancelled(AwaitReady()));
}

// A024, A026
TEST_F(AwaitTest, CancelEndsIt) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  AwaitVisitorAsleep();
  waiter.scope().Cancel(absl::CancelledError("enough"));
  waiter.Join();
  EXPECT_THAT(status, Says(absl::CancelledError("enough")));
}

TEST_F(AwaitTest, WhoCancelsMayHoldTheMutex) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  {
    MutexLock lock(mutex_);
    waiter.scope().Cancel();
    ready_ = true;  // in the same breath: it is there, so it counts
  }
  waiter.Join();
  EXPECT_TRUE(status.ok());
}

TEST_F(AwaitTest, CancelEndsAWaitWithTheMutexHeldShared) {
  absl::Status status;
  ScopedThread waiter([&] {
    absl::ReaderMutexLock lock(&mutex_);
    status = Await(mutex_, absl::Condition(&ready_));
    mutex_.AssertReaderHeld();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
}

TEST_F(AwaitTest, ADeadlineEndsIt) {
  CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(1)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(AwaitReady()));
}

// A063
TEST_F(AwaitTest, ADeadlineMovedNearerEndsIt) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  waiter.scope().set_deadline(absl::Now());
  waiter.Join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

TEST_F(AwaitTest, ADeadlineThatIsMovedNearerEndsItWhenItComes) {
  CancelScope scope({.timeout = absl::Hours(1)});
  const std::string waiting = TaskOfThisThread();
  std::jthread mover([&] {
    AwaitState(waiting, "S");
    scope.set_timeout(absl::Milliseconds(20));
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(AwaitReady()));
}

// A048, A056
TEST_F(AwaitTest, ALiftedShieldEndsIt) {
  absl::Status status;
  std::atomic<CancelScope*> shield{nullptr};
  ScopedThread waiter([&] {
    CancelScope inner({.shield = true});
    shield = &inner;
    status = AwaitReady();
  });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  waiter.AwaitAsleep();
  shield.load()->set_shield(false);
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status));
}

// Woken for nothing, it lets the mutex go again.
TEST_F(AwaitTest, ADeadlineThatIsMovedAwayLetsItWaitOn) {
  absl::Status status;
  ScopedThread waiter([&] { status = AwaitReady(); });
  waiter.AwaitAsleep();
  const int64_t before = waiter.TimesAsleep();
  waiter.scope().set_deadline(absl::Now() + absl::Hours(1));
  while (waiter.TimesAsleep() == before) std::this_thread::yield();
  SetReady();
  waiter.Join();
  EXPECT_TRUE(status.ok());
}

// A condition that is true from the second look on.
class AtSecondLook {
 public:
  absl::Condition condition() {
    return absl::Condition(
        +[](int* looks) { return ++*looks >= 2; }, &looks_);
  }

 private:
  int looks_ = 0;
};

// Each mutex that is held keeps one, and another takes its place. Those that
// are not needed any more go.
TEST(Await, OneThreadStaysHoweverManyMutexesWereHeld) {
  std::array<absl::Mutex, 10> mutexes;
  std::vector<std::unique_ptr<ScopedThread>> waiters;
  bool never = false;
  for (absl::Mutex& mutex : mutexes) {
    waiters.push_back(std::make_unique<ScopedThread>([&] {
      MutexLock lock(mutex);
      EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&never))));
    }));
    waiters.back()->AwaitAsleep();
  }
  for (absl::Mutex& mutex : mutexes) mutex.Lock();
  for (const auto& waiter : waiters) waiter->scope().Cancel();
  while (Visitors() != std::ssize(mutexes)) std::this_thread::yield();
  for (absl::Mutex& mutex : mutexes) mutex.Unlock();
  waiters.clear();
  while (Visitors() != 1) std::this_thread::yield();
}

// Each time the thread finds the mutex held, and is to be used again.
TEST(Await, OneThreadStaysHoweverOftenItWasBlocked) {
  absl::Mutex mutex;
  bool never = false;
  for (int i = 0; i < 10; ++i) {
    ScopedThread waiter([&] {
      MutexLock lock(mutex);
      EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&never))));
    });
    waiter.AwaitAsleep();
    while (Visitors() != 1) std::this_thread::yield();
    const std::string visitor = Visitor();
    AwaitState(visitor, "S");
    const auto times_asleep = [&visitor] {
      return std::stoll(StatusField(visitor, "voluntary_ctxt_switches"));
    };
    const auto before = times_asleep();
    MutexLock lock(mutex);
    waiter.scope().Cancel();
    while (times_asleep() == before) std::this_thread::yield();
  }
  while (Visitors() != 1) std::this_thread::yield();
}

TEST(Await, NothingIsLeftOfTheMutexesThatWereAwaited) {
  constexpr int kMutexes = 10'000;
  const auto mutexes = std::make_unique<absl::Mutex[]>(kMutexes);
  CancelScope scope;
  size_t before = 0;
  for (int i = 0; i < kMutexes; ++i) {
    if (i == 1) before = mallinfo2().uordblks;
    AtSecondLook second;
    MutexLock lock(mutexes[i]);
    EXPECT_TRUE(Await(mutexes[i], second.condition()).ok());
  }
  EXPECT_LT(mallinfo2().uordblks, before + 64 * 1024);
}

// What the wait had on its stack is gone when the next one begins.
TEST(Await, TheDeadlineOfAWaitThatIsOverIsForgotten) {
  constexpr size_t kStack = 1 << 20;
  void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(stack, MAP_FAILED);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstack(&attributes, stack, kStack), 0);
  auto await = [](void*) -> void* {
    CancelScope scope({.timeout = absl::Hours(1)});
    absl::Mutex mutex;
    AtSecondLook second;
    MutexLock lock(mutex);
    EXPECT_TRUE(Await(mutex, second.condition()).ok());
    return nullptr;
  };
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, await, nullptr), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  ASSERT_EQ(munmap(stack, kStack), 0);
  await(nullptr);
}

// The exit status of a forked child that runs `body`.
int StatusOfFork(absl::FunctionRef<void()> body) {
  Child child(Fork([body] {
    alarm(10);  // not to stay if it hangs
    body();
  }));
  return ExitStatus(child.Wait());
}

// Where nobody can cancel it, and where it does not block. Looked at in a
// child, because the thread that a parent has does not come along.
TEST_F(AwaitTest, NeedsNoThreadUnlessItBlocksInAScope) {
  EXPECT_EQ(StatusOfFork([&] {
              const size_t before = Threads().size();
              AtSecondLook second;
              {
                MutexLock lock(mutex_);
                EXPECT_TRUE(Await(mutex_, second.condition()).ok());
              }
              CancelScope scope;
              SetReady();
              EXPECT_TRUE(AwaitReady().ok());
              EXPECT_EQ(Threads().size(), before);
            }),
            0);
}

// ThreadSanitizer allows no thread in a forked child.
#ifndef ABSL_HAVE_THREAD_SANITIZER
TEST_F(AwaitTest, CancelEndsItInAForkedChildToo) {
  auto cancelled_wait_ends = [&] {
    absl::Status status;
    ScopedThread waiter([&] { status = AwaitReady(); });
    waiter.AwaitAsleep();
    waiter.scope().Cancel();
    waiter.Join();
    EXPECT_TRUE(absl::IsCancelled(status));
  };
  cancelled_wait_ends();
  EXPECT_EQ(StatusOfFork(cancelled_wait_ends), 0);
}

// A visit that was due in the parent is none of the child's, which has another
// mutex there.
TEST(Await, AVisitOfTheParentIsForgottenInAForkedChild) {
  bool never = false;
  alignas(absl::Mutex) std::byte memory[sizeof(absl::Mutex)];
  auto* mutex = ::new (memory) absl::Mutex;
  auto await_cancelled = [&] {
    MutexLock lock(*mutex);
    EXPECT_TRUE(absl::IsCancelled(Await(*mutex, absl::Condition(&never))));
  };
  ScopedThread waiter(await_cancelled);
  waiter.AwaitAsleep();
  mutex->Lock();
  waiter.scope().Cancel();
  EXPECT_EQ(StatusOfFork([&] {
              mutex = ::new (memory) absl::Mutex;
              ScopedThread own(await_cancelled);
              own.AwaitAsleep();
              own.scope().Cancel();
            }),
            0);
  mutex->Unlock();
  waiter.Join();
  mutex->~Mutex();
}
#endif

// The holder of one mutex waits for a thread that awaits another: the thread
// that wakes them must not be stuck in the first.
TEST(Await, AMutexThatIsHeldDelaysNobodyWhoAwaitsAnother) {
  absl::Mutex held;
  absl::Mutex other;
  bool never = false;
  auto await = [&](absl::Mutex& mutex) {
    MutexLock lock(mutex);
    EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&never))));
  };
  ScopedThread first([&] { await(held); });
  ScopedThread second([&] { await(other); });
  first.AwaitAsleep();
  second.AwaitAsleep();
  {
    MutexLock lock(held);
    first.scope().Cancel();
    second.scope().Cancel();
    second.Join();
  }
  first.Join();
}

TEST(Await, ManyWaitersOfOneMutexEndWithOneCancel) {
  absl::Mutex mutex;
  bool never = false;
  CancelScope all;
  std::atomic<int> cancelled{0};
  std::vector<std::unique_ptr<ScopedThread>> threads;
  for (int i = 0; i < 50; ++i) {
    threads.push_back(std::make_unique<ScopedThread>([&] {
      MutexLock lock(mutex);
      if (absl::IsCancelled(Await(mutex, absl::Condition(&never)))) ++cancelled;
    }));
  }
  for (auto& thread : threads) thread->AwaitAsleep();
  {
    MutexLock lock(mutex);
    for (auto& thread : threads) thread->scope().Cancel();
  }
  threads.clear();
  EXPECT_EQ(cancelled, 50);
}

// The mutex is gone as soon as the only one who awaited it has returned, be it
// cancelled or not.
TEST(Await, TheMutexMayBeDestroyedRightAfter) {
  for (int i = 0; i < 500; ++i) {
    struct Guarded {
      absl::Mutex mutex;
      bool ready = false;
    };
    absl::Mutex setting;
    auto guarded = std::make_unique<Guarded>();
    absl::Status status;
    ScopedThread waiter([&] {
      {
        MutexLock lock(guarded->mutex);
        status = Await(guarded->mutex, absl::Condition(&guarded->ready));
        EXPECT_TRUE(guarded->ready || !status.ok());
      }
      MutexLock lock(setting);
      guarded.reset();
    });
    if (i % 2 == 0) waiter.AwaitAsleep();
    std::thread canceller([&] { waiter.scope().Cancel(); });
    if (i % 3 == 0) {
      MutexLock lock(setting);
      if (guarded != nullptr) {
        MutexLock inner(guarded->mutex);
        guarded->ready = true;
      }
    }
    canceller.join();
    waiter.Join();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
  }
}

TEST(AwaitDeathTest, TheMutexMustBeHeldThoughTheConditionIsTrue) {
  absl::Mutex mutex;
  for (bool ready : {false, true}) {
    EXPECT_DEATH(
        [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
          Await(mutex, absl::Condition(&ready)).IgnoreError();
        }(),
        "should hold");
  }
}

}  // namespace
}  // namespace tocsin
