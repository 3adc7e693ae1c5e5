#include "tocsin/signals/internal/living_child.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/slim_mutex.h"
#include "tocsin/signals/internal/refused_call.h"

namespace tocsin::inline v0_2::internal {
namespace {

constinit SlimMutex living_children_mutex;
constinit LivingChild* living_children ABSL_GUARDED_BY(living_children_mutex) =
    nullptr;
// Whoever is born now dies as well.
constinit bool all_die ABSL_GUARDED_BY(living_children_mutex) = false;
constinit int generation = 0;  // goes up in a forked child

// The children of the parent are none of ours. No lock is held meanwhile by the
// thread that forks: it may wait for one of the C library's, and a forced end
// must not wait for it.
void ForgetAllInForkedChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  new (&living_children_mutex) SlimMutex;
  living_children = nullptr;
  all_die = false;
  ++generation;
}
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, ForgetAllInForkedChild);

}  // namespace

void LivingChild::Know(pid_t pid, int pidfd, bool own_group,
                       std::unique_ptr<EndWatch> watch) {
  parent_ = getpid();
  pid_ = pid;
  pidfd_ = pidfd;
  own_group_ = own_group;
  watch_ = std::move(watch);
  MutexLock lock(living_children_mutex);
  next_ = living_children;
  if (next_ != nullptr) next_->link_ = &next_;
  link_ = &living_children;
  living_children = this;
  generation_ = generation;
  if (all_die) Signal(SIGKILL);
}

void LivingChild::Forget() {
  MutexLock lock(living_children_mutex);
  if (link_ == nullptr || generation_ != generation) return;
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  link_ = nullptr;
}

// Until a child is waited for, the kernel does not give its number to another
// process.
bool LivingChild::HoldsGroup() const {
  return own_group_ && IsThere() && getpgid(pid_) == pid_;
}

bool LivingChild::IsThere() const {
  siginfo_t info;
  return WaitId(&info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

int LivingChild::Signal(int signum) const {
  if (HoldsGroup()) {
    const int result = kill(-pid_, signum);
    if (result == 0 || !IsRefusal(errno)) return result;
  }
  return SignalAlone(signum);
}

int LivingChild::SignalAlone(int signum) const {
  if (pidfd_ >= 0) {
    const long result =
        syscall(SYS_pidfd_send_signal, pidfd_, signum, nullptr, 0);
    if (result == 0 || !IsRefusal(errno)) return static_cast<int>(result);
  }
  if (IsThere()) return kill(pid_, signum);
  errno = ESRCH;
  return -1;
}

int LivingChild::WaitId(siginfo_t* info, int options) const {
  if (pidfd_ >= 0) {
    const int result =
        waitid(P_PIDFD, static_cast<id_t>(pidfd_), info, options);
    if (result == 0 || !IsRefusal(errno)) return result;
  } else if (watch_->lost()) {
    errno = ECHILD;
    return -1;
  }
  return waitid(P_PID, static_cast<id_t>(pid_), info, options);
}

void KillLivingChildren() {
  MutexLock lock(living_children_mutex);
  all_die = true;
  for (const LivingChild* child = living_children; child != nullptr;
       child = child->next_) {
    child->Signal(SIGKILL);
  }
}

}  // namespace tocsin::inline v0_2::internal
