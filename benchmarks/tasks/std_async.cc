#include <future>
#include <latch>
#include <stop_token>
#include <utility>
#include <vector>

#include "tocsin/benchmarks/tasks/contender.h"
#include "tocsin/benchmarks/tasks/workloads.h"

namespace {

struct Runtime {
  static constexpr int kFibonacci = 10;
  static constexpr bool kTree = false;  // a thread for each of a million
  static constexpr bool kCancels = false;
  static constexpr int kFewer = 1000;

  struct Group {
    template <typename F>
    void Spawn(F f) {
      futures.push_back(std::async(std::launch::async, std::move(f)));
    }
    std::vector<std::future<void>> futures;
  };

  template <typename F>
  void Enter(F body) {
    body();
  }
  template <typename F>
  void WithGroup(F body) {
    Group group;
    body(group);
    for (std::future<void>& future : group.futures) future.get();
  }
};

}  // namespace

int main(int argc, char** argv) {
  tocsin::benchmarks::Contender contender("std::async");
  Runtime runtime;
  tocsin::benchmarks::AddTaskCases(contender, runtime);
  auto with_tasks = [](int tasks, std::latch& started, auto body) {
    std::stop_source stop;
    std::vector<std::future<void>> futures;
    for (int i = 0; i < tasks; ++i) {
      futures.push_back(std::async(std::launch::async, [&] {
        started.count_down();
        tocsin::benchmarks::BlockUntilStopped(stop.get_token());
      }));
    }
    body([&stop] { stop.request_stop(); });
    for (std::future<void>& future : futures) future.get();
  };
  tocsin::benchmarks::AddCancelCases(contender, with_tasks);
  tocsin::benchmarks::AddCancelSleepersCase(contender, with_tasks);
  return contender.Run(argc, argv);
}
