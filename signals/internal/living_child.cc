#include "tocsin/signals/internal/living_child.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"

namespace tocsin::inline v0_2::internal {
namespace {

constinit SlimMutex living_children_mutex;
constinit LivingChild* living_children ABSL_GUARDED_BY(living_children_mutex) =
    nullptr;

// Whole in a forked child too, where the objects may be destroyed.
void LockForFork() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  living_children_mutex.Lock();
}
void UnlockAfterFork() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  living_children_mutex.Unlock();
}
[[maybe_unused]] const int registered =
    pthread_atfork(LockForFork, UnlockAfterFork, UnlockAfterFork);

}  // namespace

void LivingChild::Know(pid_t pid, int pidfd, bool own_group) {
  parent_ = getpid();
  pid_ = pid;
  pidfd_ = pidfd;
  own_group_ = own_group;
  MutexLock lock(living_children_mutex);
  next_ = living_children;
  if (next_ != nullptr) next_->link_ = &next_;
  link_ = &living_children;
  living_children = this;
}

void LivingChild::Forget() {
  MutexLock lock(living_children_mutex);
  if (link_ == nullptr) return;
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  link_ = nullptr;
}

// Until a child is waited for, the kernel does not give its number to another
// process.
bool LivingChild::HoldsGroup() const {
  siginfo_t info;
  return own_group_ &&
         waitid(P_PIDFD, static_cast<id_t>(pidfd_), &info,
                WEXITED | WNOHANG | WNOWAIT) == 0 &&
         getpgid(pid_) == pid_;
}

int LivingChild::Signal(int signum) const {
  return HoldsGroup() ? kill(-pid_, signum) : SignalAlone(signum);
}

int LivingChild::SignalAlone(int signum) const {
  return static_cast<int>(
      syscall(SYS_pidfd_send_signal, pidfd_, signum, nullptr, 0));
}

void KillLivingChildren() {
  const pid_t self = getpid();
  MutexLock lock(living_children_mutex);
  for (const LivingChild* child = living_children; child != nullptr;
       child = child->next_) {
    if (child->parent_ == self) child->Signal(SIGKILL);
  }
}

}  // namespace tocsin::inline v0_2::internal
