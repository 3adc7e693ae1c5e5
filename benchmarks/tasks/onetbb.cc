#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>

#include <latch>
#include <stop_token>

#include "tocsin/benchmarks/tasks/contender.h"
#include "tocsin/benchmarks/tasks/workloads.h"

namespace {

struct Runtime {
  static constexpr int kFibonacci = 27;
  static constexpr bool kTree = true;
  static constexpr bool kCancels = true;
  static constexpr int kFewer = 1;

  struct Group {
    template <typename F>
    void Spawn(F f) {
      group.run(std::move(f));
    }
    void Cancel() { group.cancel(); }
    tbb::task_group group;
  };

  template <typename F>
  void Enter(F body) {
    body();
  }
  template <typename F>
  void WithGroup(F body) {
    Group group;
    body(group);
    group.group.wait();
  }
  // The thread that waits takes part.
  int workers() { return tbb::info::default_concurrency() - 1; }
};

// Its threads are as many as the cores, unless one asks for more.
void WithTasks(int tasks, std::latch& started, auto body) {
  static tbb::global_control more(tbb::global_control::max_allowed_parallelism,
                                  tasks + 1);
  static tbb::task_arena arena(tasks + 1);
  std::stop_source stop;
  arena.execute([&] {
    tbb::task_group group;
    for (int i = 0; i < tasks; ++i) {
      group.run([&] {
        started.count_down();
        tocsin::benchmarks::BlockUntilStopped(stop.get_token());
      });
    }
    body([&stop] { stop.request_stop(); });
    group.wait();
  });
}

}  // namespace

int main(int argc, char** argv) {
  tocsin::benchmarks::Contender contender("oneTBB");
  Runtime runtime;
  tocsin::benchmarks::AddTaskCases(contender, runtime);
  tocsin::benchmarks::AddCancelCases(
      contender, [](int tasks, std::latch& started, auto body) {
        WithTasks(tasks, started, body);
      });
  return contender.Run(argc, argv);
}
