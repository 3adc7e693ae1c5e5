// The state in which the threads of the library are born.
//
// A new thread inherits the state of the one that makes it. Which one that is
// is chance where a thread serves the whole process, such as a pool's. So a
// thread first takes what it can from the main thread, whoever made it, and is
// not made by a thread of which it would keep the rest.
//
// Taken: CPU affinity, scheduling policy, priority and nice value, I/O
// priority, as a thread has them that the main thread makes; the timer slack
// that the main thread had when it last made a thread of the library, or the
// loading one when the library was loaded. The floating-point environment is
// the default. Blocked are the signals of MaskRequest::AllSignals().
//
// Any thread may call these. They take no memory.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_BIRTH_STATE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_BIRTH_STATE_H_

#include <pthread.h>

namespace tocsin::inline v0_2::internal {

// What a thread has otherwise than the main thread, and those that it makes
// would keep.
enum class Bond : int {
  kNone,
  kUser,         // user ids, groups, capabilities
  kFilters,      // seccomp, no_new_privs
  kNamespaces,   // network, UTS, IPC, cgroup; others imply kDirectories
  kDirectories,  // working directory, root, umask: unshare(CLONE_FS)
  kDescriptors,  // unshare(CLONE_FILES)
  kScheduling,   // a nice value, policy or affinity that it may not change back
};

// "a user id, a group or a capability", ...
const char* Name(Bond bond);

enum class BirthMask { kOfBlocks, kInherited };

// The first call of a new thread. False if there is something that it may not
// change: what is told as kScheduling.
bool BeBorn(BirthMask mask = BirthMask::kOfBlocks);

// Of the calling thread. kScheduling is not looked for. What /proc does not
// show is not found: where it is not mounted, while no descriptor is left, or
// once the main thread has ended.
Bond FindBond();

// CreateThread(), with `run` called in the state of the main thread. Returns
// 0, the errno, or the number of a Bond of the calling thread, negated: then
// there is no thread, because it could not be made like others. It is looked
// for unless the calling thread was made so and has run no code of the program
// that may have left it otherwise: `as_born`.
int CreateLikeMain(pthread_t& thread, void* (*run)(void*), void* argument,
                   bool as_born = false);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_BIRTH_STATE_H_
