// A seccomp filter in this process, as of a container, that refuses one system
// call with an errno.
#ifndef TOCSIN_TESTS_REFUSED_CALL_H_
#define TOCSIN_TESTS_REFUSED_CALL_H_

#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <ostream>
#include <string_view>

namespace tocsin {

struct RefusedCall {
  std::string_view name;
  uint32_t number;
  // Only with one of these bits in its first argument; 0: always.
  uint32_t flags = 0;
  // Only with this first argument.
  uint32_t first = kAny;

  static constexpr uint32_t kAny = ~uint32_t{0};

  friend std::ostream& operator<<(std::ostream& out, const RefusedCall& call) {
    return out << call.name;
  }
};

// What gives a pidfd, and takes one.
inline constexpr RefusedCall kPidfdCalls[] = {
    {.name = "clone_pidfd", .number = SYS_clone, .flags = CLONE_PIDFD},
    {.name = "pidfd_send_signal", .number = SYS_pidfd_send_signal},
    {.name = "waitid_pidfd", .number = SYS_waitid, .first = 3},  // P_PIDFD
};

// From here on, in every thread, and in what is forked and executed. True if
// the kernel took the filter.
inline bool Refuse(const RefusedCall& call, int error) {
  const bool looks = call.flags != 0 || call.first != RefusedCall::kAny;
  const uint16_t test = call.flags != 0 ? BPF_JSET : BPF_JEQ;
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call.number, 0, 4),
      BPF_JUMP(BPF_JMP | BPF_JA, looks ? 0u : 2u, 0, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test | BPF_K),
               call.flags != 0 ? call.flags : call.first, 0, 1),
      BPF_STMT(BPF_RET | BPF_K,
               SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(filter), .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                 SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

}  // namespace tocsin

#endif  // TOCSIN_TESTS_REFUSED_CALL_H_
