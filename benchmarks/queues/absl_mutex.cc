#include <cstdint>
#include <deque>

#include "absl/synchronization/mutex.h"
#include "tocsin/benchmarks/queues/workloads.h"

namespace {

class Queue {
 public:
  explicit Queue(size_t capacity) : capacity_(capacity) {}

  void Push(uint64_t item) {
    auto has_room = [this] { return items_.size() < capacity_; };
    absl::MutexLock lock(&mutex_, absl::Condition(&has_room));
    items_.push_back(item);
  }

  uint64_t Pop() {
    auto has_item = [this] { return !items_.empty(); };
    absl::MutexLock lock(&mutex_, absl::Condition(&has_item));
    const uint64_t item = items_.front();
    items_.pop_front();
    return item;
  }

 private:
  const size_t capacity_;
  absl::Mutex mutex_;
  std::deque<uint64_t> items_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunQueue<Queue>("absl::Mutex queue", argc, argv);
}
