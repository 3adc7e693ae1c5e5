#include "tocsin/signals/internal/notify_socket.h"

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/error_text.h"

namespace tocsin::inline v0_2::internal {

absl::StatusOr<std::unique_ptr<NotifySocket>> NotifySocket::Open() {
  const char* variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || *variable == '\0') return nullptr;
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
        absl::StrCat("socket for NOTIFY_SOCKET: ", ErrorText(errno)));
  }
  return absl::WrapUnique(new NotifySocket(std::string(name), address,
                                           static_cast<socklen_t>(size), fd));
}

NotifySocket::~NotifySocket() { close(fd_); }

absl::Status NotifySocket::Send(absl::string_view message, int flags) const {
  ssize_t sent;
  do {
    sent = sendto(fd_, message.data(), message.size(), MSG_NOSIGNAL | flags,
                  reinterpret_cast<const sockaddr*>(&address_), size_);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "sendto for NOTIFY_SOCKET \"", name_, "\": ", std::strerror(errno)));
}

}  // namespace tocsin::inline v0_2::internal
