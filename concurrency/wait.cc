#include "tocsin/concurrency/wait.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <string>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/error_text.h"
#include "tocsin/concurrency/internal/scope_state.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/wakeable.h"

namespace tocsin::inline v0_2 {

namespace {

std::string Failed(const char* call, int fd, int error) {
  return absl::StrCat(call, " for PollFd() of file descriptor ", fd, ": ",
                      internal::ErrorText(error));
}

// Woken through an eventfd of its own. That costs two more system calls for
// each sleep, but threads keep no descriptors, so a forked child has none to
// take care of.
class PollCall final : public internal::BlockingCall {
 public:
  PollCall(int fd, short events)
      : fds_{{.fd = fd, .events = events, .revents = 0},
             {.fd = -1, .events = POLLIN, .revents = 0}} {}
  ~PollCall() {
    if (fds_[1].fd >= 0) close(fds_[1].fd);
  }

  absl::Status OpenDoorbell() {
    fds_[1].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fds_[1].fd >= 0) return absl::OkStatus();
    return absl::ResourceExhaustedError(Failed("eventfd", fds_[0].fd, errno));
  }

  void Poll(absl::Duration timeout) {
    timespec left;
    if (timeout != absl::InfiniteDuration()) left = absl::ToTimespec(timeout);
    const int ready =
        ppoll(fds_, 2, timeout == absl::InfiniteDuration() ? nullptr : &left,
              nullptr);
    if (ready < 0 && errno != EINTR) error_ = errno;
    if (ready > 0 && fds_[1].revents != 0) {
      uint64_t rings;
      [[maybe_unused]] ssize_t size = read(fds_[1].fd, &rings, sizeof(rings));
    }
  }

  bool over() const { return error_ != 0 || fds_[0].revents != 0; }

  absl::StatusOr<short> Result() const {
    if (error_ != 0) {
      return absl::InternalError(Failed("ppoll", fds_[0].fd, error_));
    }
    if ((fds_[0].revents & POLLNVAL) != 0) {
      return absl::InvalidArgumentError(Failed("ppoll", fds_[0].fd, EBADF));
    }
    return fds_[0].revents;
  }

  void Block(const internal::Sleeper&, internal::Instant until) override {
    Poll(internal::TimeUntil(until));
  }

  void Interrupt() override {
    const uint64_t ring = 1;
    [[maybe_unused]] ssize_t size = write(fds_[1].fd, &ring, sizeof(ring));
  }

 private:
  pollfd fds_[2];
  int error_ = 0;
};

}  // namespace

absl::Status Sleep(absl::Duration duration) {
  const internal::Instant until = internal::After(duration);
  internal::Sleeper sleeper("Sleep()", until, internal::Sleeper::WithOthers());
  while (true) {
    if (absl::Status status = CheckCancelled(); !status.ok()) return status;
    if (until <= internal::Now()) return absl::OkStatus();
    sleeper.Sleep().IgnoreError();
  }
}

absl::Status SleepUntil(absl::Time time) {
  return Sleep(time - internal::WallNow());
}

absl::StatusOr<short> PollFd(int fd, short events) {
  if (fd < 0) {  // which poll(2) would ignore
    return absl::InvalidArgumentError(Failed("ppoll", fd, EBADF));
  }
  if (absl::Status status = CheckCancelled(); !status.ok()) return status;
  PollCall call(fd, events);
  call.Poll(absl::ZeroDuration());
  if (call.over()) return call.Result();
  if (internal::current_scope != nullptr) {
    if (absl::Status status = call.OpenDoorbell(); !status.ok()) return status;
  }
  internal::Sleeper sleeper("PollFd()", internal::kNever, &call);
  while (true) {
    absl::Status status = sleeper.Sleep();
    if (call.over()) return call.Result();
    if (!status.ok()) return status;
  }
}

}  // namespace tocsin::inline v0_2
