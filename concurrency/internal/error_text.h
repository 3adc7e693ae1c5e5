// The text of an errno of a call that makes a thread, a process or a file
// descriptor. If a limit was reached, it names the limit.
//
// Any thread may ask for it.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_ERROR_TEXT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_ERROR_TEXT_H_

#include <cerrno>
#include <cstring>
#include <string>

namespace tocsin::inline v0_2::internal {

inline std::string ErrorText(int error) {
  std::string text = std::strerror(error);
  switch (error) {
    case EAGAIN:
      text += "; raise RLIMIT_NPROC (ulimit -u) or the cgroup's pids.max";
      break;
    case EMFILE:
      text += "; raise RLIMIT_NOFILE (ulimit -n) or close descriptors";
      break;
    case ENFILE:
      text += "; raise the system's fs.file-max";
      break;
  }
  return text;
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_ERROR_TEXT_H_
