#include "tocsin/signals/internal/last_words.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>

namespace tocsin::inline v0_2::internal {
namespace {

std::optional<struct stat> Descriptor2() {
  struct stat file;
  if (fstat(STDERR_FILENO, &file) != 0) return std::nullopt;
  return file;
}

constinit bool was_open_at_start = false;

// Before the constructors of static objects, which may open files.
__attribute__((constructor(101))) void LookAtStart() {
  was_open_at_start = Descriptor2().has_value();
}

}  // namespace

LastWords::LastWords() {
  if (was_open_at_start) stderr_ = Descriptor2();
}

void LastWords::Say(absl::string_view text) const {
  const std::optional<struct stat> now = Descriptor2();
  if (!stderr_.has_value() || !now.has_value() ||
      now->st_dev != stderr_->st_dev || now->st_ino != stderr_->st_ino) {
    return;
  }
  pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&out, 1, 0) != 1) return;
  // A pipe that is ready takes this much without blocking (pipe(7)).
  const size_t size = std::min(text.size(), size_t{PIPE_BUF});
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, text.data(), size);
}

}  // namespace tocsin::inline v0_2::internal
