// The way to the socket at which the service manager listens.
//
// Any thread may send, also while others do.
#ifndef TOCSIN_SIGNALS_INTERNAL_NOTIFY_SOCKET_H_
#define TOCSIN_SIGNALS_INTERNAL_NOTIFY_SOCKET_H_

#include <sys/socket.h>
#include <sys/un.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

class NotifySocket {
 public:
  // Null if $NOTIFY_SOCKET is unset or empty. kInvalidArgument if it names no
  // socket; kResourceExhausted if there is no descriptor left. The variable is
  // not read again.
  static absl::StatusOr<std::unique_ptr<NotifySocket>> Open();

  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;
  ~NotifySocket();

  // One datagram, with flags of send(2). kUnavailable if nobody takes it.
  absl::Status Send(absl::string_view message, int flags = 0) const;

 private:
  NotifySocket(std::string name, const sockaddr_un& address, socklen_t size,
               int fd)
      : name_(std::move(name)), address_(address), size_(size), fd_(fd) {}

  const std::string name_;
  const sockaddr_un address_;
  const socklen_t size_;
  const int fd_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_NOTIFY_SOCKET_H_
