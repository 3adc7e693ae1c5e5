// The windows in the waits of the library, each held open at its step.
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <latch>
#include <new>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/steps.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

using internal::MutexLock;
using internal::Sleeper;
using internal::SlimMutex;

TEST(SemaphoreRaces, APermitGrantedAtTheMomentOfACancelCounts) {
  Semaphore semaphore(1);
  std::optional<Semaphore::Permit> first = semaphore.TryAcquire();
  ASSERT_TRUE(first.has_value());
  HeldAt cancelled("Semaphore: wait is over");
  absl::StatusOr<Semaphore::Permit> second = absl::UnknownError("not back");
  ScopedThread thread([&] { second = semaphore.Acquire(); });
  thread.AwaitAsleep();
  thread.scope().Cancel();
  cancelled.AwaitThread();
  first.reset();
  cancelled.Release();
  thread.Join();
  EXPECT_EQ(second.status(), absl::OkStatus());
  EXPECT_EQ(semaphore.in_use(), 1);
}

class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe(ends_), 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    for (int end : ends_) close(end);
  }
  int reader() const { return ends_[0]; }
  void Write() { EXPECT_EQ(write(ends_[1], "x", 1), 1); }

 private:
  int ends_[2] = {-1, -1};
};

// One of each way to sleep, for what does not come.
struct Wait {
  const char* name;
  std::function<absl::Status()> wait;
};

const Wait kOnWord = {"its own word", [] { return Event().Wait(); }};
const Wait kWithOthers = {"the word of the scope", [] {
                            return tocsin::Sleep(absl::InfiniteDuration());
                          }};
const Wait kInPoll = {"poll",
                      [] { return PollFd(Pipe().reader(), POLLIN).status(); }};
const Wait kInMutex = {"a mutex", [] {
                         absl::Mutex mutex;
                         bool never = false;
                         MutexLock lock(mutex);
                         return Await(mutex, absl::Condition(&never));
                       }};

TEST(SleepRaces, WhatCancelsAfterTheLookAtTheScopeEndsTheSleep) {
  for (const Wait& wait : {kOnWord, kWithOthers, kInPoll, kInMutex}) {
    SCOPED_TRACE(wait.name);
    CancelScope scope;
    AtStep looked("Sleeper: found its scope clear", [&] { scope.Cancel(); });
    EXPECT_TRUE(absl::IsCancelled(wait.wait()));
    EXPECT_TRUE(looked.passed());
  }
}

TEST(SleepRaces, ADeadlineThatIsMovedAfterTheLookAtTheScopeEndsTheSleep) {
  for (const Wait& wait : {kOnWord, kWithOthers, kInPoll, kInMutex}) {
    SCOPED_TRACE(wait.name);
    CancelScope scope({.deadline = internal::WallNow() + absl::Hours(1)});
    AtStep looked("Sleeper: found its scope clear",
                  [&] { scope.set_deadline(internal::WallNow()); });
    EXPECT_TRUE(absl::IsDeadlineExceeded(wait.wait()));
    EXPECT_TRUE(looked.passed());
  }
}

TEST(SleepRaces, WhatCancelsAScopeAroundItAfterTheLookEndsTheSleep) {
  for (const Wait& wait : {kOnWord, kWithOthers, kInPoll, kInMutex}) {
    SCOPED_TRACE(wait.name);
    CancelScope outer;
    CancelScope between;
    CancelScope inner;
    AtStep looked("Sleeper: found its scope clear", [&] { outer.Cancel(); });
    EXPECT_TRUE(absl::IsCancelled(wait.wait()));
    EXPECT_TRUE(looked.passed());
  }
}

TEST(SleepRaces, WhatCancelsAtTheLastMomentEndsTheSleep) {
  for (const Wait& wait : {kOnWord, kInPoll, kInMutex}) {
    SCOPED_TRACE(wait.name);
    CancelScope scope;
    AtStep sleeping("Sleeper: about to sleep", [&] { scope.Cancel(); });
    EXPECT_TRUE(absl::IsCancelled(wait.wait()));
    EXPECT_TRUE(sleeping.passed());
  }
}

TEST(SleepRaces, AWakeUpAtTheLastMomentEndsTheSleep) {
  Sleeper sleeper("a test");
  AtStep sleeping("Sleeper: about to sleep", [&] { sleeper.Wake(); });
  EXPECT_TRUE(sleeper.Sleep().ok());
  EXPECT_TRUE(sleeping.passed());
}

TEST(SleepRaces, ADeadlineThatPassesAtTheLastMomentEndsTheSleep) {
  for (const Wait& wait : {kOnWord, kInPoll, kInMutex}) {
    SCOPED_TRACE(wait.name);
    bool passed = false;
    for (absl::Duration ahead = absl::Milliseconds(1); !passed; ahead *= 2) {
      CancelScope scope({.deadline = internal::WallNow() + ahead});
      AtStep sleeping("Sleeper: about to sleep", [&] {
        while (scope.remaining() > absl::ZeroDuration()) sched_yield();
      });
      EXPECT_TRUE(absl::IsDeadlineExceeded(wait.wait()));
      passed = sleeping.passed();  // or it had passed before
    }
  }
}

// A call that does what it promises, and tells.
class Call final : public internal::BlockingCall {
 public:
  void Block(const Sleeper& sleeper, internal::Instant) override {
    ++blocked;
    EXPECT_TRUE(interrupted);
    EXPECT_TRUE(sleeper.woken());
  }
  void Interrupt() override { interrupted = true; }

  int blocked = 0;
  bool interrupted = false;
};

TEST(SleepRaces, AWakeUpInterruptsTheCallThatItSleepsIn) {
  Call call;
  Sleeper sleeper("a test", internal::kNever, &call);
  AtStep sleeping("Sleeper: about to sleep",
                  [&] { EXPECT_EQ(sleeper.WakeLater(), nullptr); });
  EXPECT_TRUE(sleeper.Sleep().ok());
  EXPECT_EQ(call.blocked, 1);
}

TEST(SleepRaces, OneWithACallCanSleepWithoutIt) {
  Call call;
  Sleeper sleeper("a test", internal::kNever, &call);
  AtStep sleeping("Sleeper: about to sleep", [&] { sleeper.Wake(); });
  EXPECT_TRUE(sleeper.SleepOnWord().ok());
  EXPECT_EQ(call.blocked, 0);
  EXPECT_FALSE(call.interrupted);
}

TEST(PollFdRaces, ReadinessInTheMomentOfACancelCounts) {
  Pipe pipe;
  CancelScope scope;
  AtStep sleeping("Sleeper: about to sleep", [&] {
    scope.Cancel();
    pipe.Write();
  });
  EXPECT_EQ(PollFd(pipe.reader(), POLLIN).value_or(0), POLLIN);
  EXPECT_TRUE(sleeping.passed());
}

TEST(AwaitRaces, AConditionThatHoldsInTheMomentOfACancelCounts) {
  absl::Mutex mutex;
  bool ready = false;
  CancelScope scope;
  AtStep sleeping("Sleeper: about to sleep", [&] {
    scope.Cancel();
    ready = true;
  });
  MutexLock lock(mutex);
  EXPECT_TRUE(Await(mutex, absl::Condition(&ready)).ok());
  EXPECT_TRUE(sleeping.passed());
}

// A look at a scope is remembered as long as nothing changes. One that is made
// in the middle of a change must not be.
TEST(CancelScopeRaces, ALookInTheMiddleOfACancelIsNotRemembered) {
  CancelScope scope;
  CancelScope({.shield = true}).Cancel();  // makes the next look a real one
  bool during = false;
  AtStep cancelling("CancelScope: changed, not yet announced",
                    [&] { during = scope.cancelled(); });
  scope.Cancel();
  EXPECT_TRUE(cancelling.passed());
  EXPECT_TRUE(during);
  EXPECT_TRUE(scope.cancelled());
}

TEST(CancelScopeRaces, ALookInTheMiddleOfMovingADeadlineIsNotRemembered) {
  CancelScope scope;
  AtStep moving("CancelScope: changed, not yet announced",
                [&] { scope.cancelled(); });
  scope.set_deadline(absl::UnixEpoch());
  EXPECT_TRUE(moving.passed());
  EXPECT_TRUE(scope.cancelled());
}

// A scope that was seen to be cancelled stays so.
TEST(CancelScopeRaces, ADeadlineThatPassesWhileItIsMovedIsNotSeenToPass) {
  bool moved = false;
  while (!moved) {  // else it had passed before
    const internal::Instant passes = internal::After(absl::Milliseconds(50));
    CancelScope scope({.timeout = internal::TimeUntil(passes)});
    bool seen = false;
    std::optional<ScopedThread> looker;
    AtStep moving("CancelScope: about to move its deadline", [&] {
      while (internal::Now() <= passes) sched_yield();
      looker.emplace([&] { seen = scope.cancelled(); });
      looker->AwaitAsleep();
    });
    scope.set_timeout(absl::Hours(1));
    looker.reset();
    moved = moving.passed();
    if (moved) {
      EXPECT_FALSE(scope.cancelled());
      EXPECT_FALSE(seen);
    }
  }
}

TEST(CancelScopeRaces, ALookInTheMiddleOfLiftingAShieldIsNotRemembered) {
  CancelScope outer;
  CancelScope inner({.shield = true});
  outer.Cancel();
  AtStep lifting("CancelScope: changed, not yet announced",
                 [&] { inner.cancelled(); });
  inner.set_shield(false);
  EXPECT_TRUE(lifting.passed());
  EXPECT_TRUE(inner.cancelled());
}

TEST(CancelScopeRaces, ALookThatACancelOvertookIsNotRemembered) {
  CancelScope outer;
  CancelScope inner;
  CancelScope({.shield = true}).Cancel();  // makes the next look a real one
  AtStep looked("CancelScope: found clear", [&] { outer.Cancel(); });
  inner.cancelled();
  EXPECT_TRUE(looked.passed());
  EXPECT_TRUE(inner.cancelled());
}

// The child would have it half done for good.
TEST(CancelScopeRaces, AForkInTheMiddleOfACancelWaitsForItsEnd) {
  CancelScope scope;
  const std::string forker = TaskOfThisThread();
  std::atomic<bool> cancelling{false};
  AtStep cancel("CancelScope: changed, not yet announced", [&] {
    cancelling = true;
    AwaitState(forker, "S");
  });
  ScopedThread canceller([&] { scope.Cancel(); });
  while (!cancelling) sched_yield();
  Child child(Fork([&] {
    alarm(10);  // not to stay if it hangs
    EXPECT_TRUE(scope.cancelled());
    CancelScope own;
    EXPECT_TRUE(absl::IsCancelled(tocsin::Sleep(absl::ZeroDuration())));
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

TEST(DeadlineTimerRaces, AnAlarmThatIsSetWhileItGoesToSleepRings) {
  CancelScope late({.deadline = internal::WallNow() + absl::Hours(1)});
  HeldAt looked("DeadlineTimer: has looked at its alarms");
  late.stop_token();
  looked.AwaitThread();
  CancelScope soon({.deadline = internal::WallNow() + absl::Milliseconds(1)});
  std::latch requested(1);
  std::stop_callback callback(soon.stop_token(),
                              [&] { requested.count_down(); });
  looked.Release();
  requested.wait();
  EXPECT_FALSE(late.cancelled());
}

// A thread that awaits `mutex` until its scope is cancelled. Once it is made, a
// cancel is a matter for the visitor.
class Awaiting {
 public:
  explicit Awaiting(absl::Mutex& mutex) {
    HeldAt sleeping("Sleeper: about to sleep");
    thread_.emplace([&mutex] {
      bool never = false;
      MutexLock lock(mutex);
      EXPECT_TRUE(absl::IsCancelled(Await(mutex, absl::Condition(&never))));
    });
    sleeping.AwaitThread();
    sleeping.Release();
    MutexLock lock(mutex);  // once it has let it go
  }
  void Cancel() { thread_->scope().Cancel(); }
  void Join() { thread_->Join(); }

 private:
  std::optional<ScopedThread> thread_;
};

// Who awaits the mutex as the last one may destroy it afterwards. And what was
// true when the visit began may not be when it is over.
TEST(AwaitRaces, TheLastOneStaysUntilAVisitIsOverAndLooksAgain) {
  absl::Mutex mutex;
  std::atomic<bool> ready{false};
  bool returned = false;  // guarded by it
  auto is_ready = [&] { return ready.load(); };
  absl::Status status = absl::UnknownError("not back");
  HeldAt visit("MutexWaker: about to visit");
  HeldAt sleeping("Sleeper: about to sleep");
  ScopedThread waiter([&] {
    MutexLock lock(mutex);
    status = Await(mutex, absl::Condition(&is_ready));
    returned = true;
  });
  sleeping.AwaitThread();
  waiter.scope().Cancel();
  visit.AwaitThread();
  ready = true;
  sleeping.Release();
  {
    MutexLock lock(mutex);  // which the waiter held until now
    EXPECT_FALSE(returned);
    ready = false;
  }
  visit.Release();
  waiter.Join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

TEST(AwaitRaces, OfTwoWhoAwaitOneMutexEachIsVisited) {
  absl::Mutex mutex;
  Awaiting first(mutex);
  Awaiting second(mutex);
  first.Cancel();
  first.Join();
  second.Cancel();
  second.Join();
}

// The holder of one mutex waits for a thread that awaits another.
TEST(AwaitRaces, ARequestThatComesWhileTheVisitorIsBlockedIsServed) {
  absl::Mutex held;
  absl::Mutex other;
  Awaiting first(held);
  Awaiting second(other);
  {
    MutexLock lock(held);
    HeldAt blocked("MutexWaker: about to block");
    first.Cancel();
    blocked.AwaitThread();
    second.Cancel();
    second.Join();
  }
  first.Join();
}

TEST(AwaitRaces, ARequestThatComesBeforeTheVisitorIsBlockedIsServed) {
  absl::Mutex held;
  absl::Mutex other;
  Awaiting first(held);
  Awaiting second(other);
  {
    MutexLock lock(held);
    HeldAt visit("MutexWaker: about to visit");
    first.Cancel();
    visit.AwaitThread();
    second.Cancel();
    visit.Release();
    second.Join();
  }
  first.Join();
}

TEST(AwaitRaces, ADeadlineThatPassesWhileTheVisitorIsBlockedIsKept) {
  absl::Mutex held;
  absl::Mutex other;
  auto await_other = [&other] {
    CancelScope scope({.timeout = absl::Milliseconds(20)});
    bool never = false;
    MutexLock lock(other);
    EXPECT_TRUE(
        absl::IsDeadlineExceeded(Await(other, absl::Condition(&never))));
  };
  Awaiting first(held);
  {
    MutexLock lock(held);
    HeldAt visit("MutexWaker: about to visit");
    first.Cancel();
    visit.AwaitThread();
    ScopedThread second(await_other);
    second.AwaitAsleep();
    visit.Release();
    second.Join();
  }
  first.Join();
}

TEST(AwaitRaces, ARequestThatComesWhileTheVisitorGoesToSleepIsServed) {
  absl::Mutex mutex;
  HeldAt idle("MutexWaker: found no request");
  Awaiting first(mutex);
  first.Cancel();
  idle.AwaitThread();  // before the visit to the first, or after it
  Awaiting second(mutex);
  second.Cancel();
  idle.Release();
  first.Join();
  second.Join();
}

// The mutex of somebody whose condition came true before the visit.
TEST(AwaitRaces, AMutexThatIsGoneIsNotVisited) {
  absl::Mutex other;
  HeldAt idle("MutexWaker: found no request");
  Awaiting first(other);
  first.Cancel();
  idle.AwaitThread();
  void* const page = mmap(nullptr, sizeof(absl::Mutex), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* const mutex = ::new (page) absl::Mutex;
  std::atomic<bool> ready{false};
  auto is_ready = [&] { return ready.load(); };
  HeldAt sleeping("Sleeper: about to sleep");
  ScopedThread waiter([&] {
    MutexLock lock(*mutex);
    EXPECT_TRUE(Await(*mutex, absl::Condition(&is_ready)).ok());
  });
  sleeping.AwaitThread();
  waiter.scope().Cancel();
  ready = true;
  sleeping.Release();
  waiter.Join();
  mutex->~Mutex();
  ASSERT_EQ(munmap(page, sizeof(absl::Mutex)), 0);
  Awaiting last(other);
  last.Cancel();
  idle.Release();
  first.Join();
  last.Join();
}

TEST(SlimMutex, EveryThreadThatWaitsForItGetsIt) {
  SlimMutex mutex;
  int guarded = 0;
  auto count = [&] {
    MutexLock lock(mutex);
    ++guarded;
  };
  mutex.Lock();
  ScopedThread first(count);
  ScopedThread second(count);
  ScopedThread third(count);
  first.AwaitAsleep();
  second.AwaitAsleep();
  third.AwaitAsleep();
  EXPECT_EQ(guarded, 0);
  mutex.Unlock();
  first.Join();
  second.Join();
  third.Join();
  EXPECT_EQ(guarded, 3);
}

}  // namespace
}  // namespace tocsin
