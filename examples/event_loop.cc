// Takes signals in a poll(2) loop: echoes its input, counts lines on SIGUSR1,
// ends on SIGTERM.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iostream>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/signals/signal_service.h"

int Fail(const absl::Status& status) {
  std::cerr << status << "\n";
  return 1;
}

// False at the end of the input.
bool Echo(long& lines) {
  char text[4096];
  const ssize_t size = read(STDIN_FILENO, text, sizeof(text));
  if (size <= 0) return false;
  lines += std::count(text, text + size, '\n');
  std::cout.write(text, size).flush();
  return true;
}

int main() {
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return Fail(service.status());
  auto signals = (*service)->Open({SIGUSR1, SIGTERM});
  if (!signals.ok()) return Fail(signals.status());

  long lines = 0;
  const absl::StatusOr<int> fd = signals->fd();
  if (!fd.ok()) return Fail(fd.status());
  // [guide: event_loop]
  pollfd ready[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                    {.fd = *fd, .events = POLLIN, .revents = 0}};
  while (true) {
    if (poll(ready, 2, -1) < 0) {
      // Interrupted by a signal, which the descriptor tells of in a moment.
      if (errno == EINTR) continue;
      return Fail(absl::ErrnoToStatus(errno, "poll"));
    }
    auto event = signals->TryReceive();
    for (; event.ok(); event = signals->TryReceive()) {
      if (event->signum == SIGTERM) return 0;
      std::cout << lines << " lines so far" << std::endl;
    }
    // Closed: then the descriptor stays readable.
    if (!absl::IsUnavailable(event.status())) return Fail(event.status());
    if (ready[0].revents != 0 && !Echo(lines)) ready[0].fd = -1;
  }
  // [guide]
}
