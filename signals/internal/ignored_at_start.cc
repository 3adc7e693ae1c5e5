#include "tocsin/signals/internal/ignored_at_start.h"

#include <csignal>

namespace tocsin::inline v0_2::internal {
namespace {

// The signals that were ignored when the process started, as a mask. Read
// before any code of the program runs: what the program itself ignores, for
// example SIGPIPE, is not its parent's choice.
constinit uint64_t ignored_at_start = 0;

[[gnu::constructor(101)]] void RememberIgnored() {
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    struct sigaction action;
    if (sigaction(signum, nullptr, &action) == 0 &&
        action.sa_handler == SIG_IGN) {
      ignored_at_start |= uint64_t{1} << (signum - 1);
    }
  }
}

}  // namespace

uint64_t IgnoredAtStart() { return ignored_at_start; }

}  // namespace tocsin::inline v0_2::internal
