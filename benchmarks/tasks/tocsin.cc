// Ours.
#include <latch>

#include "absl/time/time.h"
#include "tocsin/benchmarks/tasks/contender.h"
#include "tocsin/benchmarks/tasks/workloads.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/thread_pool.h"
#include "tocsin/concurrency/wait.h"

namespace {

using tocsin::TaskGroup;

struct Runtime {
  static constexpr int kFibonacci = 27;
  static constexpr bool kTree = true;
  static constexpr bool kCancels = true;
  static constexpr int kFewer = 1;

  template <typename F>
  void Enter(F body) {
    body();
  }
  template <typename F>
  void WithGroup(F body) {
    TaskGroup group;
    body(group);
    group.Wait().IgnoreError();
  }
  int workers() {
    return static_cast<int>(std::thread::hardware_concurrency());
  }
};

}  // namespace

int main(int argc, char** argv) {
  tocsin::benchmarks::Contender contender("tocsin");
  Runtime runtime;
  tocsin::benchmarks::AddTaskCases(contender, runtime);
  static tocsin::ThreadPool& pool =
      *tocsin::ThreadPool::Create({.name = "sleepers", .max_threads = 2000})
           ->release();
  auto with_tasks = [](int tasks, std::latch& started, auto body) {
    TaskGroup group({.pool = &pool});
    for (int i = 0; i < tasks; ++i) {
      group.Spawn([&started] {
        started.count_down();
        tocsin::Sleep(absl::InfiniteDuration()).IgnoreError();
      });
    }
    body([&group] { group.Cancel(); });
    group.Wait().IgnoreError();
  };
  tocsin::benchmarks::AddCancelCases(contender, with_tasks);
  tocsin::benchmarks::AddCancelSleepersCase(contender, with_tasks);
  return contender.Run(argc, argv);
}
