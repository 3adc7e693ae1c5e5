// A receiver in a loop that waits for descriptors.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::ElementsAre;

bool IsReadable(const SignalReceiver& receiver) {
  pollfd readable = {.fd = *receiver.fd(), .events = POLLIN, .revents = 0};
  int ready;
  // Again if a handler ran meanwhile.
  while ((ready = poll(&readable, 1, 0)) < 0) {
  }
  return ready == 1;
}

void AwaitReadable(const SignalReceiver& receiver) {
  pollfd readable = {.fd = *receiver.fd(), .events = POLLIN, .revents = 0};
  while (poll(&readable, 1, -1) != 1) {
  }
  EXPECT_EQ(readable.revents, POLLIN);
}

TEST(Fd, IsReadableWhileAnEventIsQueued) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  EXPECT_FALSE(IsReadable(receiver));
  for (int round = 0; round < 3; ++round) {
    QueueSelf(SIGRTMIN, 1);
    QueueSelf(SIGRTMIN, 2);
    AwaitReadable(receiver);
    EXPECT_EQ(Next(receiver).value->sival_int, 1);
    AwaitReadable(receiver);
    EXPECT_TRUE(IsReadable(receiver));
    EXPECT_EQ(Next(receiver).value->sival_int, 2);
    EXPECT_FALSE(IsReadable(receiver));
  }
}

// It is made by the first call, which may come late.
TEST(Fd, TellsOfWhatWasQueuedBeforeItWasMade) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  SendSelf(SIGUSR1);
  Next(witness);
  EXPECT_TRUE(IsReadable(receiver));
  EXPECT_EQ(*receiver.fd(), *receiver.fd());
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  EXPECT_FALSE(IsReadable(receiver));
}

TEST(Fd, StaysReadableAfterClose) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  EXPECT_FALSE(IsReadable(receiver));
  SendSelf(SIGUSR1);
  Next(witness);
  receiver.Close();
  EXPECT_TRUE(IsReadable(receiver));
  EXPECT_EQ(Next(receiver).signum, SIGUSR1);
  EXPECT_TRUE(IsReadable(receiver));
  EXPECT_FALSE(receiver.TryReceive().ok());
  EXPECT_TRUE(absl::IsOutOfRange(receiver.Receive().status()));

  SignalReceiver closed_before = OpenReceiver(*service, {SIGUSR1});
  closed_before.Close();
  EXPECT_TRUE(IsReadable(closed_before));
}

TEST(Fd, StaysReadableAfterTheServiceEnds) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  EXPECT_FALSE(IsReadable(receiver));
  service.reset();
  EXPECT_TRUE(IsReadable(receiver));
}

TEST(Fd, IsClosedWithTheReceiver) {
  auto service = StartService();
  int fd;
  {
    SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
    fd = *receiver.fd();
    EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

// Edge-triggered too: each event that comes to an empty queue is an edge.
TEST(Fd, ServesALoopOverSeveralReceivers) {
  for (uint32_t trigger : {0u, uint32_t{EPOLLET}}) {
    auto service = StartService();
    std::vector<SignalReceiver> receivers;
    receivers.push_back(OpenReceiver(*service, {SIGUSR1, SIGRTMIN}));
    receivers.push_back(OpenReceiver(*service, {SIGUSR2, SIGRTMIN}));
    const int loop = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < receivers.size(); ++i) {
      epoll_event event{.events = EPOLLIN | trigger, .data = {.u32 = i}};
      ASSERT_EQ(epoll_ctl(loop, EPOLL_CTL_ADD, *receivers[i].fd(), &event), 0);
    }
    std::vector<std::vector<int>> received(receivers.size());
    const auto run_until = [&](size_t count) {
      while (received[0].size() + received[1].size() < count) {
        epoll_event ready;
        if (epoll_wait(loop, &ready, 1, -1) != 1) continue;  // EINTR
        SignalReceiver& receiver = receivers[ready.data.u32];
        for (auto event = receiver.TryReceive(); event.ok();
             event = receiver.TryReceive()) {
          received[ready.data.u32].push_back(event->signum);
        }
      }
    };
    SendSelf(SIGUSR1);
    run_until(1);
    SendSelf(SIGUSR2);
    run_until(2);
    SendSelf(SIGRTMIN);
    run_until(4);
    EXPECT_THAT(received[0], ElementsAre(SIGUSR1, SIGRTMIN));
    EXPECT_THAT(received[1], ElementsAre(SIGUSR2, SIGRTMIN));
    close(loop);
  }
}

}  // namespace
}  // namespace tocsin
