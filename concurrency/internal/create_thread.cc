#include "tocsin/concurrency/internal/create_thread.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

// A static program has neither, and nothing that could be unloaded.
#pragma weak dladdr1
#pragma weak dlopen

namespace tocsin::inline v0_2::internal {

namespace {

// Threads of the library last as long as the process. The C library calls it at
// the end of each thread that has used a pool, and other code may call a
// handler that it has displaced. So dlclose(3) leaves the shared object mapped
// that has this code. It is kept as it is loaded: the lock that dlopen(3) takes
// is held then, and no other.
bool KeepMapped() {
  if (dladdr1 == nullptr || dlopen == nullptr) return false;
  Dl_info info;
  void* self = nullptr;
  if (dladdr1(reinterpret_cast<const void*>(&KeepMapped), &info, &self,
              RTLD_DL_LINKMAP) == 0) {
    return false;
  }
  const char* const name = static_cast<const link_map*>(self)->l_name;
  if (*name == '\0') return true;  // the program
  return dlopen(name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) != nullptr;
}

[[maybe_unused]] const bool kept_mapped = KeepMapped();

}  // namespace

int CreateThread(pthread_t& thread, void* (*run)(void*), void* argument) {
  return pthread_create(&thread, nullptr, run, argument);
}

}  // namespace tocsin::inline v0_2::internal
