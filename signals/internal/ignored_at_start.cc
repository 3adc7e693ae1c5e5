#include "tocsin/signals/internal/ignored_at_start.h"

#include <dlfcn.h>
#include <link.h>

#include <csignal>
#include <cstring>

namespace tocsin::inline v0_2::internal {
namespace {

// A mask as in the kernel.
constinit uint64_t ignored_at_start = 0;

constexpr uint64_t Bit(int signum) { return uint64_t{1} << (signum - 1); }

// What a parent ignores on purpose: nohup(1), and a shell for what it starts in
// the background. A plug-in's host is more likely to ignore others itself.
constexpr uint64_t kOfParents = Bit(SIGHUP) | Bit(SIGINT) | Bit(SIGQUIT);

const char* FileName(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

const char* Strings(const link_map& object) {
  for (const ElfW(Dyn)* entry = object.l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag != DT_STRTAB) continue;
    // The loader has made addresses of the offsets, except in the vDSO, which
    // it cannot write to.
    const ElfW(Addr) table = entry->d_un.d_ptr;
    return reinterpret_cast<const char*>(
        table < object.l_addr ? object.l_addr + table : table);
  }
  return "";
}

bool IsNamed(const link_map& object, const char* name) {
  if (std::strcmp(FileName(object.l_name), name) == 0) return true;
  for (const ElfW(Dyn)* entry = object.l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag != DT_SONAME) continue;
    return std::strcmp(FileName(Strings(object) + entry->d_un.d_val), name) ==
           0;
  }
  return false;
}

bool Needs(const link_map& object, const link_map& other) {
  for (const ElfW(Dyn)* entry = object.l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_NEEDED &&
        IsNamed(other, FileName(Strings(object) + entry->d_un.d_val))) {
      return true;
    }
  }
  return false;
}

// Whether this code was loaded with the program, and not by dlopen(3) later,
// for which there is no call to ask. The loader lists the program first, then
// what LD_PRELOAD names, then what either needs, each behind the first object
// that needs it, and at the end what is loaded later. The first of these that
// was asked for is needed by nothing before it.
bool CameWithTheProgram() {
  Dl_info info;
  link_map* object = nullptr;
  if (dladdr1(&ignored_at_start, &info, reinterpret_cast<void**>(&object),
              RTLD_DL_LINKMAP) == 0 ||
      object == nullptr) {
    return true;  // all in one file, without a loader
  }
  const link_map* const program = _r_debug.r_map;
  const link_map* first = object;
  while (first->l_prev != nullptr) first = first->l_prev;
  if (first != program) return false;  // by dlmopen(3), in a list of its own
  while (object != program) {
    link_map* by = _r_debug.r_map;
    while (by != object && !Needs(*by, *object)) by = by->l_next;
    if (by == object) break;
    object = by;
  }
  // Named by LD_PRELOAD, it stands before all that the program needs.
  for (const link_map* before = program; before != object;
       before = before->l_next) {
    if (Needs(*program, *before)) return false;
  }
  return true;
}

// Before any code of the program runs, if this code came with it: what the
// program itself ignores, for example SIGPIPE, is not its parent's choice.
[[gnu::constructor(101)]] void RememberIgnored() {
  for (int signum = 1; signum <= SIGRTMAX; ++signum) {
    struct sigaction action;
    if (sigaction(signum, nullptr, &action) == 0 &&
        action.sa_handler == SIG_IGN) {
      ignored_at_start |= Bit(signum);
    }
  }
  if (ignored_at_start != 0 && !CameWithTheProgram()) {
    ignored_at_start &= kOfParents;
  }
}

}  // namespace

uint64_t IgnoredAtStart() { return ignored_at_start; }

}  // namespace tocsin::inline v0_2::internal
