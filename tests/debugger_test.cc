// A program that receives signals, under the tools of its developer.
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"
#include "tests/signal_testing.h"
#include "tests/terminal.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// D1
TEST(Tracer, SeesASignalBeforeItIsReceived) {
  Pipe ready;
  Child child(Fork([&] {
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGINT});
    SendSelf(SIGINT);
    EXPECT_EQ(Next(receiver).signum, SIGINT);
    EXPECT_EQ(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr), 0);
    ready.Put();
    EXPECT_EQ(Next(receiver).signum, SIGINT);
  }));
  ready.Take();
  // To the traced thread: the service's thread takes what is pending on the
  // process if it looks just then, and no tracer sees it.
  EXPECT_EQ(syscall(SYS_tgkill, child.pid(), child.pid(), SIGINT), 0);
  const int status = child.Wait();
  ASSERT_TRUE(WIFSTOPPED(status)) << status;
  EXPECT_EQ(WSTOPSIG(status), SIGINT);
  ASSERT_EQ(ptrace(PTRACE_CONT, child.pid(), nullptr, SIGINT), 0);
  EXPECT_EQ(ExitStatus(child.Wait()), 0);
}

// G50
TEST(Gdb, StopsTheProgramAtCtrlCAndLetsItHaveTheSignal) {
  if (kSanitized) GTEST_SKIP() << "sanitizers and debuggers exclude each other";
  if (access("/usr/bin/gdb", X_OK) != 0) GTEST_SKIP() << "gdb is not installed";
  Terminal terminal({"/usr/bin/gdb", "-q", "-nx", "-iex", "set pagination off",
                     "-iex", "set confirm off", "--args",
                     "tests/signal_subject", "1", "exit"});
  terminal.AwaitText("(gdb) ");
  terminal.Type("run\n");
  terminal.AwaitText("ready");
  terminal.Type("\x03");
  terminal.AwaitText("received signal SIGINT");
  terminal.AwaitText("(gdb) ");
  terminal.Type("signal SIGINT\n");
  terminal.AwaitText("SIGINT from the terminal");
  terminal.AwaitText("exited with code 0202");  // 130
  terminal.AwaitText("(gdb) ");
  terminal.Type("quit\n");
  EXPECT_EQ(ExitStatus(terminal.Wait()), 0);
}

// G55
TEST(Valgrind, FindsNoErrorInAStorm) {
  if (kSanitized) GTEST_SKIP() << "sanitizers and valgrind exclude each other";
  if (access("/usr/bin/valgrind", X_OK) != 0) {
    GTEST_SKIP() << "valgrind is not installed";
  }
  StartedProgram valgrind({"/usr/bin/valgrind", "-q", "--error-exitcode=9",
                           "--leak-check=full", "--vgdb=no",
                           "tests/signal_subject", "1", "storm"});
  EXPECT_EQ(valgrind.ReadAll(), "");
  EXPECT_EQ(ExitStatus(valgrind.Wait()), 0);
}

}  // namespace
}  // namespace tocsin
