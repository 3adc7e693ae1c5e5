// Storms with exact accounting: every signal that was sent is received, or has
// its previous effect, once.
//
// TOCSIN_STORM_SIGNALS sets how many are sent; by default few enough for a run
// with every change.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <latch>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tests/watchdog.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

// The C library's sigaction(2) by a name that ThreadSanitizer leaves alone: it
// would run the handler later, and only once for several queued signals.
extern "C" int __sigaction(int, const struct sigaction*, struct sigaction*);

namespace tocsin {
namespace {

// What is asked for, and time for it.
int Size() {
  constexpr int kSize = 20'000;
  const char* given = std::getenv("TOCSIN_STORM_SIGNALS");
  const int size = given != nullptr ? std::atoi(given) : kSize;
  AllowLongRun(1 + size / kSize);
  return size;
}

// A child that queues the values 0 to `count` - 1 to this process, `chunk` of
// them each time it is told. It is made while there are no other threads.
class Sender {
 public:
  Sender(int signum, int count, int chunk) {
    const pid_t target = getpid();
    child_ = fork();
    if (child_ != 0) return;
    tell_.CloseWriter();
    for (int value = 0; value < count; ++value) {
      if (value % chunk == 0 && tell_.Take() == '\0') _exit(1);
      while (sigqueue(target, signum, sigval{.sival_int = value}) != 0) {
        if (errno != EAGAIN) _exit(1);
        sched_yield();  // the receiver's limit of pending signals
      }
    }
    _exit(0);
  }

  void SendChunk() { tell_.Put(); }
  void Join() {
    int status = -1;
    ASSERT_EQ(waitpid(child_, &status, 0), child_);
    ASSERT_EQ(status, 0);
  }

 private:
  Pipe tell_;
  pid_t child_;
};

// Threads that block no signal, older than the service: asleep in the kernel,
// asleep in a lock, running.
class OlderThreads {
 public:
  OlderThreads() {
    for (int i = 0; i < 8; ++i) {
      threads_.emplace_back([this, i] {
        if (i % 4 == 0) {
          char byte;
          while (read(quit_.reader(), &byte, 1) != 0) {
          }
        } else if (i % 4 == 1) {
          while (!ended_) sched_yield();
        } else {
          end_.wait();
        }
      });
    }
  }
  ~OlderThreads() {
    quit_.CloseWriter();
    ended_ = true;
    end_.count_down();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  Pipe quit_;
  std::atomic<bool> ended_ = false;
  std::latch end_{1};
  std::vector<std::thread> threads_;
};

// After the idea of TestAtomicStop in Go's os/signal: an interrupt that races
// with the closing of its receiver is received, or ends the process.
TEST(Storm, AnInterruptThatRacesWithCloseIsReceivedOrEndsTheProcess) {
  const int processes = std::max(25, Size() / 2000);
  enum { kReceived = 10, kLost = 11 };
  int received = 0;
  int killed = 0;
  for (int i = 0; i < processes; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      auto service = StartService();
      std::optional<SignalReceiver> receiver(OpenReceiver(*service, {SIGINT}));
      std::latch ready(2);
      std::thread sender([&] {
        ready.arrive_and_wait();
        SendSelf(SIGINT);
      });
      ready.arrive_and_wait();
      for (int turn = 0; turn < i % 100; ++turn) sched_yield();
      const bool taken = receiver->TryReceive().ok();
      receiver.reset();
      sender.join();
      sched_yield();  // a signal that is pending takes effect here at the
                      // latest
      _exit(taken ? kReceived : kLost);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    received += WIFEXITED(status) && WEXITSTATUS(status) == kReceived;
    killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGINT;
  }
  EXPECT_EQ(received + killed, processes);
  std::cout << killed << " ended by SIGINT, " << received << " received it\n";
}

TEST(Storm, EverySignalOverOlderThreadsIsReceivedOnce) {
  const int size = Size();
  Sender sender(SIGRTMIN + 1, size, size);
  OlderThreads older;
  auto service = StartService();
  SignalReceiver queued = OpenReceiver(*service, {SIGRTMIN + 1},
                                       {.capacity = kMaxReceiverCapacity});
  SignalReceiver standard = OpenReceiver(*service, {SIGTERM});

  std::thread one_by_one([&] {
    for (int i = 0; i < size / 200; ++i) {
      SendSelf(SIGTERM);
      EXPECT_EQ(Next(standard).count, 1);
    }
    EXPECT_FALSE(standard.TryReceive().ok());
  });
  std::vector<uint8_t> times(static_cast<size_t>(size));
  int bad_siginfo = 0;
  sender.SendChunk();
  for (int i = 0; i < size; ++i) {
    const SignalEvent event = Next(queued);
    if (event.origin != SignalEvent::Origin::kQueue || event.count != 1 ||
        event.value->sival_int < 0 || event.value->sival_int >= size) {
      ++bad_siginfo;
      continue;
    }
    ++times[static_cast<size_t>(event.value->sival_int)];
  }
  sender.Join();
  one_by_one.join();
  int missing = 0;
  int doubled = 0;
  for (uint8_t count : times) {
    missing += count == 0;
    doubled += count > 1;
  }
  EXPECT_EQ(missing, 0);
  EXPECT_EQ(doubled, 0);
  EXPECT_EQ(bad_siginfo, 0);
  EXPECT_FALSE(queued.TryReceive().ok());
  const SignalServiceStats stats = service->stats();
  EXPECT_EQ(stats.received, static_cast<uint64_t>(size + size / 200));
  EXPECT_EQ(stats.dropped, 0u);
  std::cout << stats.redirected << " of " << stats.received
            << " came through the handler\n";
}

// What became of each value of the churn: in the handler that was there before
// us, or in the receivers of each of the threads.
constexpr int kOpeners = 3;
struct Fate {
  uint32_t handled;  // by the __atomic builtins, which a handler may use
  std::atomic<uint8_t> received[kOpeners];
};
Fate* fates = nullptr;

// It may run inside of a sanitizer's runtime, so nothing in it is instrumented.
#if defined(__clang__)
__attribute__((disable_sanitizer_instrumentation))
#else
__attribute__((no_sanitize("thread", "address", "undefined")))
#endif
void Handle(int, siginfo_t* info, void*) {
  __atomic_fetch_add(&fates[info->si_value.sival_int].handled, 1,
                     __ATOMIC_SEQ_CST);
}

TEST(Storm, WhileReceiversComeAndGoEverySignalIsReceivedOrHandledOnce) {
  const int size = Size() / 5;
  constexpr int kChunk = 40;  // sent for each receiver that is opened
  Sender sender(SIGRTMIN + 1, size, kChunk);
  std::vector<Fate> all(static_cast<size_t>(size));
  fates = all.data();
  struct sigaction action {};
  action.sa_sigaction = Handle;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ASSERT_EQ(__sigaction(SIGRTMIN + 1, &action, nullptr), 0);
  OlderThreads older;
  auto service = StartService();

  std::atomic<int> chunks_left = (size + kChunk - 1) / kChunk;
  std::vector<std::thread> openers;
  for (int opener = 0; opener < kOpeners; ++opener) {
    openers.emplace_back([&, opener] {
      std::minstd_rand random(static_cast<unsigned>(opener) + 1);
      while (chunks_left.fetch_sub(1) > 0) {
        SignalReceiver receiver =
            OpenReceiver(*service, {SIGRTMIN + 1}, {.capacity = size});
        sender.SendChunk();
        for (unsigned reads = random() % 100; reads > 0; --reads) {
          const auto event = receiver.TryReceive();
          if (!event.ok()) continue;
          ++all[static_cast<size_t>(event->value->sival_int)].received[opener];
        }
      }
    });
  }
  for (std::thread& opener : openers) opener.join();
  sender.Join();
  // All are closed, so what is still pending goes to the handler, in any
  // thread. Nothing tells when the last has run: a missing one hangs the test
  // here.
  int missing = 0;
  int doubled = 0;
  int handled = 0;
  do {
    missing = doubled = handled = 0;
    for (Fate& fate : all) {
      const uint32_t times_handled =
          __atomic_load_n(&fate.handled, __ATOMIC_SEQ_CST);
      int received = 0;
      for (const auto& times : fate.received) {
        doubled += times > 1;
        received += times;
      }
      handled += times_handled > 0;
      doubled += times_handled > 1 || (times_handled == 1 && received > 0);
      missing += times_handled == 0 && received == 0;
    }
    sched_yield();
  } while (missing > 0 && doubled == 0);
  EXPECT_EQ(missing, 0);
  EXPECT_EQ(doubled, 0);
  EXPECT_EQ(service->stats().dropped, 0u);
  std::cout << handled << " of " << size << " handled as before, "
            << service->stats().redelivered << " sent again\n";
  SetDisposition(SIGRTMIN + 1, SIG_DFL);
}

}  // namespace
}  // namespace tocsin
