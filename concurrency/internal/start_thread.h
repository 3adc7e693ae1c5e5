// Starts the threads of the library that do one thing.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_START_THREAD_H_
#define TOCSIN_CONCURRENCY_INTERNAL_START_THREAD_H_

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tocsin/concurrency/internal/birth_state.h"
#include "tocsin/concurrency/internal/create_thread.h"
#include "tocsin/concurrency/internal/error_text.h"

namespace tocsin::inline v0_2::internal {

struct ThreadName {
  static constexpr size_t kSize = 16;  // of the kernel, with the NUL

  template <size_t size>
  consteval ThreadName(const char (&name)[size]) {  // NOLINT(*-explicit-*)
    static_assert(size <= kSize);
    std::copy_n(name, size, text);
  }

  char text[kSize] = {};
};

// A thread of that name calls (object->*kRun)(), in the state of birth_state.h
// but for what the calling thread binds it to. Returns the errno.
template <auto kRun, ThreadName kName, BirthMask kMask = BirthMask::kOfBlocks,
          typename T>
int StartThread(pthread_t& thread, T* object) {
  auto run = [](void* argument) -> void* {
    BeBorn(kMask);
    pthread_setname_np(pthread_self(), kName.text);
    (static_cast<T*>(argument)->*kRun)();
    return nullptr;
  };
  return CreateThread(thread, run, object);
}

// What a caller is told of that errno, or of a Bond, negated.
inline absl::Status NoThread(absl::string_view purpose, int error) {
  if (error < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no thread for ", purpose, ": if this thread made it, it would keep ",
        Name(static_cast<Bond>(-error)),
        " that is not the main thread's; let the main thread, or one like it, "
        "spawn first, or wait for the group, which runs its tasks"));
  }
  const char* refused =
      error == EPERM ? "; a seccomp filter refuses clone3(2), as docker's "
                       "before 20.10.10 does: let it answer ENOSYS"
                     : "";
  return absl::ResourceExhaustedError(absl::StrCat(
      "pthread_create for ", purpose, ": ", ErrorText(error), refused));
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_START_THREAD_H_
