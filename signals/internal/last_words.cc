#include "tocsin/signals/internal/last_words.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>

namespace tocsin::inline v0_2::internal {

void SayLast(absl::string_view text) {
  pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&out, 1, 0) != 1) return;
  // A pipe that is ready takes this much without blocking (pipe(7)).
  const size_t size = std::min(text.size(), size_t{PIPE_BUF});
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, text.data(), size);
}

}  // namespace tocsin::inline v0_2::internal
