// A thread of a test, in a CancelScope of its own that the test can reach.
//
//   ScopedThread popper([&] { item = queue.Pop(); });
//   popper.AwaitAsleep();
//   popper.scope().Cancel();
//   popper.Join();
#ifndef TOCSIN_TESTS_SCOPED_THREAD_H_
#define TOCSIN_TESTS_SCOPED_THREAD_H_

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/cancel_scope.h"

namespace tocsin {

class ScopedThread {
 public:
  explicit ScopedThread(std::function<void()> body)
      : body_(std::move(body)), thread_([this] { Run(); }) {
    entered_.wait();
  }
  ~ScopedThread() { Join(); }

  // Until Join().
  CancelScope& scope() { return *scope_; }

  // Returns once the kernel has put the thread to sleep in `body`, or the body
  // is over. Looks and yields: how long it takes decides nothing.
  void AwaitAsleep() {
    while (!over_) {
      std::ifstream file(absl::StrCat("/proc/self/task/", tid_, "/stat"));
      std::string stat;
      std::getline(file, stat);
      if (stat.substr(stat.rfind(')') + 1, 2) == " S") return;
      sched_yield();
    }
  }

  // How often the kernel has put it to sleep so far.
  int64_t TimesAsleep() const {
    std::ifstream file(absl::StrCat("/proc/self/task/", tid_, "/status"));
    const std::string key = "voluntary_ctxt_switches:";
    for (std::string line; std::getline(file, line);) {
      if (line.rfind(key, 0) == 0) return std::stoll(line.substr(key.size()));
    }
    return -1;
  }

  void Join() {
    if (!thread_.joinable()) return;
    joined_.count_down();
    thread_.join();
  }

 private:
  void Run() {
    CancelScope scope;
    scope_ = &scope;
    tid_ = gettid();
    entered_.count_down();
    body_();
    over_ = true;
    joined_.wait();
  }

  std::function<void()> body_;
  CancelScope* scope_ = nullptr;
  pid_t tid_ = 0;
  std::atomic<bool> over_{false};
  std::latch entered_{1};
  std::latch joined_{1};
  std::thread thread_;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_SCOPED_THREAD_H_
