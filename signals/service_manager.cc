#include "tocsin/signals/service_manager.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tocsin/signals/internal/notify_socket.h"

namespace tocsin::inline v0_2 {
namespace {

absl::Status Send(absl::string_view message, int flags = 0) {
  const absl::StatusOr<std::unique_ptr<internal::NotifySocket>> socket =
      internal::NotifySocket::Open();
  if (!socket.ok()) return socket.status();
  if (*socket == nullptr) return absl::OkStatus();
  return (*socket)->Send(message, flags);
}

const char* Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? nullptr : value;
}

// SimpleAtoi() would also accept a sign, and blanks on either side.
template <typename Int>
absl::StatusOr<Int> PositiveNumber(absl::string_view variable,
                                   absl::string_view value,
                                   absl::string_view what) {
  Int number;
  if (std::all_of(value.begin(), value.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(value, &number) && number > 0) {
    return number;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(variable, " is \"", value, "\"; it must be ", what));
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

absl::StatusOr<absl::Duration> WatchdogPeriod() {
  const char* microseconds = Variable("WATCHDOG_USEC");
  if (microseconds == nullptr || Variable("NOTIFY_SOCKET") == nullptr) {
    return absl::InfiniteDuration();
  }
  const absl::StatusOr<int64_t> period = PositiveNumber<int64_t>(
      "WATCHDOG_USEC", microseconds, "a number of microseconds, at least 1");
  if (!period.ok()) return period.status();
  if (const char* process = Variable("WATCHDOG_PID"); process != nullptr) {
    const absl::StatusOr<pid_t> pid = PositiveNumber<pid_t>(
        "WATCHDOG_PID", process, "the number of a process");
    if (!pid.ok()) return pid.status();
    if (*pid != getpid()) return absl::InfiniteDuration();
  }
  return absl::Microseconds(*period);
}

}  // namespace tocsin::inline v0_2
