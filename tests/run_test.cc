// Run() on whole processes: what the one that waits for them sees.
#include "tocsin/signals/run.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ios>
#include <iostream>
#include <latch>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"
#include "tests/signal_testing.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/concurrency/wait.h"

namespace tocsin {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

constexpr int kNoNamespace = 77;

using Main = std::function<absl::Status(Program&)>;

[[noreturn]] void RunAndExit(const Main& main, RunOptions options = {}) {
  std::exit(Run(main, std::move(options)));
}

// T035
TEST(RunDeathTest, ReturnsZeroWhenAllEndsWell) {
  EXPECT_EXIT(RunAndExit([](Program& program) {
                program.tasks().Spawn([] {});
                return program.tasks().Wait();
              }),
              ExitedWithCode(0), "^$");
}

// T035
TEST(RunDeathTest, ReturnsOneAndPrintsAnErrorOfMainOnce) {
  EXPECT_EXIT(
      RunAndExit([](Program&) { return absl::NotFoundError("no config"); }),
      ExitedWithCode(1), "^NOT_FOUND: no config\n$");
}

// Issue 19: ended with 0, and printed nothing.
TEST(RunDeathTest, ACancellationOfMainsOwnIsAnError) {
  EXPECT_EXIT(
      RunAndExit([](Program&) { return absl::CancelledError("by a peer"); }),
      ExitedWithCode(1), "^CANCELLED: by a peer\n$");
}

#ifdef ABSL_HAVE_EXCEPTIONS
struct SaysThatItIsUnwound {
  ~SaysThatItIsUnwound() { std::fputs("unwound\n", stderr); }
};

TEST(RunDeathTest, AnExceptionOfMainIsItsError) {
  EXPECT_EXIT(RunAndExit([](Program& program) -> absl::Status {
                program.tasks().Spawn([] { return Event().Wait(); });
                const SaysThatItIsUnwound unwound;
                throw std::out_of_range("index 7");
              }),
              ExitedWithCode(1),
              "^unwound\nINTERNAL: the main function threw "
              "std::out_of_range: index 7\n$");
}
#endif

TEST(RunDeathTest, ReturnsOneAndPrintsAnErrorOfATaskOnce) {
  EXPECT_EXIT(
      RunAndExit([](Program& program) {
        program.tasks().Spawn([] { return absl::DataLossError("bad block"); });
        return Event().Wait();  // which the failing task ends
      }),
      ExitedWithCode(1), "^DATA_LOSS: .*bad block\n$");
}

TEST(RunDeathTest, AnErrorOfMainCancelsTheTasks) {
  EXPECT_EXIT(RunAndExit([](Program& program) {
                program.tasks().Spawn([] { return Event().Wait(); });
                return absl::InternalError("broken");
              }),
              ExitedWithCode(1), "^INTERNAL: broken\n$");
}

// P10, P11: the waits of main and of tasks end, then the process dies by it.
TEST(RunDeathTest, DiesByTheSignalThatStoppedItAfterTheCleanUp) {
  for (int signum : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(RunAndExit([signum](Program& program) {
                  std::latch started(1);
                  program.tasks().Spawn([&] {
                    started.count_down();
                    absl::Status status = Event().Wait();
                    std::fputs("task cleaned up\n", stderr);
                    return status;
                  });
                  started.wait();
                  SendSelf(signum);
                  return program.tasks().Wait();
                }),
                KilledBySignal(signum), "^task cleaned up\n$");
  }
}

TEST(RunDeathTest, AMainThatWaitsForSomethingElseIsStoppedToo) {
  EXPECT_EXIT(RunAndExit([](Program&) {
                SendSelf(SIGTERM);
                return Event().Wait();
              }),
              KilledBySignal(SIGTERM), "^$");
}

TEST(RunDeathTest, FlushesEveryStreamBeforeItDies) {
  Pipe output;
  EXPECT_EXIT(
      {
        FILE* const file = fdopen(output.writer(), "w");
        RunAndExit([file](Program&) {
          std::fputs("x", file);
          SendSelf(SIGTERM);
          return Event().Wait();
        });
      },
      KilledBySignal(SIGTERM), "");
  output.CloseWriter();
  EXPECT_EQ(output.Take(), 'x');
}

// What runs at the exit of a test's child, when it is told whose.
const char* to_say = nullptr;
struct Speaker {
  ~Speaker() {
    if (to_say != nullptr) std::fputs(to_say, stderr);
  }
} speaker;
// Behind that, and behind the destructor that flushes std::cout.
bool prints_last = false;
__attribute__((destructor)) void PrintLast() {
  if (prints_last) std::cout << "x";
}

int RunUntilStopped(RunOptions options = {}) {
  return tocsin::Run(
      [](Program&) {
        SendSelf(SIGTERM);
        return Event().Wait();
      },
      std::move(options));
}

// Issue 18: nothing of all this did run.
TEST(RunDeathTest, WhatRunsAtTheEndOfAProgramRunsBeforeItDies) {
  auto main = [] {
    std::atexit([] { std::fputs("atexit function\n", stderr); });
    to_say = "static destructor\n";
    const int status = RunUntilStopped();
    std::fprintf(stderr, "after Run: %d\n", status);
    return status;
  };
  EXPECT_EXIT(std::exit(main()), KilledBySignal(SIGTERM),
              "^after Run: 143\natexit function\nstatic destructor\n$");
}

TEST(RunDeathTest, DiesByTheSignalWhateverMainReturns) {
  for (const int status : {0, 1, 5}) {
    EXPECT_EXIT(
        {
          RunUntilStopped();
          std::exit(status);
        },
        KilledBySignal(SIGTERM), "^$");
  }
}

void AllowCore() {
  rlimit page;
  getrlimit(RLIMIT_CORE, &page);
  page.rlim_cur = 4096;  // cut off there, it is one all the same
  setrlimit(RLIMIT_CORE, &page);
  EXPECT_EQ(chdir(testing::TempDir().c_str()), 0);
}

bool DumpedCore(int status) {
  return KilledBySignal(SIGQUIT)(status) && WCOREDUMP(status);
}
bool DumpedNoCore(int status) {
  return KilledBySignal(SIGQUIT)(status) && !WCOREDUMP(status);
}

[[noreturn]] void RunUntilSigquit(RunOptions options) {
  AllowCore();
  options.shutdown.signals = {SIGQUIT};
  RunAndExit(
      [](Program&) {
        SendSelf(SIGQUIT);
        return Event().Wait();
      },
      std::move(options));
}

// It is a core that SIGQUIT is for, but not of a program that ended well.
TEST(RunDeathTest, DiesBySigquitWithoutACore) {
  EXPECT_EXIT(RunUntilSigquit({}), DumpedNoCore, "^$");
}

TEST(RunDeathTest, DiesBySigquitWithItsCoreByOption) {
  Child other(Fork([] {
    AllowCore();
    raise(SIGQUIT);
  }));
  if (!DumpedCore(other.Wait())) GTEST_SKIP() << "no core can be dumped";
  EXPECT_EXIT(
      RunUntilSigquit({.after_signal = RunOptions::AfterSignal::kDumpCore}),
      DumpedCore, "^$");
}

TEST(RunDeathTest, WhatADestructorFunctionPrintsIsFlushed) {
  Pipe output;
  EXPECT_EXIT(
      {
        dup2(output.writer(), STDOUT_FILENO);
        std::ios_base::sync_with_stdio(false);  // then std::cout has a buffer
        prints_last = true;
        std::exit(RunUntilStopped());
      },
      KilledBySignal(SIGTERM), "");
  output.CloseWriter();
  EXPECT_EQ(output.Take(), 'x');
}

// LeakSanitizer may miss a thread of the parent in the child, and says so
// first.
TEST(RunDeathTest, AChildThatIsForkedAfterItExitsAsAnyOther) {
  EXPECT_EXIT(
      {
        const int status = RunUntilStopped();
        const pid_t child = fork();
        if (child == 0) std::exit(7);
        int end = 0;
        if (waitpid(child, &end, 0) != child) _exit(1);
        std::fprintf(stderr, "child: %d\n", ExitStatus(end));
        std::exit(status);
      },
      KilledBySignal(SIGTERM), "child: 7\n$");
}

TEST(RunDeathTest, AnExitThatSkipsAllIsItsEnd) {
  EXPECT_EXIT(
      {
        RunUntilStopped();
        _exit(5);
      },
      ExitedWithCode(5), "^$");
}

// P10
TEST(RunDeathTest, Returns128PlusTheSignalByOption) {
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    SendSelf(SIGTERM);
                    return Event().Wait();
                  },
                  {.after_signal = RunOptions::AfterSignal::kReturn128Plus}),
              ExitedWithCode(128 + SIGTERM), "^$");
}

// P10: a container's. No signal can end it, so it exits.
TEST(RunDeathTest, AsProcessOneReturns128PlusTheSignal) {
  Child outside(Fork([] {
    if (unshare(CLONE_NEWPID) != 0) _exit(kNoNamespace);
    Child one(Fork([] {
      RunAndExit([](Program&) {
        SendSelf(SIGTERM);
        return Event().Wait();
      });
    }));
    _exit(ExitStatus(one.Wait()));
  }));
  const int status = ExitStatus(outside.Wait());
  if (status == kNoNamespace) GTEST_SKIP() << "no pid namespace can be made";
  EXPECT_EQ(status, 128 + SIGTERM);
}

TEST(RunDeathTest, WithoutSignalsToStopOnTheirEffectIsTheOldOne) {
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    SendSelf(SIGTERM);
                    return Event().Wait();
                  },
                  {.shutdown = {.signals = {}}}),
              KilledBySignal(SIGTERM), "");
}

// T035: inside itself it is refused, and says so.
TEST(RunDeathTest, InsideItselfItIsRefused) {
  EXPECT_EXIT(RunAndExit([](Program&) {
                const int status =
                    tocsin::Run([](Program&) -> absl::Status { std::abort(); });
                EXPECT_EQ(status, 1);
                return absl::OkStatus();
              }),
              ExitedWithCode(0), "^ALREADY_EXISTS: [^\n]*\n$");
}

// P5, P7
TEST(RunDeathTest, ASecondSignalEndsAProgramThatHangsInItsCleanUp) {
  EXPECT_EXIT(RunAndExit(
                  [](Program& program) {
                    Event never;
                    std::latch started(1);
                    std::latch stopping(1);
                    program.tasks().Spawn(
                        [&] {
                          started.count_down();
                          Event().Wait().IgnoreError();
                          CancelScope shield({.shield = true});
                          stopping.count_down();
                          never.Wait().IgnoreError();
                        },
                        {.name = "stuck task"});
                    started.wait();
                    SendSelf(SIGINT);
                    stopping.wait();
                    SendSelf(SIGINT);
                    return program.tasks().Wait();
                  },
                  {.shutdown = {.on_second_signal = SecondSignal::kAnyForces}}),
              KilledBySignal(SIGINT),
              "a second signal came, SIGINT.*What has not ended:.*stuck task ");
}

TEST(RunDeathTest, AFunctionMayTakePartInTheShutdown) {
  EXPECT_EXIT(
      std::exit(tocsin::Run(
          [](Program& program) {
            Event draining;
            std::stop_callback callback(program.shutdown().drain_token(),
                                        [&] { draining.Set(); });
            SendSelf(SIGTERM);
            if (absl::Status status = draining.Wait(); !status.ok()) {
              return status;
            }
            const bool serving =
                program.shutdown().phase() == Shutdown::Phase::kDraining;
            std::fputs(serving ? "still serving\n" : "stopped\n", stderr);
            return absl::OkStatus();
          },
          {.shutdown = {.drain = absl::Hours(1)}})),
      KilledBySignal(SIGTERM), "^still serving\n$");
}

// The second program of the design: it hears the signals itself.
TEST(RunDeathTest, AProgramThatHearsTheSignalsItselfDecidesItsStatus) {
  EXPECT_EXIT(RunAndExit(
                  [](Program& program) -> absl::Status {
                    absl::StatusOr<SignalReceiver> signals =
                        program.signals().Open({SIGINT, SIGTERM});
                    if (!signals.ok()) return signals.status();
                    program.tasks().SpawnBackground([&] {
                      for (const SignalEvent& event : *signals) {
                        std::fputs(event.signum == SIGINT ? "Ctrl+C pressed!\n"
                                                          : "Terminated!\n",
                                   stderr);
                        program.tasks().Cancel();
                      }
                    });
                    program.tasks().Spawn([] { return Event().Wait(); });
                    SendSelf(SIGINT);
                    return program.tasks().Wait();
                  },
                  {.shutdown = {.signals = {}}}),
              ExitedWithCode(0), "^Ctrl.C pressed!\n$");
}

TEST(RunDeathTest, StopsOnTheSignalsOfItsOptionsAlone) {
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    SendSelf(SIGUSR1);
                    absl::Status status = Event().Wait();
                    std::fputs("cleaned up\n", stderr);
                    return status;
                  },
                  {.shutdown = {.signals = {SIGUSR1}}}),
              KilledBySignal(SIGUSR1), "^cleaned up\n$");
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    SendSelf(SIGTERM);
                    std::fputs("survived\n", stderr);
                    return absl::OkStatus();
                  },
                  {.shutdown = {.signals = {SIGUSR1}}}),
              KilledBySignal(SIGTERM), "^$");
}

TEST(RunDeathTest, ItsGraceIsThatOfItsOptions) {
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    CancelScope shield({.shield = true});
                    SendSelf(SIGTERM);
                    return Event().Wait();
                  },
                  {.shutdown = {.grace = absl::Milliseconds(1)}}),
              KilledBySignal(SIGTERM), "the grace of 1ms is over");
}

TEST(RunDeathTest, StopsWhenItHasDrained) {
  EXPECT_EXIT(RunAndExit(
                  [](Program&) {
                    SendSelf(SIGTERM);
                    return Event().Wait();
                  },
                  {.shutdown = {.drain = absl::Milliseconds(1)}}),
              KilledBySignal(SIGTERM), "^$");
}

// A pipe that nobody reads, full to the last byte.
int FullPipe() {
  int ends[2];
  if (pipe2(ends, O_NONBLOCK) != 0) return -1;
  while (write(ends[1], "x", 1) == 1) {
  }
  fcntl(ends[1], F_SETFL, 0);
  return ends[1];
}

// Enough for main to return.
const RunOptions kShortGrace = {.shutdown = {.grace = absl::Milliseconds(500)}};

TEST(RunDeathTest, AThreadThatReadsStdinDoesNotKeepItFromDying) {
  Pipe input;
  EXPECT_EXIT(
      {
        dup2(input.reader(), STDIN_FILENO);
        std::thread reader([] {
          std::string line;
          std::getline(std::cin, line);
        });
        reader.detach();
        // Until it holds the lock.
        while (ftrylockfile(stdin) == 0) {
          funlockfile(stdin);
          sched_yield();
        }
        std::exit(RunUntilStopped());
      },
      KilledBySignal(SIGTERM), "^$");
}

// ThreadSanitizer flushes all streams itself, before the process dies.
#ifndef ABSL_HAVE_THREAD_SANITIZER
// The flush takes as long as the grace, in case somebody still reads.
TEST(RunDeathTest, AFullStdoutDoesNotKeepItFromDying) {
  EXPECT_EXIT(
      {
        dup2(FullPipe(), STDOUT_FILENO);
        std::fputs("x", stdout);
        std::exit(RunUntilStopped(kShortGrace));
      },
      KilledBySignal(SIGTERM), "the program has not exited");
}
#endif

TEST(RunDeathTest, AFullStderrDoesNotKeepItFromDying) {
  EXPECT_EXIT(
      {
        dup2(FullPipe(), STDERR_FILENO);
        RunAndExit(
            [](Program& program) {
              SendSelf(SIGTERM);
              while (!program.tasks().scope().cancelled()) sched_yield();
              return absl::InternalError("not printed");
            },
            kShortGrace);
      },
      KilledBySignal(SIGTERM), "");
}

// Issue 19: `program | tee log` lost its clean-up at Ctrl+C.
TEST(RunDeathTest, ABrokenPipeDoesNotKillInTheCleanUp) {
  EXPECT_EXIT(
      {
        Pipe output;
        output.CloseReader();
        dup2(output.writer(), STDOUT_FILENO);
        RunAndExit([](Program&) {
          SendSelf(SIGTERM);
          absl::Status status = Event().Wait();
          std::puts("cleaning up");
          std::fflush(stdout);
          std::fputs("cleaned up\n", stderr);
          std::puts("flushed at exit");
          return status;
        });
      },
      KilledBySignal(SIGTERM), "^cleaned up\n$");
}

TEST(RunDeathTest, ABrokenPipeKillsByOptionAndBeforeTheStop) {
  const auto write = [](Program&) {
    Pipe output;
    output.CloseReader();
    output.Put();
    return absl::OkStatus();
  };
  EXPECT_EXIT(RunAndExit(write), KilledBySignal(SIGPIPE), "");
  EXPECT_EXIT(
      RunAndExit(write, {.shutdown = {.broken_pipe = BrokenPipe::kFails}}),
      ExitedWithCode(0), "");
  const auto stop_and_write = [&](Program& program) {
    SendSelf(SIGTERM);
    Event().Wait().IgnoreError();
    return write(program);
  };
  EXPECT_EXIT(RunAndExit(stop_and_write,
                         {.shutdown = {.broken_pipe = BrokenPipe::kKills}}),
              KilledBySignal(SIGPIPE), "");
}

TEST(RunDeathTest, ADestructorThatHangsDoesNotKeepItFromDying) {
  for (const auto after_signal : {RunOptions::AfterSignal::kDieBySignal,
                                  RunOptions::AfterSignal::kReturn128Plus}) {
    EXPECT_EXIT(
        {
          std::atexit([] { Pipe().Take(); });
          RunOptions options = kShortGrace;
          options.after_signal = after_signal;
          options.grace_until_exit = true;
          std::exit(RunUntilStopped(options));
        },
        KilledBySignal(SIGTERM), "the program has not exited");
  }
}

// With a drain of an hour and a grace of minus one, the end is now.
TEST(RunDeathTest, TheGraceFollowsTheDrainAlsoWhereMainReturnsInIt) {
  EXPECT_EXIT(
      {
        tocsin::Run(
            [](Program& program) {
              SendSelf(SIGTERM);
              while (!program.shutdown().cause()) sched_yield();
              return absl::OkStatus();
            },
            {.shutdown = {.drain = absl::Hours(1), .grace = -absl::Hours(1)},
             .grace_until_exit = true});
        Pipe().Take();
      },
      KilledBySignal(SIGTERM), "the program has not exited");
}

TEST(RunDeathTest, WhatComesAfterItMayTakeLongerThanTheGrace) {
  EXPECT_EXIT(
      {
        const int status =
            RunUntilStopped({.shutdown = {.grace = absl::Seconds(1)}});
        Sleep(absl::Milliseconds(1100)).IgnoreError();
        std::fputs("after Run\n", stderr);
        std::exit(status);
      },
      KilledBySignal(SIGTERM), "^after Run\n$");
}

TEST(RunDeathTest, ADrainCallbackThatHangsHoldsUpNeitherTheStopNorTheEnd) {
  EXPECT_EXIT(RunAndExit(
                  [](Program& program) {
                    std::stop_callback hang(program.shutdown().drain_token(),
                                            [] { Pipe().Take(); });
                    SendSelf(SIGTERM);
                    Event().Wait().IgnoreError();
                    std::fputs("cleaned up\n", stderr);
                    Pipe().Take();  // as the callback's destructor would
                    return absl::OkStatus();
                  },
                  {.shutdown = {.drain = absl::Milliseconds(1),
                                .grace = absl::Milliseconds(50)}}),
              KilledBySignal(SIGTERM), "^cleaned up\n");
}

TEST(RunDeathTest, ItsShutdownsEndIsBoundedToo) {
  EXPECT_EXIT(RunAndExit(
                  [](Program& program) {
                    // Never destroyed, and runs for ever.
                    new std::stop_callback(program.shutdown().drain_token(),
                                           [] { Pipe().Take(); });
                    SendSelf(SIGTERM);
                    return Event().Wait();
                  },
                  kShortGrace),
              KilledBySignal(SIGTERM), "the program has not exited");
}

// ThreadSanitizer allows no thread in a forked child.
#ifndef ABSL_HAVE_THREAD_SANITIZER
// Whose watchdog has no thread in it.
TEST(RunDeathTest, AForkedProcessMayRunAfterItsParentDid) {
  EXPECT_EXIT(
      {
        RunUntilStopped();
        const pid_t pid = fork();
        if (pid == 0) {
          RunAndExit([](Program& program) {
            SendSelf(SIGTERM);
            while (!program.shutdown().cause()) sched_yield();
            return absl::OkStatus();
          });
        }
        int status = 0;
        waitpid(pid, &status, 0);
        _exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM ? 0 : 1);
      },
      ExitedWithCode(0), "");
}
#endif

#ifdef ABSL_HAVE_EXCEPTIONS
TEST(RunDeathTest, MainMayEndItsThread) {
  EXPECT_EXIT(
      {
        std::thread([] {
          tocsin::Run([](Program&) -> absl::Status {
            const SaysThatItIsUnwound unwound;
            pthread_exit(nullptr);
          });
        }).join();
        std::exit(0);
      },
      ExitedWithCode(0), "^unwound\n$");
}
#endif

// The shutdown has seen a signal when the next one is received: neither has a
// shorter way to its receiver, since both have two.
TEST(RunDeathTest, ASecondSignalCanBeIgnored) {
  EXPECT_EXIT(RunAndExit(
                  [](Program& program) {
                    SignalReceiver witness =
                        OpenReceiver(program.signals(), {SIGINT, SIGUSR1});
                    SendSelf(SIGTERM);
                    while (!program.tasks().scope().cancelled()) sched_yield();
                    CancelScope shield({.shield = true});
                    SendSelf(SIGINT);
                    EXPECT_EQ(Next(witness).signum, SIGINT);
                    SendSelf(SIGUSR1);
                    EXPECT_EQ(Next(witness).signum, SIGUSR1);
                    std::fputs("cleaned up\n", stderr);
                    return absl::OkStatus();
                  },
                  {.shutdown = {.signals = {SIGTERM, SIGINT, SIGUSR1},
                                .on_second_signal = SecondSignal::kIgnore}}),
              KilledBySignal(SIGTERM), "^cleaned up\n$");
}

TEST(RunDeathTest, PrintsAnErrorAlsoWhereItDiesByASignal) {
  EXPECT_EXIT(RunAndExit([](Program&) {
                SendSelf(SIGTERM);
                Event().Wait().IgnoreError();
                return absl::DataLossError("not flushed");
              }),
              KilledBySignal(SIGTERM), "^DATA_LOSS: not flushed\n$");
}

TEST(RunDeathTest, SaysThatItCannotHearASignalAndCallsNothing) {
  EXPECT_EXIT(RunAndExit([](Program&) -> absl::Status { std::abort(); },
                         {.shutdown = {.signals = {SIGKILL}}}),
              ExitedWithCode(1), "^INVALID_ARGUMENT: [^\n]*SIGKILL[^\n]*\n$");
}

TEST(RunDeathTest, ReturnsOneForATaskThatFailsAfterTheFunctionReturned) {
  EXPECT_EXIT(
      {
        std::latch returned(1);
        RunAndExit([&](Program& program) {
          program.tasks().Spawn([&] {
            returned.wait();
            return absl::DataLossError("late");
          });
          returned.count_down();
          return absl::OkStatus();
        });
      },
      ExitedWithCode(1), "^DATA_LOSS: .*late\n$");
}

// The thread of main() is then asleep in Run(), in the task perhaps.
TEST(RunDeathTest, StopsTasksInOrderAlsoAfterTheFunctionReturned) {
  EXPECT_EXIT(
      {
        const std::string main_thread = TaskOfThisThread();
        std::latch returning(1);
        std::thread killer([&] {
          returning.wait();
          AwaitState(main_thread, "S");
          SendSelf(SIGTERM);
        });
        RunAndExit([&](Program& program) {
          program.tasks().Spawn([] {
            absl::Status status = Event().Wait();
            std::fputs("task cleaned up\n", stderr);
            return status;
          });
          returning.count_down();
          return absl::OkStatus();
        });
      },
      KilledBySignal(SIGTERM), "^task cleaned up\n$");
}

TEST(RunDeathTest, LeavesTheProcessAsItWasAndCanBeCalledAgain) {
  EXPECT_EXIT(
      {
        for (int i = 0; i < 2; ++i) {
          const int status = tocsin::Run(
              [](Program&) {
                SendSelf(SIGINT);
                return Event().Wait();
              },
              {.after_signal = RunOptions::AfterSignal::kReturn128Plus});
          if (status != 128 + SIGINT) _exit(1);
          if (Disposition(SIGINT).sa_handler != SIG_DFL) _exit(2);
        }
        _exit(0);
      },
      ExitedWithCode(0), "^$");
}

TEST(RunDeathTest, ReturnsOneForAnErrorAlsoWhereASignalIsReturned) {
  EXPECT_EXIT(
      RunAndExit([](Program&) { return absl::NotFoundError("no config"); },
                 {.after_signal = RunOptions::AfterSignal::kReturn128Plus}),
      ExitedWithCode(1), "^NOT_FOUND: no config\n$");
}

}  // namespace
}  // namespace tocsin
