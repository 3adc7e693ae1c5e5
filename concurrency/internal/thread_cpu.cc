#include "tocsin/concurrency/internal/thread_cpu.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

void ThreadCpu::Enter() {
  if (pthread_getcpuclockid(pthread_self(), &clock_) != 0) clock_ = -1;
  id_.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_release);
}

std::optional<std::chrono::nanoseconds> ThreadCpu::Used() const {
  timespec used;
  if (id_.load(std::memory_order_acquire) == 0 ||
      clock_gettime(clock_, &used) != 0) {
    return std::nullopt;
  }
  return std::chrono::seconds(used.tv_sec) +
         std::chrono::nanoseconds(used.tv_nsec);
}

bool ThreadCpu::IsRunnable() const {
  const pid_t id = id_.load(std::memory_order_acquire);
  if (id == 0) return true;
  char path[48];
  std::snprintf(path, sizeof(path), "/proc/self/task/%d/stat", id);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  // "7 (name) R 1 ...": a name has at most 15 bytes, and may have parentheses.
  char text[64];
  const ssize_t size = read(fd, text, sizeof(text));
  close(fd);
  if (size < 0) return false;
  const absl::string_view stat(text, static_cast<size_t>(size));
  const size_t name_ends = stat.rfind(')');
  return name_ends != stat.npos && stat.substr(name_ends, 4) == ") R ";
}

}  // namespace tocsin::inline v0_2::internal
