#include "tocsin/concurrency/internal/birth_state.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>

#include "absl/strings/string_view.h"
#include "tocsin/concurrency/internal/create_thread.h"
#include "tocsin/concurrency/internal/futex.h"
#include "tocsin/concurrency/internal/mask_request.h"

namespace tocsin::inline v0_2::internal {

namespace {

bool OnMainThread() { return syscall(SYS_gettid) == getpid(); }

// The kernel tells it of the calling thread only.
std::atomic<int> slack_of_main{prctl(PR_GET_TIMERSLACK)};

// What sched_setattr(2) takes.
struct Scheduling {
  uint32_t size = sizeof(Scheduling);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;
  uint64_t deadline = 0;
  uint64_t period = 0;

  friend bool operator==(const Scheduling&, const Scheduling&) = default;
};

constexpr uint32_t kDeadlinePolicy = 6;

// Of a thread that thread `tid` makes.
std::optional<Scheduling> SchedulingOfChildren(pid_t tid) {
  Scheduling of;
  if (syscall(SYS_sched_getattr, tid, &of, sizeof(of), 0) != 0) {
    return std::nullopt;
  }
  Scheduling made;
  const bool fair = of.policy != SCHED_FIFO && of.policy != SCHED_RR &&
                    of.policy != kDeadlinePolicy;
  // SCHED_FLAG_RESET_ON_FORK; a thread with deadlines makes no others.
  if ((of.flags & 1) != 0 || of.policy == kDeadlinePolicy) {
    made.policy = fair ? of.policy : SCHED_OTHER;
    made.nice = std::max(of.nice, 0);
  } else {
    made.policy = of.policy;
    made.nice = of.nice;
    made.priority = of.priority;
  }
  return made;
}

bool TakeScheduling(pid_t main) {
  const std::optional<Scheduling> wanted = SchedulingOfChildren(main);
  return !wanted.has_value() || wanted == SchedulingOfChildren(0) ||
         syscall(SYS_sched_setattr, 0, &*wanted, 0) == 0;
}

// The system call, which returns how much it wrote, and not the function, which
// clears the rest.
class Affinity {
 public:
  explicit Affinity(pid_t tid) {
    const auto size = syscall(SYS_sched_getaffinity, tid, sizeof(cpus_), cpus_);
    if (size > 0) size_ = static_cast<size_t>(size);
  }

  bool Known() const { return size_ > 0; }
  bool Set() const {
    return syscall(SYS_sched_setaffinity, 0, size_, cpus_) == 0;
  }

  friend bool operator==(const Affinity& a, const Affinity& b) {
    return a.size_ == b.size_ && std::memcmp(a.cpus_, b.cpus_, a.size_) == 0;
  }

 private:
  unsigned long cpus_[128];  // NOLINT(runtime/int): the kernel's
  size_t size_ = 0;          // 0 where it is not told
};

bool TakeAffinity(pid_t main) {
  const Affinity wanted(main);
  return !wanted.Known() || wanted == Affinity(0) || wanted.Set();
}

bool TakeIoPriority(pid_t main) {
  constexpr int kThread = 1;  // IOPRIO_WHO_PROCESS
  const auto wanted = syscall(SYS_ioprio_get, kThread, main);
  return wanted < 0 || wanted == syscall(SYS_ioprio_get, kThread, 0) ||
         syscall(SYS_ioprio_set, kThread, 0, wanted) == 0;
}

bool HasSchedulingOfMain() {
  const pid_t main = getpid();
  return SchedulingOfChildren(main) == SchedulingOfChildren(0) &&
         Affinity(main) == Affinity(0) &&
         syscall(SYS_ioprio_get, 1, main) == syscall(SYS_ioprio_get, 1, 0);
}

// In /proc, what "self" links to is the main thread.
constexpr const char* kMain = "/proc/self/";
constexpr const char* kThis = "/proc/thread-self/";

class Link {
 public:
  Link(const char* task, const char* name) {
    char path[64];
    std::snprintf(path, sizeof(path), "%s%s", task, name);
    const ssize_t size = readlink(path, text_, sizeof(text_));
    if (size > 0) size_ = static_cast<size_t>(size);
  }

  bool Known() const { return size_ > 0; }

  friend bool operator==(const Link& a, const Link& b) {
    return a.size_ == b.size_ && std::memcmp(a.text_, b.text_, a.size_) == 0;
  }

 private:
  char text_[512];
  size_t size_ = 0;
};

bool SameLink(const char* name) {
  const Link main(kMain, name);
  return !main.Known() || main == Link(kThis, name);
}

// The lines of a status file that tell what a thread may do, as hashes.
struct Rights {
  uint64_t user = 0;
  uint64_t filters = 0;
  uint64_t umask = 0;
};

std::optional<Rights> ReadRights(const char* task) {
  char path[64];
  std::snprintf(path, sizeof(path), "%sstatus", task);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char text[4096];
  const ssize_t size = read(fd, text, sizeof(text));
  close(fd);
  if (size < 0) return std::nullopt;
  Rights rights;
  absl::string_view rest(text, static_cast<size_t>(size));
  while (!rest.empty()) {
    const absl::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    auto is = [&](absl::string_view key) {
      return line.substr(0, key.size()) == key;
    };
    uint64_t* hash = nullptr;
    if (is("Uid:") || is("Gid:") || is("Groups:") || is("Cap")) {
      hash = &rights.user;
    } else if (is("NoNewPrivs:") || is("Seccomp")) {
      hash = &rights.filters;
    } else if (is("Umask:")) {
      hash = &rights.umask;
    }
    if (hash == nullptr) continue;
    for (char c : line) {
      *hash = (*hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    }
  }
  return rights;
}

// 0 if this thread and the main thread share it, 1 if not, -1 if the kernel or
// a filter does not tell.
int Unshared(int what) {
  const auto order =
      syscall(SYS_kcmp, getpid(), syscall(SYS_gettid), what, 0, 0);
  return order <= 0 ? static_cast<int>(order) : 1;
}

// A thread that is told whether it could be made like others, and ends if not.
struct Trial {
  void* (*run)(void*);
  void* argument;
  std::atomic<uint32_t> outcome{0};
};
constexpr uint32_t kLikeMain = 1;
constexpr uint32_t kUnlikeMain = 2;

void* RunTrial(void* of) {
  auto& trial = *static_cast<Trial*>(of);
  const auto run = trial.run;
  void* const argument = trial.argument;
  const bool like_main = BeBorn();
  trial.outcome = like_main ? kLikeMain : kUnlikeMain;
  FutexWakeOne(&trial.outcome);  // it may be gone; a stray wake-up does no harm
  return like_main ? run(argument) : nullptr;
}

}  // namespace

const char* Name(Bond bond) {
  switch (bond) {
    case Bond::kNone:
      return "nothing";
    case Bond::kUser:
      return "a user id, a group or a capability";
    case Bond::kFilters:
      return "a seccomp filter or no_new_privs";
    case Bond::kNamespaces:
      return "a namespace";
    case Bond::kDirectories:
      return "a working directory, a root or an umask";
    case Bond::kDescriptors:
      return "a table of descriptors";
    case Bond::kScheduling:
      return "an affinity, a nice value or a scheduling policy";
  }
  return "";
}

bool BeBorn(BirthMask mask) {
  if (mask == BirthMask::kOfBlocks) {
    const sigset_t blocked = MaskRequest::AllSignals();
    pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
  }
  std::fesetenv(FE_DFL_ENV);
  prctl(PR_SET_TIMERSLACK, slack_of_main.load(std::memory_order_relaxed));
  const pid_t main = getpid();
  bool like_main = TakeScheduling(main);
  like_main &= TakeAffinity(main);
  like_main &= TakeIoPriority(main);
  return like_main;
}

Bond FindBond() {
  if (OnMainThread()) return Bond::kNone;
  const Link network(kMain, "ns/net");
  if (!network.Known()) return Bond::kNone;
  const std::optional<Rights> main = ReadRights(kMain);
  const std::optional<Rights> own =
      main.has_value() ? ReadRights(kThis) : std::nullopt;
  if (own.has_value()) {
    if (main->user != own->user) return Bond::kUser;
    if (main->filters != own->filters) return Bond::kFilters;
  }
  if (network != Link(kThis, "ns/net")) return Bond::kNamespaces;
  for (const char* name : {"ns/uts", "ns/ipc", "ns/cgroup"}) {
    if (!SameLink(name)) return Bond::kNamespaces;
  }
  const int unshared = Unshared(KCMP_FS);
  if (unshared > 0 ||
      (unshared < 0 &&
       ((own.has_value() && main->umask != own->umask) || !SameLink("ns/mnt") ||
        !SameLink("cwd") || !SameLink("root")))) {
    return Bond::kDirectories;
  }
  if (Unshared(KCMP_FILES) > 0) return Bond::kDescriptors;
  return Bond::kNone;
}

int CreateLikeMain(pthread_t& thread, void* (*run)(void*), void* argument,
                   bool as_born) {
  if (OnMainThread()) {
    slack_of_main.store(prctl(PR_GET_TIMERSLACK), std::memory_order_relaxed);
  } else if (const Bond bond = as_born ? Bond::kNone : FindBond();
             bond != Bond::kNone) {
    return -static_cast<int>(bond);
  } else if (!HasSchedulingOfMain()) {
    Trial trial{.run = run, .argument = argument};
    if (const int error = CreateThread(thread, RunTrial, &trial); error != 0) {
      return error;
    }
    while (trial.outcome == 0) FutexWait(trial.outcome, 0);
    if (trial.outcome == kLikeMain) return 0;
    pthread_join(thread, nullptr);
    return -static_cast<int>(Bond::kScheduling);
  }
  return CreateThread(thread, run, argument);
}

}  // namespace tocsin::inline v0_2::internal
