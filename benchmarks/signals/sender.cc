// Runs a receiver program, sends it signals and prints what came of it.
//
//   sender [OPTION]... RECEIVER [ARGUMENT]...
//     --contender=NAME    what the receiver is called in the output
//     --fanout=N[,N]...   it can receive with so many receivers at a time
//     --allocations       it counts its allocations
//     --crowd             it can measure with 999 others open
//     --latency-only      it has the cases latency_... and no others
//     --list              prints the cases, one per line
//     --quick             before --case: measures little, to see that it works
//     --case=NAME         runs a case and prints an object in JSON per line
//
// Latency is the time from before kill(2) to when the receiver, back in its own
// code, has read the clock. Signals are sent one at a time: the next one only
// when the last was answered and its receiver had time to wait again.

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tocsin/benchmarks/signals/answer_sheet.h"

namespace tocsin::benchmarks {
namespace {

constexpr uint64_t kMicrosecond = 1'000;
constexpr uint64_t kMillisecond = 1'000 * kMicrosecond;
constexpr uint64_t kSecond = 1'000 * kMillisecond;

// Long enough for a receiver in Python to be back in its wait.
constexpr uint64_t kPause = 150 * kMicrosecond;
// A receiver that has not answered by then never will.
constexpr uint64_t kPatience = 10 * kSecond;

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

void Sleep(uint64_t ns) {
  const timespec time{static_cast<time_t>(ns / kSecond),
                      static_cast<long>(ns % kSecond)};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

void Spin(uint64_t ns) {
  const uint64_t end = MonotonicNanoseconds() + ns;
  while (MonotonicNanoseconds() < end) {
  }
}

using Cpus = std::vector<int>;

// Those that this process may run on; taskset(1) chooses them.
Cpus AllowedCpus() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof(set), &set);
  Cpus cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void RunOn(const Cpus& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

class Process {
 public:
  explicit Process(const std::function<void()>& body) {
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ < 0) Fail("fork() failed");
    if (pid_ > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) body();
    _exit(127);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  bool HasEnded() {
    if (!ended_) ended_ = waitpid(pid_, nullptr, WNOHANG) == pid_;
    return ended_;
  }

 private:
  pid_t pid_;
  bool ended_ = false;
};

// What the sender does while it waits for an answer. Spinning is the faster way
// to see one, but needs a core of its own.
enum class Wait { kSpin, kSleep };

// A receiver program that runs, with its receivers open.
class Receiver {
 public:
  Receiver(const std::vector<std::string>& command, const std::string& task,
           int count, const std::vector<int>& signals, const Cpus& cpus) {
    const int fd = memfd_create("answers", 0);
    if (fd < 0 || ftruncate(fd, sizeof(AnswerSheet)) != 0) {
      Fail("there is no memory for the answers");
    }
    sheet_ = static_cast<AnswerSheet*>(mmap(nullptr, sizeof(AnswerSheet),
                                            PROT_READ | PROT_WRITE, MAP_SHARED,
                                            fd, 0));
    if (sheet_ == MAP_FAILED) Fail("the answers cannot be mapped");

    std::vector<std::string> arguments = command;
    arguments.push_back("/proc/self/fd/" + std::to_string(fd));
    arguments.push_back(task);
    arguments.push_back(std::to_string(count));
    for (int signum : signals) arguments.push_back(std::to_string(signum));
    process_.emplace([&] {
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      RunOn(cpus);
      execv(argv[0], argv.data());
      std::perror(argv[0]);
    });
    close(fd);
    const uint64_t end = MonotonicNanoseconds() + 6 * kPatience;
    while (sheet_->open.load() == 0) {
      Sleep(kMillisecond);
      // It ends by itself when it only had something to report.
      if (process_->HasEnded() && sheet_->open.load() == 0) {
        Fail("the receiver ended before it was open");
      }
      if (MonotonicNanoseconds() > end) Fail("the receiver does not open");
    }
  }
  ~Receiver() {
    process_.reset();
    munmap(sheet_, sizeof(AnswerSheet));
  }

  pid_t pid() const { return process_->pid(); }
  uint64_t measured() const { return sheet_->measured.load(); }
  const Answer& answer(int receiver, int signal = 0) const {
    return sheet_->lines[receiver].answers[signal];
  }

  // Sends `signum`, which is the receivers' first or second signal as `signal`
  // says, and waits until the first `receivers` of them have answered. Returns
  // when the last did, in nanoseconds from now.
  uint64_t Ask(int signum, int signal, int receivers, Wait wait) {
    std::vector<uint64_t> before;
    for (int i = 0; i < receivers; ++i) {
      before.push_back(answer(i, signal).count.load());
    }
    const uint64_t start = MonotonicNanoseconds();
    kill(pid(), signum);
    uint64_t last = 0;
    for (int i = 0; i < receivers; ++i) {
      for (uint64_t nap = 40 * kMicrosecond;
           answer(i, signal).count.load() == before[i];
           nap = 15 * kMicrosecond) {
        if (wait == Wait::kSleep) Sleep(nap);
        if (MonotonicNanoseconds() > start + kPatience) {
          Fail(process_->HasEnded() ? "the receiver has ended"
                                    : "a signal was not answered");
        }
      }
      last = std::max(last, answer(i, signal).time.load());
    }
    return last - start;
  }

 private:
  AnswerSheet* sheet_;
  std::optional<Process> process_;
};

class Sender {
 public:
  Sender(std::string contender, std::vector<std::string> receiver, bool quick)
      : contender_(std::move(contender)),
        receiver_(std::move(receiver)),
        quick_(quick) {
    prctl(PR_SET_TIMERSLACK, kMicrosecond);
  }

  // Where the sender may run and where the receiver.
  struct Placement {
    Cpus sender;
    Cpus receiver;
    Wait wait;
  };

  void Latency(const std::string& name, const Placement& at, int receivers) {
    Receiver receiver(receiver_, "receive", receivers, {SIGUSR1}, at.receiver);
    RunOn(at.sender);
    std::vector<uint64_t> times;
    for (int i = -WarmUps(); i < Rounds(2'000); ++i) {
      at.wait == Wait::kSpin ? Spin(kPause) : Sleep(kPause);
      const uint64_t time = receiver.Ask(SIGUSR1, 0, receivers, at.wait);
      if (i >= 0) times.push_back(time);
    }
    PrintPercentiles(name, times);
  }

  // SIGTERM, while another process sends SIGUSR1 as fast as it can.
  void Storm(const std::string& name, const Placement& at) {
    Receiver receiver(receiver_, "receive", 1, {SIGUSR1, SIGTERM}, at.receiver);
    RunOn(at.sender);
    Process storm([pid = receiver.pid()] {
      while (kill(pid, SIGUSR1) == 0) {
      }
    });
    const uint64_t end = MonotonicNanoseconds() + kPatience;
    while (receiver.answer(0).count.load() == 0) {
      Sleep(kMillisecond);
      if (MonotonicNanoseconds() > end) Fail("the storm was not answered");
    }
    std::vector<uint64_t> times;
    for (int i = -WarmUps(); i < Rounds(1'000); ++i) {
      Sleep(kMillisecond);
      const uint64_t time = receiver.Ask(SIGTERM, 1, 1, Wait::kSleep);
      if (i >= 0) times.push_back(time);
    }
    PrintPercentiles(name, times);
  }

  // Real-time signals, sent as fast as possible: how many are received, and how
  // many per second until the last one.
  void Queued(const std::string& name) {
    const int signum = SIGRTMIN + 2;
    const int sent = Rounds(30'000);
    rlimit limit;
    getrlimit(RLIMIT_SIGPENDING, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_SIGPENDING, &limit);

    Receiver receiver(receiver_, "receive", 1, {signum}, AllowedCpus());
    const Answer& answer = receiver.answer(0);
    siginfo_t info = {};
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    const uint64_t start = MonotonicNanoseconds();
    for (int i = 0; i < sent; ++i) {
      info.si_value.sival_int = i;
      // Not sigqueue(3), which asks for pid and uid each time.
      while (syscall(SYS_rt_sigqueueinfo, receiver.pid(), signum, &info) != 0) {
        if (errno != EAGAIN) Fail("the receiver has ended");
        sched_yield();
      }
    }
    const uint64_t silence = (quick_ ? 100 : 500) * kMillisecond;
    uint64_t seen = 0;
    for (uint64_t since = MonotonicNanoseconds();
         seen < static_cast<uint64_t>(sent) &&
         MonotonicNanoseconds() < since + silence;) {
      Sleep(kMillisecond);
      const uint64_t now_seen = answer.count.load();
      if (now_seen != seen) since = MonotonicNanoseconds();
      seen = now_seen;
    }
    Print(name + "/lost", "signals", sent - static_cast<double>(seen));
    if (seen > 0) {
      Print(name + "/rate", "signals/s",
            1e9 * static_cast<double>(seen) /
                static_cast<double>(answer.time.load() - start));
    }
  }

  void OpenClose(const std::string& name) {
    const int times = Rounds(500);
    Receiver receiver(receiver_, name, times, {SIGUSR1}, AllowedCpus());
    Print(name, "us",
          static_cast<double>(receiver.measured()) / times / kMicrosecond);
  }

  void Idle(const std::string& name) {
    Receiver receiver(receiver_, "receive", 1, {SIGUSR1}, AllowedCpus());
    // So that all that begins late has begun.
    receiver.Ask(SIGUSR1, 0, 1, Wait::kSleep);
    Sleep((quick_ ? 50 : 500) * kMillisecond);
    const Usage before(receiver.pid());
    Sleep(quick_ ? 100 * kMillisecond : 5 * kSecond);
    const Usage after(receiver.pid());
    Print(name + "/switches", "switches",
          static_cast<double>(after.switches - before.switches));
    Print(name + "/cpu", "us",
          static_cast<double>(after.cpu_ns - before.cpu_ns) / kMicrosecond);
    Print(name + "/threads", "threads", after.threads);
    Print(name + "/memory", "KiB", static_cast<double>(after.rss_kib));
  }

  // Of a receiver that has room for its signals already.
  void Allocations(const std::string& name) {
    Receiver receiver(receiver_, "count_allocations", 1, {SIGUSR1},
                      AllowedCpus());
    for (int i = 0; i < WarmUps(); ++i) {
      receiver.Ask(SIGUSR1, 0, 1, Wait::kSleep);
    }
    const uint64_t before = receiver.measured();
    for (int i = 0; i < Rounds(1'000); ++i) {
      receiver.Ask(SIGUSR1, 0, 1, Wait::kSleep);
    }
    Print(name, "allocations",
          static_cast<double>(receiver.measured() - before));
  }

 private:
  // What /proc says of a process and all of its threads.
  struct Usage {
    explicit Usage(pid_t pid) {
      const std::string process = "/proc/" + std::to_string(pid);
      for (const auto& task :
           std::filesystem::directory_iterator(process + "/task")) {
        ++threads;
        switches +=
            Field(task.path() / "status", "voluntary_ctxt_switches:") +
            Field(task.path() / "status", "nonvoluntary_ctxt_switches:");
        uint64_t on_cpu = 0;
        std::ifstream(task.path() / "schedstat") >> on_cpu;
        cpu_ns += on_cpu;
      }
      rss_kib = Field(process + "/status", "VmRSS:");
    }

    static uint64_t Field(const std::filesystem::path& file,
                          const std::string& name) {
      std::ifstream in(file);
      for (std::string word; in >> word;) {
        uint64_t value;
        if (word == name && in >> value) return value;
      }
      Fail(file.string() + " has no " + name);
    }

    int threads = 0;
    uint64_t switches = 0;
    uint64_t cpu_ns = 0;
    uint64_t rss_kib = 0;
  };

  int Rounds(int full) const { return quick_ ? full / 50 : full; }
  int WarmUps() const { return quick_ ? 10 : 200; }

  void PrintPercentiles(const std::string& name, std::vector<uint64_t>& times) {
    std::sort(times.begin(), times.end());
    for (int percent : {50, 90, 99}) {
      const uint64_t time = times[(times.size() - 1) * percent / 100];
      Print(name + "/p" + std::to_string(percent), "us",
            static_cast<double>(time) / kMicrosecond);
    }
  }

  void Print(const std::string& name, const char* unit, double value) {
    std::printf(
        "{\"case\": \"%s\", \"contender\": \"%s\", \"unit\": \"%s\", "
        "\"value\": %.6g}\n",
        name.c_str(), contender_.c_str(), unit, value);
  }

  const std::string contender_;
  const std::vector<std::string> receiver_;
  const bool quick_;
};

struct Case {
  std::string name;
  std::function<void(Sender&)> run;
};

std::vector<Case> Cases(const std::vector<int>& fanout, bool allocations,
                        bool crowd, bool latency_only) {
  const Cpus all = AllowedCpus();
  std::vector<Case> cases;
  const auto add = [&](std::string name, auto run) {
    cases.push_back({name, [name, run](Sender& sender) { run(sender, name); }});
  };
  const Sender::Placement same{{all[0]}, {all[0]}, Wait::kSleep};
  const Sender::Placement free{all, all, Wait::kSleep};
  if (all.size() > 1) {
    const Sender::Placement cross{{all[0]}, {all[1]}, Wait::kSpin};
    add("latency_cross", [cross](Sender& sender, const std::string& name) {
      sender.Latency(name, cross, 1);
    });
  }
  add("latency_same", [same](Sender& sender, const std::string& name) {
    sender.Latency(name, same, 1);
  });
  add("latency_free", [free](Sender& sender, const std::string& name) {
    sender.Latency(name, free, 1);
  });
  if (latency_only) return cases;
  if (all.size() > 1) {
    // The storm shares the sender's core and leaves the receiver its own.
    const Sender::Placement apart{{all[0]}, {all[1]}, Wait::kSleep};
    add("storm", [apart](Sender& sender, const std::string& name) {
      sender.Storm(name, apart);
    });
  }
  add("queued",
      [](Sender& sender, const std::string& name) { sender.Queued(name); });
  for (int receivers : fanout) {
    add("fanout_" + std::to_string(receivers),
        [free, receivers](Sender& sender, const std::string& name) {
          sender.Latency(name, free, receivers);
        });
  }
  add("open_close",
      [](Sender& sender, const std::string& name) { sender.OpenClose(name); });
  if (crowd) {
    add("open_close_1000th", [](Sender& sender, const std::string& name) {
      sender.OpenClose(name);
    });
  }
  if (allocations) {
    add("allocations", [](Sender& sender, const std::string& name) {
      sender.Allocations(name);
    });
  }
  add("idle",
      [](Sender& sender, const std::string& name) { sender.Idle(name); });
  return cases;
}

// The rest of `argument` if it begins with `option`.
std::optional<std::string> Value(const std::string& argument,
                                 const std::string& option) {
  if (argument.rfind(option, 0) != 0) return std::nullopt;
  return argument.substr(option.size());
}

int Main(int argc, char** argv) {
  std::string contender;
  std::vector<int> fanout;
  bool allocations = false;
  bool crowd = false;
  bool latency_only = false;
  bool list = false;
  bool quick = false;
  std::vector<std::string> names;
  std::vector<std::string> receiver;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (auto value = Value(argument, "--contender=")) {
      contender = *value;
    } else if (auto counts = Value(argument, "--fanout=")) {
      for (const char* p = counts->c_str(); *p != '\0';) {
        char* end;
        fanout.push_back(static_cast<int>(std::strtol(p, &end, 10)));
        p = *end == ',' ? end + 1 : end;
      }
    } else if (auto name = Value(argument, "--case=")) {
      names.push_back(*name);
    } else if (argument == "--allocations") {
      allocations = true;
    } else if (argument == "--crowd") {
      crowd = true;
    } else if (argument == "--latency-only") {
      latency_only = true;
    } else if (argument == "--list") {
      list = true;
    } else if (argument == "--quick") {
      quick = true;
    } else {
      receiver.push_back(argument);
    }
  }
  const std::vector<Case> cases =
      Cases(fanout, allocations, crowd, latency_only);
  if (list) {
    for (const Case& c : cases) std::puts(c.name.c_str());
  }
  Sender sender(contender, receiver, quick);
  for (const std::string& name : names) {
    const auto c =
        std::find_if(cases.begin(), cases.end(),
                     [&](const Case& it) { return it.name == name; });
    if (c == cases.end()) Fail(name + ": no such case; see --list");
    c->run(sender);
  }
  return 0;
}

}  // namespace
}  // namespace tocsin::benchmarks

int main(int argc, char** argv) { return tocsin::benchmarks::Main(argc, argv); }
