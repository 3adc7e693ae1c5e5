// Every operation that can fail for want of memory is made to: with its first
// allocation refused, with its second, and so on until it has all it asks for.
// What failed must have done nothing, and can be done again.
//
// Not tested, because it ends the process: an allocation that is refused on one
// of the library's own threads, or in a destructor.
#include <dirent.h>
#include <malloc.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <latch>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/task_handle.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/job_control.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/shutdown.h"
#include "tocsin/signals/stop_on_signal.h"
#include "tocsin/tests/scoped_thread.h"

namespace {

// Of this thread: how many allocations until the one that is refused, which
// makes it 0.
thread_local int until_refusal = 0;

std::atomic<std::ptrdiff_t> allocated = 0;  // bytes

void* Allocate(std::size_t size, std::size_t alignment) {
  if (until_refusal > 0 && --until_refusal == 0) throw std::bad_alloc();
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size) != 0) throw std::bad_alloc();
  allocated += static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  return memory;
}

void Release(void* memory) {
  allocated -= static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) {
  return Allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
// Debian's libasan does not call the one above in this.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete(void* memory, std::size_t) noexcept { Release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept {
  Release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  Release(memory);
}

namespace tocsin {
namespace {

using internal::MutexLock;

// Runs `operation` with the n-th of its allocations refused. False if it makes
// fewer.
bool Refuse(int n, absl::FunctionRef<void()> operation) {
  until_refusal = n;
  try {
    operation();
  } catch (const std::bad_alloc&) {
  }
  return std::exchange(until_refusal, 0) == 0;
}

// Calls `attempt` with 1, 2, ... until that returns false: nothing was refused.
// Twice, because what the first round leaves in a cache, the second does not
// ask for.
void ForEachAllocation(absl::FunctionRef<bool(int)> attempt) {
  for (int round = 0; round < 2; ++round) {
    int n = 1;
    while (attempt(n)) ++n;
    EXPECT_GT(n, 1) << "nothing is allocated";
  }
}

TEST(OutOfMemory, AServiceDoesNotStartAndCanBeStartedLater) {
  const std::ptrdiff_t before = allocated;
  ForEachAllocation([](int n) {
    std::unique_ptr<SignalService> service;
    const bool refused = Refuse(n, [&] { service = *SignalService::Start(); });
    EXPECT_EQ(service == nullptr, refused);
    if (service == nullptr) {
      EXPECT_EQ(Disposition(SIGSTKFLT).sa_handler, SIG_DFL);
      service = StartService();
    }
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    SendSelf(SIGUSR1);
    EXPECT_EQ(Next(receiver).signum, SIGUSR1);
    return refused;
  });
  EXPECT_EQ(allocated, before);
}

// Whether it waits for whoever takes it first.
bool IsPending(int signum) {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, signum) == 1;
}

TEST(OutOfMemory, AReceiverDoesNotOpenAndTheSignalsAreLeftAlone) {
  const std::ptrdiff_t before = allocated;
  ForEachAllocation([](int n) {
    auto service = StartService();
    SignalReceiver other = OpenReceiver(*service, {SIGUSR2, SIGRTMIN});
    std::optional<SignalReceiver> receiver;
    auto open = [&] { receiver = *service->Open({SIGUSR1, SIGRTMIN}); };
    const bool refused = Refuse(n, open);
    EXPECT_EQ(receiver.has_value(), !refused);
    ScopedSignalBlock block({SIGUSR1});
    if (!receiver.has_value()) {
      EXPECT_EQ(Disposition(SIGUSR1).sa_handler, SIG_DFL);
      SendSelf(SIGUSR1);
      SendSelf(SIGUSR2);
      EXPECT_EQ(Next(other).signum, SIGUSR2);
      EXPECT_TRUE(IsPending(SIGUSR1));  // the service does not wait for it
      open();
      EXPECT_NE(Disposition(SIGUSR1).sa_handler, SIG_DFL);
    } else {
      SendSelf(SIGUSR1);
    }
    EXPECT_EQ(Next(*receiver).signum, SIGUSR1);
    return refused;
  });
  EXPECT_EQ(allocated, before);
}

// A service keeps what its receivers needed for those to come. Those that did
// not open need nothing.
TEST(OutOfMemory, ReceiversThatDoNotOpenTakeNoMemory) {
  bool refused = false;
  auto kept = [&](int failures, int n) {
    auto service = StartService();
    const std::ptrdiff_t before = allocated;
    for (int i = 0; i < failures; ++i) {
      refused = Refuse(n, [&] { OpenReceiver(*service, {SIGUSR1}); });
    }
    OpenReceiver(*service, {SIGUSR1});
    return allocated - before;
  };
  const std::ptrdiff_t without_failures = kept(0, 0);
  ForEachAllocation([&](int n) {
    EXPECT_EQ(kept(5, n), without_failures) << n;
    return refused;
  });
}

TEST(OutOfMemory, ReceivingNeedsNone) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  for (int n = 1; n < 10; ++n) {
    SendSelf(SIGUSR1);
    EXPECT_FALSE(Refuse(n, [&] { EXPECT_TRUE(receiver.Receive().ok()); }));
  }
}

// Makes a T of a service, with an allocation refused or without; `works` is
// given the one that was made in the end.
template <typename T>
void ExpectMadeOrNot(absl::FunctionRef<void(T&)> works) {
  ForEachAllocation([&](int n) {
    CancelScope scope;  // by which it is stopped, too
    auto service = StartService();
    std::optional<T> made;
    const bool refused = Refuse(n, [&] { made.emplace(*service); });
    EXPECT_EQ(made.has_value(), !refused);
    if (!made.has_value()) {
      EXPECT_EQ(Disposition(SIGUSR1).sa_handler, SIG_DFL);
      EXPECT_EQ(Disposition(SIGTSTP).sa_handler, SIG_DFL);
      made.emplace(*service);
    }
    EXPECT_TRUE(made->status().ok()) << made->status();
    works(*made);
    return refused;
  });
}

TEST(OutOfMemory, AStopOnSignalIsMadeOrNot) {
  struct Stop {
    explicit Stop(SignalService& service)
        : stop(StopOnSignal::Start(service, {SIGUSR1})) {}
    absl::Status status() const { return stop.status(); }
    absl::StatusOr<std::unique_ptr<StopOnSignal>> stop;
  };
  ExpectMadeOrNot<Stop>([](Stop& made) {
    std::latch stopped(1);
    std::stop_callback count((*made.stop)->stop_token(),
                             [&] { stopped.count_down(); });
    SendSelf(SIGUSR1);
    stopped.wait();
  });
}

TEST(OutOfMemory, AShutdownIsMadeOrNot) {
  struct OfGroup {
    explicit OfGroup(SignalService& service)
        : shutdown(Shutdown::Start(service, group, {.signals = {SIGUSR1}})) {}
    absl::Status status() const { return shutdown.status(); }
    std::unique_ptr<ThreadPool> pool = *ThreadPool::Create({.threads = 1});
    TaskGroup group{{.pool = pool.get()}};
    absl::StatusOr<std::unique_ptr<Shutdown>> shutdown;
  };
  ExpectMadeOrNot<OfGroup>([&](OfGroup& made) {
    made.group.Spawn([] { Event().Wait().IgnoreError(); });
    SendSelf(SIGUSR1);
    EXPECT_TRUE(made.group.Wait().ok());
    EXPECT_EQ((*made.shutdown)->cause()->signum, SIGUSR1);
  });
}

TEST(OutOfMemory, JobControlIsMadeOrNot) {
  struct WithoutHooks {
    explicit WithoutHooks(SignalService& service)
        : job_control(JobControl::Start(service, {})) {}
    absl::Status status() const { return job_control.status(); }
    absl::StatusOr<std::unique_ptr<JobControl>> job_control;
  };
  ExpectMadeOrNot<WithoutHooks>([](WithoutHooks&) {
    EXPECT_NE(Disposition(SIGTSTP).sa_handler, SIG_DFL);
  });
}

// Runs `spawn` on a new group, by the thread that made it and by others. It
// counts the tasks that it has added; where it threw, that one was not. Each
// adds one to `ran`.
struct Tasks {
  explicit Tasks(ThreadPool& pool) : group({.pool = &pool}) {}
  TaskGroup group;
  int spawned = 0;
  std::atomic<int> ran = 0;
};
void ExpectSpawnedOrNot(const ThreadPool::Options& options,
                        absl::FunctionRef<void(Tasks&)> spawn) {
  for (bool here : {true, false}) {
    ForEachAllocation([&](int n) {
      auto pool = *ThreadPool::Create(options);
      Tasks tasks(*pool);
      bool refused = false;
      auto attempt = [&] { refused = Refuse(n, [&] { spawn(tasks); }); };
      if (here) {
        attempt();
      } else {
        std::thread(attempt).join();
      }
      const absl::Status status = tasks.group.Wait();
      EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
      EXPECT_EQ(tasks.ran, status.ok() ? tasks.spawned : 0) << n;
      return refused;
    });
  }
}

TEST(OutOfMemory, ATaskIsSpawnedOrNot) {
  ExpectSpawnedOrNot({.threads = 1}, [](Tasks& tasks) {
    for (int i = 0; i < 10; ++i) {
      tasks.group.Spawn([&tasks] { ++tasks.ran; },
                        {.name = "with a name that is allocated"});
      ++tasks.spawned;
    }
  });
}

TEST(OutOfMemory, AServiceOfAGroupIsSpawnedOrNot) {
  ExpectSpawnedOrNot({.threads = 1}, [](Tasks& tasks) {
    tasks.group.SpawnBackground([&tasks] { ++tasks.ran; });
    ++tasks.spawned;
  });
}

TEST(OutOfMemory, AServiceIsRefusedWithoutATrace) {
  ExpectSpawnedOrNot({.threads = 0, .max_threads = 0}, [](Tasks& tasks) {
    tasks.group.SpawnBackground([] { ADD_FAILURE() << "ran"; });
  });
}

TEST(OutOfMemory, ATaskWithAResultIsSpawnedOrNot) {
  ExpectSpawnedOrNot({.threads = 1}, [](Tasks& tasks) {
    const auto handle =
        tasks.group.SpawnWithResult([&tasks] { return ++tasks.ran; });
    ++tasks.spawned;
  });
}

// On a thread that runs the task in its wait, and again where that failed.
TEST(OutOfMemory, AWaitRunsItsTaskOrNot) {
  for (int limit : {0, 1}) {
    auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
    for (int n = 1, refused = 1; refused != 0; ++n) {
      TaskGroup group({.pool = pool.get(), .max_running = limit});
      int ran = 0;
      const TaskHandle<int> handle = group.SpawnWithResult(
          [&] { return ++ran; }, {.name = "with a name that is allocated"});
      absl::Status status = absl::UnknownError("thrown");
      refused = Refuse(n, [&] { status = handle.Wait(); }) ? 1 : 0;
      EXPECT_EQ(status.ok(), ran == 1) << status;
      EXPECT_TRUE(handle.Wait().ok());
      EXPECT_TRUE(group.Wait().ok());
      EXPECT_EQ(ran, 1) << n;
    }
  }
}

TEST(OutOfMemory, AnyNumberOfWaitsForAResultNeedsNone) {
  auto pool = *ThreadPool::Create({.threads = 1});
  TaskGroup group({.pool = pool.get()});
  std::latch started(1);
  std::latch release(1);
  const TaskHandle<void> handle = group.SpawnWithResult([&] {
    started.count_down();
    release.wait();
  });
  started.wait();
  std::vector<std::unique_ptr<ScopedThread>> waiters;
  for (int i = 0; i < 5; ++i) {
    waiters.push_back(std::make_unique<ScopedThread>([&] {
      EXPECT_FALSE(Refuse(1, [&] { EXPECT_TRUE(handle.Wait().ok()); }));
    }));
    waiters.back()->AwaitAsleep();
  }
  release.count_down();
  waiters.clear();
  EXPECT_TRUE(group.Wait().ok());
}

TEST(OutOfMemory, ACancelOfATaskNeedsNone) {
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = 0});
  TaskGroup group({.pool = pool.get()});
  const TaskHandle<int> handle = group.SpawnWithResult([] { return 1; });
  EXPECT_TRUE(Refuse(1, [&] { handle.Cancel(); }));  // the text
  EXPECT_EQ(handle.Wait(), absl::CancelledError(""));
  EXPECT_TRUE(group.Wait().ok());
}

TEST(OutOfMemory, ATaskIsStartedOrNot) {
  ExpectSpawnedOrNot({.threads = 1}, [](Tasks& tasks) {
    const absl::StatusOr<int> started =
        tasks.group.Start<int>([&tasks](const Started<int>& call) {
          ++tasks.ran;
          return call(1);
        });
    if (started.ok()) ++tasks.spawned;
  });
}

int OpenDescriptors() {
  int count = 0;
  DIR* directory = opendir("/proc/self/fd");
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

TEST(OutOfMemory, AChildIsSpawnedOrNot) {
  const ChildProcess::Options options{
      .input = ChildStream::Null(),
      .output = ChildStream::Pipe(),
      .error = ChildStream::Pipe(),
      .environment = {{"PATH=/bin"}},
      .working_directory = "/",
  };
  const int descriptors = OpenDescriptors();
  const std::ptrdiff_t before = allocated;
  ForEachAllocation([&](int n) {
    std::optional<ChildProcess> child;
    absl::Status status;
    const bool refused = Refuse(n, [&] {
      auto spawned = ChildProcess::Spawn({"true"}, options);
      status = spawned.status();
      if (spawned.ok()) child.emplace(*std::move(spawned));
    });
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(child.has_value(), !refused && status.ok());
    if (child.has_value()) {
      EXPECT_EQ(*child->Wait(), (ExitStatus{.code = 0}));
    } else {
      EXPECT_EQ(OpenDescriptors(), descriptors);
      EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    }
    return !child.has_value();
  });
  EXPECT_EQ(allocated, before);
}

// An item that has an allocation to itself in a std::deque.
struct Large {
  int value;
  char padding[1000];
};

TEST(OutOfMemory, AnItemIsPushedOrNotAndPoppedOrNot) {
  auto item = [](int value) { return Large{.value = value, .padding = {}}; };
  const std::ptrdiff_t before = allocated;
  ForEachAllocation([&](int n) {
    BlockingQueue<Large> queue(2);
    EXPECT_TRUE(queue.TryPush(item(1)).ok());
    bool pushed = false;
    bool refused = Refuse(n, [&] { pushed = queue.TryPush(item(2)).ok(); });
    EXPECT_EQ(pushed, !refused);
    EXPECT_EQ(queue.size(), pushed ? 2 : 1);
    if (!pushed) {
      EXPECT_TRUE(queue.TryPush(item(2)).ok());
    }
    // This one takes the place of the first that is popped.
    std::atomic<pid_t> thread = 0;
    std::jthread pusher([&] {
      thread = static_cast<pid_t>(syscall(SYS_gettid));
      EXPECT_TRUE(queue.Push(item(3)).ok());
    });
    while (thread == 0) sched_yield();
    AwaitState("self/task/" + std::to_string(thread), "S");
    std::vector<int> popped;
    popped.reserve(3);
    auto pop = [&] { popped.push_back(queue.Pop()->value); };
    refused |= Refuse(n, pop);
    while (popped.size() < 3) pop();
    EXPECT_EQ(popped, (std::vector<int>{1, 2, 3}));
    return refused;
  });
  EXPECT_EQ(allocated, before);
}

// More than a list of those to wake has room for without an allocation.
constexpr int kSleepers = 40;

// Has `spawn` run kSleepers tasks on a thread each, and returns once all are
// asleep in `wait`.
void PutToSleep(absl::FunctionRef<void(std::function<void()>)> spawn,
                const std::function<void()>& wait) {
  for (int i = 0; i < kSleepers; ++i) {
    std::atomic<pid_t> thread = 0;
    spawn([&thread, wait] {
      thread = static_cast<pid_t>(syscall(SYS_gettid));
      wait();
    });
    while (thread == 0) sched_yield();
    AwaitState("self/task/" + std::to_string(thread), "S");
  }
}

TEST(OutOfMemory, WhatWakesNeedsNone) {
  Event event;
  Semaphore semaphore(0);
  std::vector<std::jthread> threads;
  auto spawn = [&](std::function<void()> task) { threads.emplace_back(task); };
  PutToSleep(spawn, [&] { EXPECT_TRUE(event.Wait().ok()); });
  PutToSleep(spawn, [&] { EXPECT_TRUE(semaphore.Acquire().ok()); });
  EXPECT_FALSE(Refuse(1, [&] { event.Set(); }));
  EXPECT_FALSE(Refuse(1, [&] { semaphore.set_limit(kSleepers); }));
}

TEST(OutOfMemory, CancellingNeedsNone) {
  // Threads for the services, and none to start what is to be cancelled.
  auto pool = *ThreadPool::Create({.threads = 0, .max_threads = kSleepers});
  TaskGroup group({.pool = pool.get()});
  auto spawn = [&](std::function<void()> task) { group.SpawnBackground(task); };
  PutToSleep(spawn, [] {
    CancelScope inner;
    std::latch requested(1);
    std::stop_callback count(inner.stop_token(),
                             [&] { requested.count_down(); });
    EXPECT_TRUE(absl::IsCancelled(Event().Wait()));
    requested.wait();
  });
  int ran = 0;
  for (int i = 0; i < 10; ++i) {
    group.Spawn([&ran] { ++ran; }, {.start_even_if_cancelled = true});
    group.Spawn([] { ADD_FAILURE() << "ran"; });
  }
  EXPECT_FALSE(Refuse(1, [&] { group.Cancel(); }));
  EXPECT_TRUE(group.Wait().ok());
  EXPECT_EQ(ran, 10);
}

// What has no room for the text is told by the code alone.
TEST(OutOfMemory, AWaitThatItsScopeEndsEndsAllTheSame) {
  ForEachAllocation([](int n) {
    BlockingQueue<int> queue(1);
    absl::Status status;
    bool refused;
    {
      CancelScope scope({.timeout = absl::Milliseconds(5)});
      refused = Refuse(n, [&] { status = queue.Pop().status(); });
    }
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_TRUE(queue.TryPush(1).ok());
    EXPECT_EQ(queue.size(), 1);  // nobody is left who waits for it
    return refused;
  });
}

// In a process of its own, as the thread that visits the mutexes stays.
TEST(OutOfMemory, AnAwaitBeginsOrNot) {
  auto test = [] {
    absl::Mutex mutexes[2];
    std::ptrdiff_t kept[2];
    for (int i : {0, 1}) {
      auto await = [&mutex = mutexes[i]] {
        CancelScope scope;
        int looks = 0;
        auto second_look = [&looks] { return ++looks >= 2; };
        MutexLock lock(mutex);
        EXPECT_TRUE(Await(mutex, absl::Condition(&second_look)).ok());
      };
      ForEachAllocation([&await](int n) {
        const bool refused = Refuse(n, await);
        await();
        return refused;
      });
      kept[i] = allocated;
    }
    EXPECT_EQ(kept[0], kept[1]);
    _exit(HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(test(), ::testing::ExitedWithCode(0), "");
}

// In a process of its own, as the thread that does it stays.
TEST(OutOfMemory, AStopTokenIsGivenOrNotAndIsRequestedInTime) {
  auto test = [] {
    ForEachAllocation([](int n) {
      CancelScope scope({.deadline = absl::Now() + absl::Milliseconds(5)});
      std::stop_token token;
      const bool refused = Refuse(n, [&] { token = scope.stop_token(); });
      EXPECT_EQ(token.stop_possible(), !refused);
      if (!token.stop_possible()) token = scope.stop_token();
      std::latch requested(1);
      std::stop_callback count(token, [&] { requested.count_down(); });
      requested.wait();
      return refused;
    });
    _exit(HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(test(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace tocsin
