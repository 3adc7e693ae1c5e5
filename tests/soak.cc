// Everything at once, for minutes, with exact accounting: by hand, not in CI.
//
//   ./bazelw run -c opt //tests:soak -- --minutes=20
//
// A storm of signals from another process; a receiver that must see each of
// them once; threads that open and close receivers of the same signals; task
// groups in groups that are cancelled at random, with a queue between their
// tasks; children that are run, terminated and forked, the forked ones with a
// service of their own. At the end it prints what went through, and exits with
// 1 if anything was lost, doubled or did not end.
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/blocking_queue.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace {

using namespace tocsin;

constexpr int kValues = 1 << 20;  // what the senders count through
constexpr int kUnderWay = 5000;   // values sent and not yet received, at most

std::atomic<bool> over{false};
std::atomic<int> faults{0};

void Fault(const std::string& what) {
  if (faults.fetch_add(1) < 20)
    std::fprintf(stderr, "FAULT: %s\n", what.c_str());
}

void Expect(bool holds, const char* what) {
  if (!holds) Fault(what);
}
#define EXPECT(condition) Expect(condition, #condition)

// What the sender's process and ours share.
struct Progress {
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> received{0};
  std::atomic<uint64_t> standard{0};
  std::atomic<bool> stop{false};
};

// Queues values, and sends standard signals between them.
[[noreturn]] void Send(pid_t target, Progress& progress) {
  std::minstd_rand random(1);
  for (uint64_t n = 0; !progress.stop; ++n) {
    while (n - progress.received > kUnderWay && !progress.stop) sched_yield();
    const sigval value{.sival_int = static_cast<int>(n % kValues)};
    while (sigqueue(target, SIGRTMIN + 1, value) != 0) {
      if (errno != EAGAIN) _exit(1);
      sched_yield();
    }
    progress.sent.fetch_add(1);
    if (random() % 8 == 0) {
      kill(target, random() % 2 == 0 ? SIGUSR1 : SIGHUP);
      progress.standard.fetch_add(1);
    }
  }
  _exit(0);
}

// Order is not kept between threads whose handlers forward, so a value may
// come before an older one; but not twice, and not never.
class Ledger {
 public:
  void Receive(uint64_t value) {
    // The full number: less than a half of kValues is under way.
    const uint64_t base = next_ - next_ % kValues;
    uint64_t n = base + value;
    if (n + kValues / 2 < next_) n += kValues;
    if (n >= next_ + kValues / 2 && n >= kValues) n -= kValues;
    if (n < next_ || !early_.insert(n).second) {
      ++doubled_;
      return;
    }
    for (; !early_.empty() && *early_.begin() == next_; ++next_) {
      early_.erase(early_.begin());
    }
  }
  uint64_t received() const { return next_ + early_.size(); }
  uint64_t doubled() const { return doubled_; }

 private:
  uint64_t next_ = 0;  // all below have come
  std::set<uint64_t> early_;
  uint64_t doubled_ = 0;
};

uint64_t OpenAndClose(SignalService& service, unsigned seed) {
  std::minstd_rand random(seed);
  uint64_t turns = 0;
  for (; !over; ++turns) {
    SignalSet signals({SIGRTMIN + 1});
    if (random() % 2 == 0) signals.insert(SIGUSR2);
    absl::StatusOr<SignalReceiver> receiver = service.Open(
        signals, {.capacity = static_cast<int>(1 + random() % 64)});
    EXPECT(receiver.ok());
    if (!receiver.ok()) continue;
    for (unsigned reads = random() % 20; reads > 0; --reads) {
      receiver->ReceiveFor(absl::Microseconds(random() % 200)).IgnoreError();
    }
    if (random() % 3 == 0) receiver->Close();
  }
  return turns;
}

struct TaskCounts {
  std::atomic<uint64_t> groups{0};
  std::atomic<uint64_t> started{0};
  std::atomic<uint64_t> ended{0};
  std::atomic<uint64_t> pushed{0};
  std::atomic<uint64_t> popped{0};
};

class Running {
 public:
  explicit Running(TaskCounts& counts) : counts_(counts) { ++counts_.started; }
  ~Running() { ++counts_.ended; }

 private:
  TaskCounts& counts_;
};

void Work(TaskCounts& counts, BlockingQueue<std::unique_ptr<int>>& queue,
          unsigned seed, int depth) {
  Running running(counts);
  std::minstd_rand random(seed);
  TaskGroup group;
  ++counts.groups;
  for (unsigned i = random() % 4; i > 0; --i) {
    const unsigned next = random();
    switch (random() % 4) {
      case 0:
        if (depth < 4) {
          group.Spawn([&counts, &queue, next, depth] {
            Work(counts, queue, next, depth + 1);
          });
        }
        break;
      case 1:
        group.Spawn([&counts, &queue, next] {
          Running here(counts);
          CancelScope scope(
              {.deadline = absl::Now() + absl::Microseconds(next % 500)});
          if (queue.Push(std::make_unique<int>(1)).ok()) ++counts.pushed;
        });
        break;
      case 2:
        group.Spawn([&counts, &queue, next] {
          Running here(counts);
          CancelScope scope(
              {.deadline = absl::Now() + absl::Microseconds(next % 500)});
          absl::StatusOr<std::unique_ptr<int>> item = queue.Pop();
          if (item.ok()) ++counts.popped;
        });
        break;
      case 3:
        group.Spawn([&counts, next] {
          Running here(counts);
          return tocsin::Sleep(absl::Microseconds(next % 1000));
        });
        break;
    }
  }
  if (random() % 3 == 0) group.Cancel();
  group.Wait().IgnoreError();
}

uint64_t RunChildren(unsigned seed) {
  std::minstd_rand random(seed);
  uint64_t children = 0;
  for (; !over; ++children) {
    const int code = static_cast<int>(random() % 100);
    if (random() % 2 == 0) {
      absl::StatusOr<ChildProcess> child =
          ChildProcess::Spawn({"sh", "-c", "exit " + std::to_string(code)});
      EXPECT(child.ok());
      if (!child.ok()) continue;
      absl::StatusOr<ExitStatus> status = child->Wait();
      EXPECT(status.ok() && status->code == code);
    } else {
      absl::StatusOr<ChildProcess> child =
          ChildProcess::Spawn({"sleep", "1000"});
      EXPECT(child.ok());
      if (!child.ok()) continue;
      EXPECT(child->Terminate(absl::Seconds(60)).ok());
      absl::StatusOr<ExitStatus> status = child->Wait();
      EXPECT(status.ok() && status->signum == SIGTERM);
    }
  }
  return children;
}

// Each child hears a signal of its own, and its parent does not.
uint64_t ForkChildren() {
  uint64_t children = 0;
  for (; !over; ++children) {
    const pid_t child = fork();
    if (child == 0) {
      absl::StatusOr<std::unique_ptr<SignalService>> service =
          SignalService::Start();
      if (!service.ok()) _exit(2);
      absl::StatusOr<SignalReceiver> receiver = (*service)->Open({SIGUSR2});
      if (!receiver.ok() || !Raise(SIGUSR2).ok()) _exit(3);
      absl::StatusOr<SignalEvent> event = receiver->Receive();
      _exit(event.ok() && event->signum == SIGUSR2 ? 0 : 4);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (status != 0) {
      Fault("a forked child ended with wait status " + std::to_string(status));
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return children;
}

}  // namespace

int main(int argc, char** argv) {
  double minutes = 1;
  const std::string flag = "--minutes=";
  if (argc > 2 ||
      (argc == 2 && (!absl::StartsWith(argv[1], flag) ||
                     !absl::SimpleAtod(argv[1] + flag.size(), &minutes)))) {
    std::fprintf(stderr, "usage: %s [--minutes=N]\n", argv[0]);
    return 2;
  }

  void* shared = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Progress& progress = *new (shared) Progress;
  absl::StatusOr<std::unique_ptr<SignalService>> service =
      SignalService::Start();
  if (!service.ok()) {
    std::fprintf(stderr, "%s\n", service.status().ToString().c_str());
    return 1;
  }
  absl::StatusOr<SignalReceiver> values =
      (*service)->Open({SIGRTMIN + 1}, {.capacity = 2 * kUnderWay});
  absl::StatusOr<SignalReceiver> standard =
      (*service)->Open({SIGUSR1, SIGUSR2, SIGHUP});
  const pid_t self = getpid();
  const pid_t sender = fork();
  if (sender == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Send(self, progress);
  }

  Ledger ledger;
  std::thread keeper([&] {
    for (const SignalEvent& event : *values) {
      if (event.value.has_value()) {
        ledger.Receive(static_cast<uint64_t>(event.value->sival_int));
      } else {
        Fault("a queued signal without its value");
      }
      progress.received.fetch_add(1);
    }
  });
  uint64_t standard_received = 0;
  std::thread standard_keeper([&] {
    for (const SignalEvent& event : *standard) {
      standard_received += static_cast<uint64_t>(event.count);
      EXPECT(event.signum != SIGUSR2);  // those are the forked children's
    }
  });
  TaskCounts counts;
  BlockingQueue<std::unique_ptr<int>> queue(16);
  uint64_t opened[2];
  uint64_t children[2];
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 2; ++i) {
    threads.emplace_back(
        [&, i] { opened[i] = OpenAndClose(**service, i + 1); });
    threads.emplace_back([&, i] {
      for (unsigned seed = i; !over; seed += 2) Work(counts, queue, seed, 0);
    });
  }
  threads.emplace_back([&] { children[0] = RunChildren(7); });
  threads.emplace_back([&] { children[1] = ForkChildren(); });

  const absl::Time end = absl::Now() + absl::Minutes(minutes);
  while (absl::Now() < end && faults == 0) absl::SleepFor(absl::Seconds(1));
  over = true;
  for (std::thread& thread : threads) thread.join();
  progress.stop = true;
  int status = -1;
  while (waitpid(sender, &status, 0) < 0 && errno == EINTR) continue;
  EXPECT(status == 0);
  for (int i = 0; i < 100 && progress.received != progress.sent; ++i) {
    absl::SleepFor(absl::Milliseconds(100));
  }
  values->Close();
  keeper.join();
  standard->Close();
  standard_keeper.join();
  queue.Close();
  for (bool left = true; left;) {
    left = queue.Pop().ok();
    if (left) ++counts.popped;
  }

  const SignalServiceStats stats = (*service)->stats();
  std::printf(
      "%.1f minutes\n"
      "values: %llu sent, %llu received, %llu missing, %llu doubled\n"
      "standard signals: %llu sent, %llu received after merging in the kernel\n"
      "service: %llu through the handler, %llu dropped by full short queues, "
      "%llu sent again, %llu siginfo lost\n"
      "receivers opened and closed: %llu\n"
      "task groups: %llu, tasks: %llu started, %llu ended\n"
      "queue: %llu pushed, %llu popped\n"
      "children: %llu run, %llu forked\n"
      "faults: %d\n",
      minutes, static_cast<unsigned long long>(progress.sent),
      static_cast<unsigned long long>(ledger.received()),
      static_cast<unsigned long long>(progress.sent - ledger.received()),
      static_cast<unsigned long long>(ledger.doubled()),
      static_cast<unsigned long long>(progress.standard),
      static_cast<unsigned long long>(standard_received),
      static_cast<unsigned long long>(stats.redirected),
      static_cast<unsigned long long>(stats.dropped),
      static_cast<unsigned long long>(stats.redelivered),
      static_cast<unsigned long long>(stats.siginfo_lost),
      static_cast<unsigned long long>(opened[0] + opened[1]),
      static_cast<unsigned long long>(counts.groups),
      static_cast<unsigned long long>(counts.started),
      static_cast<unsigned long long>(counts.ended),
      static_cast<unsigned long long>(counts.pushed),
      static_cast<unsigned long long>(counts.popped),
      static_cast<unsigned long long>(children[0]),
      static_cast<unsigned long long>(children[1]), faults.load());
  const bool exact = ledger.received() == progress.sent &&
                     ledger.doubled() == 0 && values->dropped() == 0 &&
                     counts.started == counts.ended &&
                     counts.pushed == counts.popped && faults == 0;
  std::puts(exact ? "nothing was lost" : "NOT EXACT");
  return exact ? 0 : 1;
}
