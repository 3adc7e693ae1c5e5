// A plug-in with a ChildProcess of its own, for programs without one.
#include <unistd.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "tocsin/signals/child_process.h"

// What a child of its ignores, as a mask; ~0 if there is none.
extern "C" __attribute__((visibility("default"))) uint64_t
late_plugin_child_ignores() {
  auto child = tocsin::ChildProcess::Spawn(
      {"cat", "/proc/self/status"}, {.output = tocsin::ChildStream::Pipe()});
  if (!child.ok()) return ~uint64_t{0};
  std::string status;
  char buffer[4096];
  for (ssize_t size;
       (size = read(child->stdout_pipe(), buffer, sizeof(buffer))) > 0;) {
    status.append(buffer, static_cast<size_t>(size));
  }
  if (!child->Wait().ok()) return ~uint64_t{0};
  return std::stoull(status.substr(status.find("SigIgn:") + 7), nullptr, 16);
}
