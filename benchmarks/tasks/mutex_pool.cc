// The pool that is written by hand where there is none: one deque, one mutex.
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "tocsin/benchmarks/tasks/counted_group.h"

namespace {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }
  ~Pool() {
    {
      absl::MutexLock lock(&mutex_);
      ending_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }
  template <typename F>
  void Post(F f) {
    absl::MutexLock lock(&mutex_);
    tasks_.emplace_back(std::move(f));
  }

 private:
  void Run() {
    while (true) {
      absl::AnyInvocable<void()> task;
      {
        absl::MutexLock lock(&mutex_);
        auto ready = [this] { return ending_ || !tasks_.empty(); };
        mutex_.Await(absl::Condition(&ready));
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  absl::Mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunPool<Pool>("absl::Mutex pool", argc, argv);
}
