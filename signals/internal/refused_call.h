// What a caller is told of a system call that the system refuses, whatever its
// arguments: by a filter, or because it does not have it.
//
// Any thread may ask for it.
#ifndef TOCSIN_SIGNALS_INTERNAL_REFUSED_CALL_H_
#define TOCSIN_SIGNALS_INTERNAL_REFUSED_CALL_H_

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

// Whether an errno may mean that: filters answer with one of the first three,
// and a kernel or an emulator that does not know a flag with the last.
inline bool IsRefusal(int error) {
  return error == EPERM || error == EACCES || error == ENOSYS ||
         error == EINVAL;
}

// kUnimplemented if the system says that it does not have the call, and else
// kFailedPrecondition.
inline absl::Status RefusedCall(absl::string_view call,
                                absl::string_view purpose, int error) {
  return absl::Status(
      error == ENOSYS ? absl::StatusCode::kUnimplemented
                      : absl::StatusCode::kFailedPrecondition,
      absl::StrCat(call, " for ", purpose, ": ", std::strerror(error),
                   "; usually a seccomp filter refuses it, of a container "
                   "(docker, podman, Kubernetes), of snap or of systemd's "
                   "SystemCallFilter=, or an emulator does not have it: allow "
                   "it there"));
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_REFUSED_CALL_H_
