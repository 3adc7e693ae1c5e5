#include "tocsin/signals/internal/last_words.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

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
[[gnu::constructor(101)]] void LookAtStart() {
  was_open_at_start = Descriptor2().has_value();
}

void WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void SendAll(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(STDERR_FILENO, text.data(), text.size(),
                              MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) return;
    text.remove_prefix(static_cast<size_t>(sent));
  }
}

// A terminal that says it is ready may block in the middle. O_NONBLOCK belongs
// to the open file, which others share; so this opens the pipe or the device
// once more.
void WriteWithoutBlocking(absl::string_view text) {
  const int fd =
      open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd >= 0) return WriteAll(fd, text);
  pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&out, 1, 0) != 1) return;
  // A pipe that is ready takes this much without blocking (pipe(7)).
  WriteAll(STDERR_FILENO, text.substr(0, PIPE_BUF));
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
  if (S_ISSOCK(now->st_mode)) {
    SendAll(text);
  } else if (S_ISFIFO(now->st_mode) || S_ISCHR(now->st_mode)) {
    WriteWithoutBlocking(text);
  } else {
    WriteAll(STDERR_FILENO, text);
  }
}

}  // namespace tocsin::inline v0_2::internal
