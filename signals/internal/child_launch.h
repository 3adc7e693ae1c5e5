// The system call that makes a child process run another program.
//
// May be called from any thread. The child shares the caller's memory until it
// runs the program.
//
// posix_spawn(3) is not enough. It cannot make the child ignore a signal that
// has a handler here. And where the kernel reaps children by itself, the
// process id that it returns may belong to another process by the time a pidfd
// is opened for it.
#ifndef TOCSIN_SIGNALS_INTERNAL_CHILD_LAUNCH_H_
#define TOCSIN_SIGNALS_INTERNAL_CHILD_LAUNCH_H_

#include <sys/types.h>

#include <cstdint>

namespace tocsin::inline v0_2::internal {

// What the child does before it becomes the program. Until then it shares our
// memory and allocates nothing, so the parent prepares all of this.
struct Launch {
  const char* const* programs =
      nullptr;  // paths tried in turn, up to a null pointer
  const char* const* argv = nullptr;
  const char* const* environment = nullptr;
  const char* directory = nullptr;  // null: as ours
  int streams[3] = {-1, -1,
                    -1};  // descriptors that become 0, 1 and 2; -1: as ours
  bool own_group = false;
  bool dies_with_parent = false;  // with the thread that calls Start()
  uint64_t ignored_signals = 0;   // a mask as in the kernel: bit signum - 1
  bool pidfd = true;              // whether one is asked for
};

struct Launched {
  pid_t pid = -1;  // -1 if there is no child
  int pidfd = -1;  // close-on-exec; -1 if none was asked for
  // There is no child, because the system gives no pidfd, or not one that can
  // be waited for. Without one there may be.
  bool pidfd_refused = false;
  const char* failed_call = nullptr;
  int error = 0;
};

// Returns once the program runs or has failed to. Then no child is left, and
// the result names the call that failed and its errno.
Launched Start(const Launch& launch);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_CHILD_LAUNCH_H_
