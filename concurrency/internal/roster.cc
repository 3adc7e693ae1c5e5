#include "tocsin/concurrency/internal/roster.h"

#include <limits.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#include "tocsin/concurrency/internal/mutex_lock.h"

namespace tocsin::inline v0_2::internal {

constinit SlimMutex Roster::mutex;
constinit Roster::Entry* Roster::pools = nullptr;
constinit Roster::Entry* Roster::threads = nullptr;

namespace {

void Link(Roster::Entry*& first, Roster::Entry& entry) {
  entry.next = first;
  entry.previous = nullptr;
  entry.listed = true;
  if (first != nullptr) first->previous = &entry;
  first = &entry;
}

void Unlink(Roster::Entry*& first, Roster::Entry& entry) {
  if (!entry.listed) return;
  entry.listed = false;
  if (entry.next != nullptr) entry.next->previous = entry.previous;
  (entry.previous != nullptr ? entry.previous->next : first) = entry.next;
}

pid_t ThreadId() { return static_cast<pid_t>(syscall(SYS_gettid)); }

}  // namespace

struct Roster::ThisThread {
  static void Leave(void* entry) {
    MutexLock lock(mutex);
    Unlink(threads, *static_cast<Thread*>(entry));
  }
  // Not by a destructor of `self`, for which the C library takes memory. False
  // if there is no key left.
  static bool LeaveAtExit();

  static constinit thread_local Thread self;
};

constinit thread_local Roster::Thread Roster::ThisThread::self;

bool Roster::ThisThread::LeaveAtExit() {
  static const pthread_key_t key = [] {
    pthread_key_t made;
    return pthread_key_create(&made, Leave) == 0 ? made : PTHREAD_KEYS_MAX;
  }();
  return pthread_setspecific(key, &self) == 0;
}

void Roster::Enter(Pool& pool) {
  MutexLock lock(mutex);
  Link(pools, pool);
}

void Roster::Leave(Pool& pool) {
  MutexLock lock(mutex);
  Unlink(pools, pool);
}

void Roster::EnterThread(bool worker) {
  Thread& self = ThisThread::self;
  MutexLock lock(mutex);
  self.worker |= worker;
  if (self.listed || !ThisThread::LeaveAtExit()) return;
  self.id = ThreadId();
  self.task = &running_task;
  self.wait = &wait_note;
  Link(threads, self);
}

// Without a lock around fork(): who holds it may wait for one that this thread
// has taken by then.
struct Roster::Fork {
  // The pools of the parent are dead here, and its other threads are gone.
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    ::new (&mutex) SlimMutex;
    pools = nullptr;
    threads = nullptr;
    Thread& self = ThisThread::self;
    if (!self.listed) return;
    self.id = ThreadId();
    Link(threads, self);
  }

  [[maybe_unused]] static const int registered;
};

const int Roster::Fork::registered = pthread_atfork(nullptr, nullptr, InChild);

}  // namespace tocsin::inline v0_2::internal
