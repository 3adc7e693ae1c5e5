#include "tocsin/signals/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/error_text.h"

namespace tocsin::inline v0_2 {
namespace {

absl::Status Send(absl::string_view message, int flags = 0) {
  const char* variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || *variable == '\0') return absl::OkStatus();
  const absl::string_view name = variable;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((name[0] != '/' && name[0] != '@') || name.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("NOTIFY_SOCKET is \"", name,
                     "\"; it must be an absolute path, or @ and a name"));
  }
  // One less than the field holds: a path ends with a NUL.
  constexpr size_t kLongest = sizeof(address.sun_path) - 1;
  if (name.size() > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat("NOTIFY_SOCKET is ", name.size(),
                     " bytes long, which is more than the ", kLongest,
                     " of a socket's address"));
  }
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name[0] == '@') address.sun_path[0] = '\0';
  // An abstract name has no NUL at its end; one would be part of it.
  const size_t size =
      offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '/' ? 1 : 0);

  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("socket for NOTIFY_SOCKET: ", internal::ErrorText(errno)));
  }
  ssize_t sent;
  do {
    sent = sendto(fd, message.data(), message.size(), MSG_NOSIGNAL | flags,
                  reinterpret_cast<const sockaddr*>(&address),
                  static_cast<socklen_t>(size));
  } while (sent < 0 && errno == EINTR);
  const int error = errno;
  close(fd);
  if (sent >= 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "sendto for NOTIFY_SOCKET \"", name, "\": ", std::strerror(error)));
}

}  // namespace

absl::Status NotifyReady() { return Send("READY=1"); }

absl::Status NotifyReloading() {
  // In the same datagram, so that the manager can tell which READY=1 is the
  // answer to this reload.
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Send(
      absl::StrCat("RELOADING=1\nMONOTONIC_USEC=",
                   absl::ToInt64Microseconds(absl::DurationFromTimespec(now))));
}

absl::Status NotifyStopping(absl::Duration takes) {
  if (takes <= absl::ZeroDuration()) return Send("STOPPING=1", MSG_DONTWAIT);
  return Send(absl::StrCat("STOPPING=1\nEXTEND_TIMEOUT_USEC=",
                           absl::ToInt64Microseconds(takes)),
              MSG_DONTWAIT);
}

absl::Status NotifyWatchdog() { return Send("WATCHDOG=1"); }

}  // namespace tocsin::inline v0_2
