#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/wait.h"

namespace tocsin {
namespace internal {

// Locks and unlocks the mutexes of those whose scope has changed while they
// were in Await(): unlocking makes Abseil look at their conditions again.
//
// It is done on a thread of the library, because the one that cancels may hold
// the mutex. While that thread is blocked in one mutex, another takes the next:
// the holder of the first may be waiting for somebody who awaits the second.
//
// A mutex may go as soon as the last Await() has returned from it, so that one
// stays for a visit that is under way.
//
// In the order of locking scope_tree_mutex, which guards all this, comes after
// the mutexes visited.
class MutexWaker {
 public:
  struct Visits {
    int waiters = 0;
    bool requested = false;
    std::atomic<bool> under_way{false};  // written under scope_tree_mutex
  };

  static MutexWaker& Get() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex) {
    static MutexWaker& waker = *new MutexWaker;
    return waker;
  }

  absl::StatusOr<Visits*> Enter(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // False for the last one while a visit is under way.
  bool Leave(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

  // Without effect where nobody is between Enter() and Leave().
  void Request(absl::Mutex& mutex)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);

 private:
  int StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  absl::Mutex* TakeRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scope_tree_mutex);
  void Run();
  static void ForgetAllInForkedChild();
  [[maybe_unused]] static const int registered;

  std::unordered_map<absl::Mutex*, Visits> visited_
      ABSL_GUARDED_BY(scope_tree_mutex);  // nodes, as Await() points to them
  std::deque<absl::Mutex*> requests_ ABSL_GUARDED_BY(scope_tree_mutex);
  int threads_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;
  int free_ ABSL_GUARDED_BY(scope_tree_mutex) = 0;  // not blocked in a mutex
  std::atomic<uint32_t> bell_{0};                   // what free ones sleep on
};

absl::StatusOr<MutexWaker::Visits*> MutexWaker::Enter(absl::Mutex& mutex) {
  if (threads_ == 0) {
    if (const int error = StartThread(); error != 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "pthread_create for the thread that ends Await() on cancellation: ",
          ErrorText(error)));
    }
  }
  Visits& visits = visited_[&mutex];
  ++visits.waiters;
  return &visits;
}

bool MutexWaker::Leave(absl::Mutex& mutex) {
  const auto it = visited_.find(&mutex);
  if (it->second.waiters == 1 && it->second.under_way) return false;
  if (--it->second.waiters == 0) visited_.erase(it);
  return true;
}

void MutexWaker::Request(absl::Mutex& mutex) {
  const auto it = visited_.find(&mutex);
  if (it == visited_.end() || it->second.requested || it->second.under_way) {
    return;
  }
  it->second.requested = true;
  requests_.push_back(&mutex);
  if (free_ == 0) StartThread();  // else the next thread that becomes free
  bell_.fetch_add(1, std::memory_order_release);
  FutexWakeOne(&bell_);
}

int MutexWaker::StartThread() {
  pthread_t thread;
  auto run = [](void* waker) -> void* {
    pthread_setname_np(pthread_self(), "tocsin-await");
    static_cast<MutexWaker*>(waker)->Run();
    return nullptr;
  };
  const int error = pthread_create(&thread, nullptr, run, this);
  if (error != 0) return error;
  pthread_detach(thread);
  ++threads_;
  ++free_;
  return 0;
}

absl::Mutex* MutexWaker::TakeRequest() {
  while (!requests_.empty()) {
    absl::Mutex* mutex = requests_.front();
    requests_.pop_front();
    const auto it = visited_.find(mutex);
    if (it == visited_.end() || !it->second.requested) continue;
    it->second.requested = false;
    it->second.under_way = true;
    return mutex;
  }
  return nullptr;
}

void MutexWaker::Run() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  while (true) {
    const uint32_t bell = bell_.load(std::memory_order_acquire);
    absl::Mutex* mutex;
    {
      MutexLock lock(scope_tree_mutex);
      mutex = TakeRequest();
    }
    if (mutex == nullptr) TOCSIN_STEP("MutexWaker: found no request");
    if (mutex == nullptr) {
      FutexWait(bell_, bell);
      continue;
    }
    TOCSIN_STEP("MutexWaker: about to visit");
    const bool must_block = !mutex->TryLock();
    if (must_block) {
      {
        MutexLock lock(scope_tree_mutex);
        if (--free_ == 0 && !requests_.empty()) StartThread();
      }
      TOCSIN_STEP("MutexWaker: about to block");
      mutex->Lock();
    }
    {
      MutexLock lock(scope_tree_mutex);
      visited_[mutex].under_way = false;
    }
    mutex->Unlock();  // from here on it may be gone
    if (must_block) {
      MutexLock lock(scope_tree_mutex);
      if (free_ > 0) {
        --threads_;
        return;
      }
      ++free_;
    }
  }
}

void MutexWaker::ForgetAllInForkedChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  MutexWaker& waker = Get();
  waker.visited_.clear();
  waker.requests_.clear();
  waker.threads_ = waker.free_ = 0;
}

const int MutexWaker::registered =
    pthread_atfork(nullptr, nullptr, ForgetAllInForkedChild);

}  // namespace internal

namespace {

using internal::MutexLock;
using internal::MutexWaker;
using internal::scope_tree_mutex;

class AwaitCall final : public internal::BlockingCall {
 public:
  AwaitCall(absl::Mutex& mutex, const absl::Condition& condition)
      : mutex_(mutex), condition_(condition) {}

  absl::Status Enter() {
    if (internal::current_scope == nullptr) return absl::OkStatus();
    MutexLock lock(scope_tree_mutex);
    absl::StatusOr<MutexWaker::Visits*> visits =
        MutexWaker::Get().Enter(mutex_);
    if (visits.ok()) visits_ = *visits;
    return visits.status();
  }

  // False if the mutex had to be let go meanwhile.
  bool Leave() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (visits_ == nullptr) return true;
    {
      MutexLock lock(scope_tree_mutex);
      if (MutexWaker::Get().Leave(mutex_)) return true;
    }
    auto visit_is_over = [this] { return !visits_->under_way.load(); };
    mutex_.Await(absl::Condition(&visit_is_over));
    return false;
  }

  void Block(const internal::Sleeper& sleeper,
             absl::Time until) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    auto over = [&] { return sleeper.woken() || condition_.Eval(); };
    mutex_.AwaitWithDeadline(absl::Condition(&over), until);
  }

  void Interrupt() override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    MutexWaker::Get().Request(mutex_);
  }

 private:
  absl::Mutex& mutex_;
  const absl::Condition& condition_;
  MutexWaker::Visits* visits_ = nullptr;
};

}  // namespace

absl::Status Await(absl::Mutex& mutex, const absl::Condition& condition) {
  mutex.AssertReaderHeld();
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  if (condition.Eval()) return absl::OkStatus();
  AwaitCall call(mutex, condition);
  if (absl::Status status = call.Enter(); !status.ok()) return status;
  internal::Sleeper sleeper(absl::InfiniteFuture(), &call);
  while (true) {
    absl::Status status = sleeper.Sleep();
    const bool holds = condition.Eval();
    if ((holds || !status.ok()) && call.Leave()) {
      return holds ? absl::OkStatus() : status;
    }
  }
}

}  // namespace tocsin
