// A test program for the tests of the watchdog: cases that hang, and one that
// looks at the state it starts from.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <latch>
#include <thread>

#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"

namespace tocsin {
namespace {

TEST(Hangs, DISABLED_InARead) {
  std::latch never(1);
  std::thread idler([&] {
    pthread_setname_np(pthread_self(), "idler");
    never.wait();
  });
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 1);
  idler.join();
}

TEST(Hangs, DISABLED_InAChild) {
  Child child(Fork([] { pause(); }));
  std::printf("child is %d\n", child.pid());
  std::fflush(stdout);
  child.Wait();
}

TEST(Hangs, DISABLED_InALoop) {
  std::atomic<bool> never{false};
  while (!never.load()) {
  }
}

TEST(Hangs, DISABLED_Dies) { raise(SIGKILL); }

TEST(KnownState, DISABLED_IsThis) {
  EXPECT_EQ(StatusMask("self", "SigBlk"), 0u);
  EXPECT_EQ(StatusMask("self", "SigIgn"), 0u);
  EXPECT_EQ(StatusMask("self", "SigPnd"), 0u);
  EXPECT_EQ(StatusMask("self", "ShdPnd"), 0u);
  for (int fd = 0; fd <= 2; ++fd) EXPECT_GE(fcntl(fd, F_GETFD), 0) << fd;
}

}  // namespace
}  // namespace tocsin
