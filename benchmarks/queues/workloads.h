// The questions that all queues between threads are asked, in the same words.
//
// A Queue is made of its capacity and has Push(uint64_t) and uint64_t Pop(),
// which block.
#ifndef TOCSIN_BENCHMARKS_QUEUES_WORKLOADS_H_
#define TOCSIN_BENCHMARKS_QUEUES_WORKLOADS_H_

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "tocsin/benchmarks/tasks/contender.h"

namespace tocsin::benchmarks {

constexpr size_t kQueueCapacity = 1024;

template <typename Queue>
double TimePerItem(int threads, int items) {
  Queue queue(kQueueCapacity);
  const int each = items / threads;
  std::latch ready(2 * threads);
  std::latch go(1);
  std::vector<uint64_t> sums(threads * 16);
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      ready.count_down();
      go.wait();
      for (int i = 0; i < each; ++i) queue.Push(i);
    });
    all.emplace_back([&, t] {
      ready.count_down();
      go.wait();
      uint64_t sum = 0;
      for (int i = 0; i < each; ++i) sum += queue.Pop();
      sums[t * 16] = sum;
    });
  }
  ready.wait();
  const auto start = std::chrono::steady_clock::now();
  go.count_down();
  for (std::thread& thread : all) thread.join();
  const double time = std::chrono::duration<double, std::nano>(
                          std::chrono::steady_clock::now() - start)
                          .count();
  uint64_t sum = 0;
  for (uint64_t part : sums) sum += part;
  if (sum != uint64_t(threads) * each * (each - 1) / 2) {
    std::fprintf(stderr, "items were lost\n");
    std::abort();
  }
  return time / (each * threads);
}

template <typename Queue>
int RunQueue(const char* name, int argc, char** argv) {
  Contender contender(name);
  for (int threads : {1, 2, 4}) {
    const std::string n = std::to_string(threads);
    contender.AddTimed(
        "queue_" + n + "p" + n + "c", "ns/item", [threads](bool quick) {
          return TimePerItem<Queue>(threads, quick ? 10'000 : 2'000'000);
        });
  }
  return contender.Run(argc, argv);
}

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_QUEUES_WORKLOADS_H_
