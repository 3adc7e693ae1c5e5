#include "tocsin/signals/internal/lasting_thread.h"

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/concurrency/internal/start_thread.h"

namespace tocsin::inline v0_2::internal {
namespace {

class LastingThread {
 public:
  int Call(absl::FunctionRef<void()> work);

 private:
  struct Job {
    absl::FunctionRef<void()> work;
    Job* next = nullptr;
    std::atomic<uint32_t> done{0};
  };

  void Run();

  SlimMutex mutex_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  Job* jobs_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::atomic<uint32_t> bell_{0};
};

// Never destroyed: its thread ends with the process.
constinit LastingThread lasting_thread;

// A forked child begins anew: its parent's thread is not there.
[[maybe_unused]] const int registered = pthread_atfork(
    nullptr, nullptr, [] { new (&lasting_thread) LastingThread; });

int LastingThread::Call(absl::FunctionRef<void()> work) {
  Job job{.work = work};
  {
    MutexLock lock(mutex_);
    if (!running_) {
      pthread_t thread;
      const int error =
          StartThread<&LastingThread::Run, "tocsin-spawn">(thread, this);
      if (error != 0) return error;
      pthread_detach(thread);
      running_ = true;
    }
    job.next = std::exchange(jobs_, &job);
  }
  bell_.fetch_add(1);
  FutexWakeOne(&bell_);
  while (job.done == 0) FutexWait(job.done, 0);
  return 0;
}

void LastingThread::Run() {
  while (true) {
    const uint32_t bell = bell_;
    Job* jobs;
    {
      MutexLock lock(mutex_);
      jobs = std::exchange(jobs_, nullptr);
    }
    if (jobs == nullptr) FutexWait(bell_, bell);
    while (jobs != nullptr) {
      Job& job = *std::exchange(jobs, jobs->next);
      job.work();
      job.done = 1;  // from here on it may be gone
      FutexWakeOne(&job.done);
    }
  }
}

}  // namespace

int CallOnLastingThread(absl::FunctionRef<void()> work) {
  return lasting_thread.Call(work);
}

}  // namespace tocsin::inline v0_2::internal
