#include <oneapi/tbb/concurrent_queue.h>

#include <cstdint>

#include "tocsin/benchmarks/queues/workloads.h"

namespace {

class Queue {
 public:
  explicit Queue(size_t capacity) {
    queue_.set_capacity(static_cast<std::ptrdiff_t>(capacity));
  }
  void Push(uint64_t item) { queue_.push(item); }
  uint64_t Pop() {
    uint64_t item;
    queue_.pop(item);
    return item;
  }

 private:
  tbb::concurrent_bounded_queue<uint64_t> queue_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunQueue<Queue>("oneTBB", argc, argv);
}
