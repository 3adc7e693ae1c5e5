// Without a limit, which it does not know: its producers never wait.
#include <concurrentqueue/blockingconcurrentqueue.h>

#include <cstdint>

#include "tocsin/benchmarks/queues/workloads.h"

namespace {

class Queue {
 public:
  explicit Queue(size_t capacity) : queue_(capacity) {}
  void Push(uint64_t item) { queue_.enqueue(item); }
  uint64_t Pop() {
    uint64_t item;
    queue_.wait_dequeue(item);
    return item;
  }

 private:
  moodycamel::BlockingConcurrentQueue<uint64_t> queue_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunQueue<Queue>("moodycamel", argc, argv);
}
