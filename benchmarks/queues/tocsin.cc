// Ours.
#include <cstdint>

#include "tocsin/benchmarks/queues/workloads.h"
#include "tocsin/concurrency/blocking_queue.h"

namespace {

class Queue {
 public:
  explicit Queue(size_t capacity) : queue_(capacity) {}
  void Push(uint64_t item) { queue_.Push(item).IgnoreError(); }
  uint64_t Pop() { return *queue_.Pop(); }

 private:
  tocsin::BlockingQueue<uint64_t> queue_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunQueue<Queue>("tocsin", argc, argv);
}
