// A service manager that a test listens for, like systemd.
#ifndef TOCSIN_TESTS_SERVICE_MANAGER_H_
#define TOCSIN_TESTS_SERVICE_MANAGER_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace tocsin {

// Not by the process id: sandboxes count those anew, but share the names.
inline std::string Unique() {
  static const unsigned seed = std::random_device()();
  return std::to_string(seed) + "_" + std::to_string(getpid());
}
inline std::string AbstractName() {
  return "@tocsin/service_manager/" + Unique();
}
// Not in the test's own directory, whose path may be too long for an address.
inline std::string Path() { return "/tmp/tocsin_service_manager_" + Unique(); }

// Receives what is sent to $NOTIFY_SOCKET, which it sets for as long as it
// lives.
class ServiceManager {
 public:
  explicit ServiceManager(const std::string& name) : name_(name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    size_t size = offsetof(sockaddr_un, sun_path) + name.size();
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    } else {
      ++size;
    }
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(size)),
              0)
        << name << ": " << std::strerror(errno);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;
  ~ServiceManager() {
    close(fd_);
    if (name_[0] == '/') unlink(name_.c_str());
    unsetenv("NOTIFY_SOCKET");
  }

  // The next datagram, which must be there already; "" if it is not.
  std::string Take() { return Receive(MSG_DONTWAIT); }
  // The next datagram, which is waited for.
  std::string Await() { return Receive(0); }

  // Returns once a ping of a watchdog has come that was not sent before.
  void AwaitPing() {
    while (!Take().empty()) {
    }
    // The first may have been on its way: there is one at a time.
    for (int pings = 0; pings < 2;) {
      if (Await() == "WATCHDOG=1") ++pings;
    }
  }

 private:
  std::string Receive(int flags) {
    char datagram[512];
    const ssize_t size = recv(fd_, datagram, sizeof(datagram), flags);
    return std::string(datagram, size > 0 ? static_cast<size_t>(size) : 0);
  }

  const std::string name_;
  const int fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_SERVICE_MANAGER_H_
