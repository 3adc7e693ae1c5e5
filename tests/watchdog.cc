#include "tests/watchdog.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>

#include "absl/base/config.h"

namespace tocsin {
namespace {

int MostSeconds() {
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
  return 60;
#else
  // Where Bazel measures the coverage, each process writes its counts at the
  // end.
  return std::getenv("COVERAGE_DIR") != nullptr ? 60 : 7;
#endif
}

constexpr size_t kLooksAtStandstill = 25;
// Of these so many may find somebody at work, and they may have worked a
// hundredth of the time: some threads look around while others wait for ever.
constexpr int64_t kMayRun = 2;
constexpr int kShareAtWork = 100;

// What is behind the command of a stat file, from the state on. Nothing if the
// task is gone.
std::vector<std::string> Fields(const std::string& task) {
  std::ifstream file("/proc/" + task + "/stat");
  std::string stat;
  std::getline(file, stat);
  const size_t end = stat.rfind(')');
  if (end == std::string::npos) return {};
  std::istringstream words(stat.substr(end + 1));
  return {std::istream_iterator<std::string>(words), {}};
}
enum Field { kState = 0, kParent = 1, kUser = 11, kSystem = 12 };
enum { kUserOfChildren = 13, kSystemOfChildren = 14 };

std::vector<std::string> Entries(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code gone;
  for (std::filesystem::directory_iterator it(folder, gone), end;
       !gone && it != end; it.increment(gone)) {
    names.push_back(it->path().filename().string());
  }
  return names;
}

// The process and all below it.
std::vector<pid_t> Tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  for (const std::string& name : Entries("/proc")) {
    if (name[0] < '0' || name[0] > '9') continue;
    const std::vector<std::string> fields = Fields(name);
    if (fields.empty()) continue;
    children.emplace(std::stoi(fields[kParent]), std::stoi(name));
  }
  std::vector<pid_t> tree = {root};
  for (size_t i = 0; i < tree.size(); ++i) {
    const auto [first, last] = children.equal_range(tree[i]);
    for (auto child = first; child != last; ++child) {
      tree.push_back(child->second);
    }
  }
  return tree;
}

std::vector<std::string> ThreadsOf(pid_t process) {
  const std::string folder = std::to_string(process) + "/task";
  std::vector<std::string> threads = Entries("/proc/" + folder);
  for (std::string& thread : threads) thread = folder + "/" + thread;
  return threads;
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string CallName(long number) {
  switch (number) {
    case SYS_futex:
      return "futex";
    case SYS_read:
      return "read";
    case SYS_write:
      return "write";
    case SYS_ppoll:
      return "ppoll";
    case SYS_wait4:
      return "wait4";
    case SYS_waitid:
      return "waitid";
    case SYS_rt_sigtimedwait:
      return "rt_sigtimedwait";
    case SYS_rt_sigsuspend:
      return "rt_sigsuspend";
    case SYS_nanosleep:
      return "nanosleep";
    case SYS_clock_nanosleep:
      return "clock_nanosleep";
    case SYS_epoll_pwait:
      return "epoll_pwait";
    case SYS_sched_yield:
      return "sched_yield";
#ifdef SYS_poll
    case SYS_poll:
      return "poll";
    case SYS_pause:
      return "pause";
    case SYS_select:
      return "select";
#endif
  }
  return "system call " + std::to_string(number);
}

// In words, of a thread as /proc calls it.
std::string WaitsFor(pid_t process, const std::string& thread) {
  const std::vector<std::string> fields = Fields(thread);
  if (fields.empty()) return "has ended";
  std::istringstream call(FirstLine("/proc/" + thread + "/syscall"));
  long number = -1;
  std::string argument;
  if (fields[kState] == "R" || !(call >> number)) {
    return "runs (" + fields[kState] + ")";
  }
  std::string words = "waits in " + CallName(number);
  if (number == SYS_read || number == SYS_write) {
    call >> argument;
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(
        "/proc/" + std::to_string(process) + "/fd/" +
            std::to_string(std::strtol(argument.c_str(), nullptr, 16)),
        gone);
    if (!gone) words += " of " + target.string();
  }
  return words + " (" + fields[kState] + ")";
}

// The stacks of all its threads, where there is a debugger.
void ReportStacks(pid_t process) {
  constexpr char kDebugger[] = "/usr/bin/gdb";
  if (access(kDebugger, X_OK) != 0) return;
  const std::string id = std::to_string(process);
  std::fflush(stderr);
  const pid_t debugger = fork();
  if (debugger == 0) {
    sigset_t none;  // it needs SIGCHLD
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    // What it has to say of itself.
    dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
    alarm(20);  // it might hang, too
    execl(kDebugger, kDebugger, "-q", "-nx", "-batch", "-p", id.c_str(), "-ex",
          "thread apply all backtrace 10", static_cast<char*>(nullptr));
    _exit(1);
  }
  int status;
  while (waitpid(debugger, &status, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

bool Watchdog::Hangs() {
  Look look{.worked = 0, .runs = false};
  for (pid_t process : Tree(child_)) {
    const std::vector<std::string> fields = Fields(std::to_string(process));
    if (fields.empty()) continue;
    look.worked += std::stoll(fields[kUser]) + std::stoll(fields[kSystem]) +
                   std::stoll(fields[kUserOfChildren]) +
                   std::stoll(fields[kSystemOfChildren]);
    for (const std::string& thread : ThreadsOf(process)) {
      const std::vector<std::string> of_thread = Fields(thread);
      look.runs |= !of_thread.empty() &&
                   (of_thread[kState] == "R" || of_thread[kState] == "D");
    }
  }
  const uint32_t cases = under_way_.cases.load();
  if (cases != case_) {
    case_ = cases;
    looks_.clear();
    worked_before_ = look.worked;
  }
  const uint32_t times = std::max(1u, under_way_.times_long.load());
  const size_t looks_at_standstill = kLooksAtStandstill * times;
  looks_.push_back(look);
  if (looks_.size() > looks_at_standstill) looks_.pop_front();

  const int64_t ticks = sysconf(_SC_CLK_TCK);
  const int64_t most = int64_t{MostSeconds()} * times;
  if (look.worked - worked_before_ > most * ticks) {
    wrong_ = "runs on: it has taken more than " + std::to_string(most) +
             " s of the processors";
    return true;
  }
  const auto running = std::count_if(looks_.begin(), looks_.end(),
                                     [](const Look& l) { return l.runs; });
  const auto seconds = static_cast<int64_t>(looks_at_standstill) *
                       kMillisecondsBetweenLooks / 1000;
  if (looks_.size() == looks_at_standstill && running <= kMayRun * times &&
      look.worked - looks_.front().worked <= seconds * ticks / kShareAtWork) {
    wrong_ =
        "stands still: for " + std::to_string(seconds) + " s nobody has run";
    return true;
  }
  return false;
}

void Watchdog::Report(const std::string& wrong) const {
  std::fprintf(stderr, "\n%s: %s\n", under_way_.name, wrong.c_str());
  for (pid_t process : Tree(child_)) {
    const std::string id = std::to_string(process);
    std::fprintf(stderr, "  process %s (%s)\n", id.c_str(),
                 FirstLine("/proc/" + id + "/comm").c_str());
    for (const std::string& thread : ThreadsOf(process)) {
      std::fprintf(stderr, "    %s (%s) %s\n",
                   thread.substr(thread.rfind('/') + 1).c_str(),
                   FirstLine("/proc/" + thread + "/comm").c_str(),
                   WaitsFor(process, thread).c_str());
    }
  }
  ReportStacks(child_);
}

void Watchdog::KillAll() const {
  // Stopped first, so that none makes another meanwhile.
  const std::vector<pid_t> tree = Tree(child_);
  for (pid_t process : tree) kill(process, SIGSTOP);
  for (pid_t process : Tree(child_)) kill(process, SIGKILL);
  for (pid_t process : tree) kill(process, SIGKILL);
}

}  // namespace tocsin
