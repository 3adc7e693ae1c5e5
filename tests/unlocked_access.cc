// What Clang's analysis must refuse to compile. ci/clang_thread_safety tries
// it, to see that the analysis is at work.

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

struct Counter {
  absl::Mutex mutex;
  int count ABSL_GUARDED_BY(mutex) = 0;
};

void Count(Counter& counter);
void Count(Counter& counter) { ++counter.count; }
