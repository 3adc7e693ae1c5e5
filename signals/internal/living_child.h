// A child process that has not been waited for, with its group. This process
// knows all of them, so that it can take them along when it dies by force.
//
// Any thread may call it.
#ifndef TOCSIN_SIGNALS_INTERNAL_LIVING_CHILD_H_
#define TOCSIN_SIGNALS_INTERNAL_LIVING_CHILD_H_

#include <sys/types.h>
#include <sys/wait.h>

#include <memory>

#include "tocsin/signals/internal/end_watch.h"

namespace tocsin::inline v0_2::internal {

class LivingChild {
 public:
  LivingChild() = default;
  LivingChild(const LivingChild&) = delete;
  LivingChild& operator=(const LivingChild&) = delete;
  ~LivingChild() { Forget(); }

  // It was started, and nobody has waited for it. Called once. Without a pidfd,
  // which is -1 then, `watch` was told it.
  void Know(pid_t pid, int pidfd, bool own_group,
            std::unique_ptr<EndWatch> watch = nullptr);
  // It is about to be waited for, and its number given away.
  void Forget();

  // These are for a child that nobody waits for meanwhile.
  //
  // Whether its number is that of its group.
  bool HoldsGroup() const;
  // To the group, if it has its own. As kill(2), with errno.
  int Signal(int signum) const;

  // To the child alone. By its pidfd never to another process that has got its
  // number since. Where that is refused, by its number, which is its own until
  // it is waited for; if others do that, it is looked for first.
  int SignalAlone(int signum) const;
  // As waitid(2) for it.
  int WaitId(siginfo_t* info, int options) const;

  pid_t parent() const { return parent_; }
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_; }
  // Readable once it has ended.
  int end_fd() const { return watch_ != nullptr ? watch_->fd() : pidfd_; }

 private:
  friend void KillLivingChildren();

  bool IsThere() const;

  pid_t parent_ = -1;
  pid_t pid_ = -1;
  int pidfd_ = -1;
  bool own_group_ = false;
  std::unique_ptr<EndWatch> watch_;
  // Guarded by the mutex of all of them. Null while it is not known.
  LivingChild** link_ = nullptr;  // what points to this
  LivingChild* next_ = nullptr;
  int generation_ = 0;  // of the process that knows it
};

// Sends SIGKILL to all of them, and to each that is started from here on. Takes
// no memory, and only a lock that nobody holds for long.
void KillLivingChildren();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LIVING_CHILD_H_
