#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

#include "tocsin/benchmarks/queues/workloads.h"

namespace {

class Queue {
 public:
  explicit Queue(size_t capacity) : capacity_(capacity) {}

  void Push(uint64_t item) {
    {
      std::unique_lock lock(mutex_);
      has_room_.wait(lock, [this] { return items_.size() < capacity_; });
      items_.push_back(item);
    }
    has_item_.notify_one();
  }

  uint64_t Pop() {
    uint64_t item;
    {
      std::unique_lock lock(mutex_);
      has_item_.wait(lock, [this] { return !items_.empty(); });
      item = items_.front();
      items_.pop_front();
    }
    has_room_.notify_one();
    return item;
  }

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable has_room_;
  std::condition_variable has_item_;
  std::deque<uint64_t> items_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunQueue<Queue>("std::mutex queue", argc, argv);
}
