// main() of every test program.
//
// The tests run in a child process that starts from a known state, whatever
// this one was started with, by nohup(1), cron(8) or a script: all signals have
// their default action and none is blocked or pending, no timer runs, and
// descriptors 0 to 2 are open. This process is the watchdog of that one
// (watchdog.h), and ends as it does.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "tests/watchdog.h"

namespace tocsin {
namespace {

// Before the descriptor, in the parent, of the memory that both have.
constexpr std::string_view kWatched = "--watched_through=";

UnderWay* under_way = nullptr;

class Announcer final : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& info) override {
    snprintf(under_way->name, sizeof(under_way->name), "%s.%s",
             info.test_suite_name(), info.name());
    under_way->times_long.store(1);
    under_way->cases.fetch_add(1);
  }
  // What comes behind the last case can hang, too.
  void OnTestProgramEnd(const testing::UnitTest&) override {
    snprintf(under_way->name, sizeof(under_way->name), "the end of main()");
    under_way->cases.fetch_add(1);
  }
};

// Null in a child that a death test runs once more with the same arguments.
UnderWay* MapOfParent(std::string_view descriptor) {
  const std::string path =
      "/proc/" + std::to_string(getppid()) + "/fd/" + std::string(descriptor);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0 || status.st_size != sizeof(UnderWay)) {
    if (fd >= 0) close(fd);
    return nullptr;
  }
  void* const map = mmap(nullptr, sizeof(UnderWay), PROT_READ | PROT_WRITE,
                         MAP_SHARED, fd, 0);
  close(fd);
  return map == MAP_FAILED ? nullptr : static_cast<UnderWay*>(map);
}

void OpenStandardStreams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest that is free, which is this one.
    if (open("/dev/null", O_RDWR) != fd) abort();
  }
}

void ResetSignals() {
  const itimerval none = {};
  for (int timer : {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}) {
    setitimer(static_cast<__itimer_which_t>(timer), &none, nullptr);
  }
  // By the kernel's own call: the C library keeps its hands on 32 and 33, which
  // Bazel's sandbox leaves ignored.
  struct {
    void (*handler)(int);
    unsigned long flags = 0;
    void* restorer = nullptr;
    uint64_t mask = 0;
  } action;
  for (int signum = 1; signum <= 64; ++signum) {
    for (auto handler :
         {SIG_IGN, SIG_DFL}) {  // the first drops what is pending
      action.handler = handler;
      syscall(SYS_rt_sigaction, signum, &action, nullptr, sizeof(action.mask));
    }
  }
}

int RunTests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, kWatched.size()) != kWatched) continue;
    under_way = MapOfParent(argument.substr(kWatched.size()));
  }
  if (under_way != nullptr) {
    testing::UnitTest::GetInstance()->listeners().Append(new Announcer);
  }
  return RUN_ALL_TESTS();
}

// Returns the exit status.
int Watch(pid_t child) {
  Watchdog watchdog(child, *under_way);
  sigset_t wakes;
  sigemptyset(&wakes);
  for (int signum : {SIGCHLD, SIGINT, SIGTERM}) sigaddset(&wakes, signum);
  while (true) {
    int status;
    pid_t ended;
    // As process 1 it has others to reap.
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended != child) continue;
      if (WIFEXITED(status)) return WEXITSTATUS(status);
      std::fprintf(stderr, "\n%s: dies by signal %d (%s)\n", under_way->name,
                   WTERMSIG(status), strsignal(WTERMSIG(status)));
      return 128 + WTERMSIG(status);
    }
    const timespec pause = {
        .tv_sec = 0,
        .tv_nsec = Watchdog::kMillisecondsBetweenLooks * 1'000'000};
    const int signum = sigtimedwait(&wakes, nullptr, &pause);
    if (signum == SIGINT || signum == SIGTERM) {
      if (signum == SIGTERM) watchdog.Report("is ended by SIGTERM");
      watchdog.KillAll();
      return 128 + signum;
    }
    if (signum < 0 && watchdog.Hangs()) {
      watchdog.Report(watchdog.wrong());
      watchdog.KillAll();
      return 1;
    }
  }
}

int Guard(int argc, char** argv) {
  OpenStandardStreams();
  ResetSignals();
  const int memory = memfd_create("tocsin-test", MFD_CLOEXEC);
  if (memory < 0 || ftruncate(memory, sizeof(UnderWay)) != 0) abort();
  void* const map = mmap(nullptr, sizeof(UnderWay), PROT_READ | PROT_WRITE,
                         MAP_SHARED, memory, 0);
  if (map == MAP_FAILED) abort();
  under_way = new (map) UnderWay{};
  snprintf(under_way->name, sizeof(under_way->name), "before the first test");

  std::string marker = std::string(kWatched) + std::to_string(memory);
  std::vector<char*> arguments(argv, argv + argc);
  arguments.push_back(marker.data());
  arguments.push_back(nullptr);

  sigset_t blocked;
  sigemptyset(&blocked);
  for (int signum : {SIGCHLD, SIGINT, SIGTERM}) sigaddset(&blocked, signum);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child < 0) abort();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self) _exit(1);  // it has ended before
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execv(std::filesystem::read_symlink("/proc/self/exe").c_str(),
          arguments.data());
    std::perror("execv");
    _exit(1);
  }
  return Watch(child);
}

}  // namespace

void AllowLongRun(int times) {
  if (under_way != nullptr) {
    under_way->times_long.store(static_cast<uint32_t>(times));
  }
}

}  // namespace tocsin

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == tocsin::kAsStarted ||
        argument.substr(0, tocsin::kWatched.size()) == tocsin::kWatched) {
      return tocsin::RunTests(argc, argv);
    }
  }
  // No destructor, no leak check: this one does nothing but wait.
  _exit(tocsin::Guard(argc, argv));
}
