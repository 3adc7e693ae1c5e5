// Faults that the sanitizers must find. ci/asan_ubsan and ci/tsan run it to see
// that they are at work.

#include <climits>
#include <cstdio>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"

namespace {

absl::Mutex mutex;
int count = 0;

void CountUnderLock() {
  for (int i = 0; i < 1000; ++i) {
    tocsin::internal::MutexLock lock(mutex);
    ++count;
  }
}

void CountWithoutLock() {
  for (int i = 0; i < 1000; ++i) ++count;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view fault = argc > 1 ? argv[1] : "none";
  std::thread one(CountUnderLock);
  std::thread two(fault == "race" ? CountWithoutLock : CountUnderLock);
  one.join();
  two.join();

  if (fault == "out-of-bounds") {
    const std::vector<int> numbers(4);
    const volatile int index = 4;
    std::printf("%d\n", numbers.data()[index]);
  }
  if (fault == "overflow") {
    const volatile int big = INT_MAX;
    std::printf("%d\n", big + argc);
  }
  std::puts("ended");
}
