// What the processes that a program makes while receivers are open see of them:
// nothing. And what a forked one can do with its own.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

extern char** environ;

namespace tocsin {
namespace {

// The ways to make a child that runs on in the program's own code.
enum class Way {
  kFork,
  kForkWithoutHooks,  // _Fork(3), which runs no pthread_atfork() functions
  kVfork,
  kClone,            // clone(2) by itself, which the C library does not see
  kCloneInOurMemory  // clone(2) with CLONE_VM
};

std::string Name(Way way) {
  switch (way) {
    case Way::kFork:
      return "fork";
    case Way::kForkWithoutHooks:
      return "_Fork";
    case Way::kVfork:
      return "vfork";
    case Way::kClone:
      return "clone";
    case Way::kCloneInOurMemory:
      return "clone(CLONE_VM)";
  }
  return "";
}

std::vector<Way> AllWays() {
  return {Way::kFork, Way::kForkWithoutHooks, Way::kVfork, Way::kClone,
#ifndef ABSL_HAVE_THREAD_SANITIZER  // which does not know this one
          Way::kCloneInOurMemory
#endif
  };
}

// Makes a child that runs `body`, with system calls only, and ends there.
// Returns its pid; for vfork() and CLONE_VM not before its end.
pid_t Make(Way way, absl::FunctionRef<void()> body) {
  pid_t pid = -1;
  switch (way) {
    case Way::kFork:
      pid = fork();
      break;
    case Way::kForkWithoutHooks:
      pid = _Fork();
      break;
    case Way::kVfork:
      pid = vfork();
      break;
    case Way::kClone:
      pid =
          static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, 0));
      break;
    case Way::kCloneInOurMemory: {
      static std::array<char, 256 * 1024> stack;
      auto run = [](void* f) {
        (*static_cast<absl::FunctionRef<void()>*>(f))();
        return 127;
      };
      return clone(run, stack.data() + stack.size(),
                   CLONE_VM | CLONE_VFORK | SIGCHLD, &body);
    }
  }
  if (pid == 0) {
    body();
    _exit(127);
  }
  return pid;
}

// What `grep SigBlk /proc/self/status` prints when `run`, which is given where
// it is to print, runs it.
std::string BlockedIn(absl::FunctionRef<pid_t(int output)> run) {
  Pipe output;
  const pid_t pid = run(output.writer());
  output.CloseWriter();
  std::string line;
  for (char c; (c = output.Take()) != '\0' && c != '\n';) line.push_back(c);
  if (pid > 0) {
    EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
  }
  return line;
}

constexpr char kNothing[] = "SigBlk:\t0000000000000000";
constexpr char kCommand[] = "grep SigBlk /proc/self/status";

void ExpectThatChildrenBlockNothing() {
  char grep[] = "/bin/grep";
  char field[] = "SigBlk";
  char file[] = "/proc/self/status";
  char* const argv[] = {grep, field, file, nullptr};
  for (Way way : AllWays()) {
    auto exec = [&](int output) {
      return Make(way, [&] {
        dup2(output, STDOUT_FILENO);
        execv(argv[0], argv);
      });
    };
    EXPECT_EQ(BlockedIn(exec), kNothing) << Name(way);
  }
  auto spawn = [&](int output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
  };
  EXPECT_EQ(BlockedIn(spawn), kNothing) << "posix_spawn";
  auto run_system = [](int output) {
    const std::string command =
        std::string(kCommand) + " >&" + std::to_string(output);
    EXPECT_EQ(system(command.c_str()), 0);
    return 0;
  };
  EXPECT_EQ(BlockedIn(run_system), kNothing) << "system";
  auto run_popen = [](int output) {
    FILE* lines = popen(kCommand, "r");
    for (int c; (c = fgetc(lines)) != EOF;) dprintf(output, "%c", c);
    EXPECT_EQ(pclose(lines), 0);
    return 0;
  };
  EXPECT_EQ(BlockedIn(run_popen), kNothing) << "popen";
}

// That nothing comes before `signum`, which is sent now. Of several that are
// pending the kernel gives out the lowest number first: `signum` is to be the
// highest.
void ExpectNothingBefore(SignalReceiver& receiver, int signum) {
  SendSelf(signum);
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, signum) << event;
  EXPECT_FALSE(receiver.TryReceive().ok());
}

// G28
TEST(Children, BlockNothingWhileAReceiverIsOpen) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGINT, SIGRTMIN});
  ExpectThatChildrenBlockNothing();
  std::thread(ExpectThatChildrenBlockNothing).join();
}

// G29
TEST(Children, ASpawnedProgramIsEndedByTheSignalThatItsParentReceives) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
  char cat[] = "/bin/cat";
  char* const argv[] = {cat, nullptr};
  Pipe input;  // from which it waits to read
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.reader(), STDIN_FILENO);
  pid_t pid = -1;
  ASSERT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  Child child(pid);
  child.Send(SIGTERM);
  EXPECT_EQ(KillingSignal(child.Wait()), SIGTERM);
  ExpectNothingBefore(receiver, SIGRTMIN);
}

// Makes a child in `way` that waits for ever, on another thread, as this one
// may be stopped until the child's end.
class WaitingChild {
 public:
  explicit WaitingChild(Way way)
      : maker_([this, way] {
          const int pid_out = pid_.writer();
          made_ = Make(way, [pid_out] {
            const pid_t self = static_cast<pid_t>(syscall(SYS_getpid));
            if (write(pid_out, &self, sizeof(self)) != sizeof(self)) return;
            while (true) pause();
          });
        }) {
    EXPECT_EQ(read(pid_.reader(), &child_, sizeof(child_)), sizeof(child_));
  }
  ~WaitingChild() { EXPECT_FALSE(maker_.joinable()); }

  void Send(int signum) const { EXPECT_EQ(kill(child_, signum), 0); }

  int Wait() {
    int status = -1;
    maker_.join();
    EXPECT_EQ(made_, child_);
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    return status;
  }

 private:
  Pipe pid_;
  pid_t child_ = -1;
  pid_t made_ = -1;
  std::thread maker_;
};

// G25, C3: a signal to the child ends the child, and the parent hears nothing.
TEST(Children, TakeTheirOwnSignals) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
  for (Way way : AllWays()) {
    SCOPED_TRACE(Name(way));
    WaitingChild child(way);
    child.Send(SIGTERM);
    EXPECT_EQ(KillingSignal(child.Wait()), SIGTERM);
    ExpectNothingBefore(receiver, SIGRTMIN);
  }
}

// The reverse of G25: while there is a child, the parent hears its own.
TEST(Children, LeaveTheirParentItsSignals) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  for (Way way : AllWays()) {
    SCOPED_TRACE(Name(way));
    WaitingChild child(way);
    ExpectNothingBefore(receiver, SIGTERM);
    child.Send(SIGKILL);
    EXPECT_EQ(KillingSignal(child.Wait()), SIGKILL);
  }
}

// One that is not for them: the doorbell's handler is still there where no
// function of pthread_atfork() has run. It is the lower number.
TEST(Children, OfOtherKindsDoNotMindABell) {
  auto service = StartService();
  for (Way way : AllWays()) {
    if (way == Way::kFork) continue;
#ifdef ABSL_HAVE_THREAD_SANITIZER  // which makes a fork() of it
    if (way == Way::kVfork) continue;
#endif
    SCOPED_TRACE(Name(way));
    WaitingChild child(way);
    child.Send(SIGSTKFLT);
    child.Send(SIGVTALRM);
    EXPECT_EQ(KillingSignal(child.Wait()), SIGVTALRM);
  }
}

// SIGHUP is the lower number: it would take effect before SIGTERM.
TEST(Children, IgnoreWhatWasIgnoredBeforeItWasReceived) {
  SetDisposition(SIGHUP, SIG_IGN);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGHUP, SIGRTMIN});
  for (Way way : AllWays()) {
    SCOPED_TRACE(Name(way));
    WaitingChild child(way);
    child.Send(SIGHUP);
    child.Send(SIGTERM);
    EXPECT_EQ(KillingSignal(child.Wait()), SIGTERM);
    ExpectNothingBefore(receiver, SIGRTMIN);
  }
  SetDisposition(SIGHUP, SIG_DFL);
}

// G26
TEST(ForkedChild, ItsParentsReceiverAndServiceSayThatTheyAreForked) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM});
  SignalReceiver witness = OpenReceiver(*service, {SIGTERM});
  SendSelf(SIGTERM);
  Next(witness);  // `receiver` has it in its queue
  Child child(Fork([&] {
    EXPECT_TRUE(receiver.closed());
    EXPECT_TRUE(absl::IsFailedPrecondition(receiver.TryReceive().status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(receiver.Receive().status()));
    EXPECT_TRUE(absl::IsFailedPrecondition(service->Open({SIGHUP}).status()));
    for (int signum : {SIGTERM, SIGSTKFLT}) {
      EXPECT_EQ(Disposition(signum).sa_handler, SIG_DFL);
    }
    receiver.Close();
    service.reset();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  EXPECT_EQ(Next(receiver).signum, SIGTERM);
}

#ifndef ABSL_HAVE_THREAD_SANITIZER  // which lets no handler run in a wait
// The program's own handler forks, and the child comes back into the wait.
TEST(ForkedChild, WhoseThreadWasInReceiveIsToldThatItIsForked) {
  static std::atomic<pid_t> child;
  child = -1;
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SetDisposition(SIGUSR2, [](int) { child = fork(); });
  const std::string task = TaskOfThisThread();
  std::thread forker([&, receiving = pthread_self()] {
    AwaitState(task, "S");
    pthread_kill(receiving, SIGUSR2);
    while (child < 0) sched_yield();
    SendSelf(SIGUSR1);
  });
  const auto event = receiver.Receive();
  if (child == 0) _exit(absl::IsFailedPrecondition(event.status()) ? 0 : 1);
  forker.join();
  EXPECT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(ExitStatus(Child(child).Wait()), 0);
  SetDisposition(SIGUSR2, SIG_DFL);
}
#endif

// What nobody received is the parent's to send again, not the child's.
TEST(ForkedChild, DestroysAClosedReceiverWithoutEffect) {
  auto service = StartService();
  SignalReceiver witness = OpenReceiver(*service, {SIGRTMIN});
  std::optional<SignalReceiver> receiver(OpenReceiver(*service, {SIGTERM}));
  SendSelf(SIGTERM);
  SendSelf(SIGRTMIN);
  Next(witness);
  receiver->Close();
  Child child(Fork([&] {
    EXPECT_FALSE(receiver->TryReceive().ok());
    receiver.reset();
  }));
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  EXPECT_EQ(Next(*receiver).signum, SIGTERM);
}

// ThreadSanitizer ends a process that starts a thread after it was forked from
// one that had several.
#ifndef ABSL_HAVE_THREAD_SANITIZER
// C3
TEST(ForkedChild, ReceivesItsOwnSignalsWithAServiceOfItsOwn) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
  Pipe ready;
  Pipe go;
  Child child(Fork([&] {
    auto own = StartService();
    SignalReceiver mine = OpenReceiver(*own, {SIGTERM, SIGRTMIN});
    ready.Put();
    go.Take();
    EXPECT_EQ(Next(mine).signum, SIGTERM);
    ExpectNothingBefore(mine, SIGRTMIN);
    EXPECT_TRUE(absl::IsFailedPrecondition(receiver.Receive().status()));
  }));
  ready.Take();
  ExpectNothingBefore(receiver, SIGRTMIN);
  child.Send(SIGTERM);
  go.Put();
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
  ExpectNothingBefore(receiver, SIGRTMIN);
}
#endif

// The locks of the service are in order in the child, whatever the other
// threads of the parent were doing.
TEST(ForkedChild, FindsTheServiceInOrderUnderLoad) {
  SetDisposition(SIGUSR1, SIG_IGN);
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR2});
  std::atomic<bool> done = false;
  std::vector<std::thread> churning;
  for (int i = 0; i < 4; ++i) {
    churning.emplace_back([&] {
      while (!done) {
        SignalReceiver mine = OpenReceiver(*service, {SIGUSR1, SIGHUP});
        SendSelf(SIGUSR1);
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    Child child(Fork([&] {
      EXPECT_TRUE(absl::IsFailedPrecondition(receiver.Receive().status()));
      EXPECT_EQ(Disposition(SIGHUP).sa_handler, SIG_DFL);
      EXPECT_EQ(Disposition(SIGUSR1).sa_handler, SIG_IGN);
// The allocators of the sanitizers may be locked by a thread that is not there.
#if !defined(ABSL_HAVE_THREAD_SANITIZER) && \
    !defined(ABSL_HAVE_ADDRESS_SANITIZER)
      auto own = StartService();
      SignalReceiver mine = OpenReceiver(*own, {SIGTERM});
      SendSelf(SIGTERM);
      EXPECT_EQ(Next(mine).signum, SIGTERM);
#endif
    }));
    ASSERT_EQ(ExitStatus(child.Wait()), 0);
  }
  done = true;
  for (std::thread& thread : churning) thread.join();
  ExpectNothingBefore(receiver, SIGUSR2);
  SetDisposition(SIGUSR1, SIG_DFL);
}

}  // namespace
}  // namespace tocsin
