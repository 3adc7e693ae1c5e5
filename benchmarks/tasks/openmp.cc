#include "tocsin/benchmarks/tasks/contender.h"
#include "tocsin/benchmarks/tasks/workloads.h"

namespace {

struct Runtime {
  static constexpr int kFibonacci = 22;
  static constexpr bool kTree = true;
  static constexpr bool kCancels = false;  // only tasks cancel their group
  static constexpr int kFewer = 1;

  struct Group {
    template <typename F>
    void Spawn(F f) {
#pragma omp task firstprivate(f)
      f();
    }
  };

  template <typename F>
  void Enter(F body) {
#pragma omp parallel
#pragma omp single
    body();
  }
  template <typename F>
  void WithGroup(F body) {
    Group group;
#pragma omp taskgroup
    body(group);
  }
};

}  // namespace

int main(int argc, char** argv) {
  tocsin::benchmarks::Contender contender("OpenMP");
  Runtime runtime;
  tocsin::benchmarks::AddTaskCases(contender, runtime);
  return contender.Run(argc, argv);
}
