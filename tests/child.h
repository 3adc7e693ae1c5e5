// A child process of a test.
#ifndef TOCSIN_TESTS_CHILD_H_
#define TOCSIN_TESTS_CHILD_H_

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "absl/functional/function_ref.h"
#include "gtest/gtest.h"

namespace tocsin {

class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {
    // Not to go on: kill(2) takes -1 for every process there is.
    if (pid < 0) abort();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  // Ends it, if nobody has waited for its end.
  ~Child() {
    if (ended_) return;
    Send(SIGKILL);
    while (!ended_) Wait();
  }

  pid_t pid() const { return pid_; }

  void Send(int signum) const { EXPECT_EQ(kill(pid_, signum), 0); }

  // Its next wait status, as of waitpid(2).
  int Wait(int options = 0) {
    int status = -1;
    const bool known = waitpid(pid_, &status, options) == pid_;
    EXPECT_TRUE(known) << "not a child any more: " << pid_;
    ended_ = !known || WIFEXITED(status) || WIFSIGNALED(status);
    return status;
  }

  // Whether it has. It is left to be waited for.
  bool HasEnded() const {
    siginfo_t info{};
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info,
                     WEXITED | WNOHANG | WNOWAIT),
              0);
    return info.si_pid == pid_;
  }

 private:
  const pid_t pid_;
  bool ended_ = false;
};

// Forks a process that runs `body` and exits: with 0, or 1 if an expectation
// failed in it.
inline pid_t Fork(absl::FunctionRef<void()> body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  return pid;
}

// The exit status, or -1 if it did not exit.
inline int ExitStatus(int wait_status) {
  EXPECT_TRUE(WIFEXITED(wait_status)) << "wait status " << wait_status;
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
}

// The signal that killed it, or -1.
inline int KillingSignal(int wait_status) {
  EXPECT_TRUE(WIFSIGNALED(wait_status)) << "wait status " << wait_status;
  return WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : -1;
}

}  // namespace tocsin

#endif  // TOCSIN_TESTS_CHILD_H_
