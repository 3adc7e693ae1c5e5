// What the tests of signals share.
#ifndef TOCSIN_TESTS_SIGNAL_TESTING_H_
#define TOCSIN_TESTS_SIGNAL_TESTING_H_

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin {

inline std::unique_ptr<SignalService> StartService() {
  auto service = SignalService::Start();
  if (!service.ok()) ADD_FAILURE() << service.status();
  return *std::move(service);
}

inline SignalReceiver OpenReceiver(SignalService& service,
                                   const SignalSet& signals,
                                   ReceiverOptions options = {}) {
  auto receiver = service.Open(signals, options);
  if (!receiver.ok()) ADD_FAILURE() << receiver.status();
  return *std::move(receiver);
}

// The next event, which is waited for; a test that gets none hangs here.
inline SignalEvent Next(SignalReceiver& receiver) {
  auto event = receiver.Receive();
  if (!event.ok()) {
    ADD_FAILURE() << event.status();
    return {};
  }
  return *event;
}

// To this process, as any other process would send it.
inline void SendSelf(int signum) { ASSERT_EQ(kill(getpid(), signum), 0); }

inline void QueueSelf(int signum, int value) {
  ASSERT_EQ(sigqueue(getpid(), signum, sigval{.sival_int = value}), 0);
}

inline struct sigaction Disposition(int signum) {
  struct sigaction action;
  sigaction(signum, nullptr, &action);
  return action;
}

inline void SetDisposition(int signum, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ASSERT_EQ(sigaction(signum, &action, nullptr), 0);
}

// A pipe whose ends are closed with it.
class Pipe {
 public:
  Pipe() {
    if (pipe(ends_) != 0) ADD_FAILURE() << "pipe";
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    CloseReader();
    CloseWriter();
  }

  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }
  void CloseReader() { Close(ends_[0]); }
  void CloseWriter() { Close(ends_[1]); }

  void Put(char byte = 'x') const { EXPECT_EQ(write(ends_[1], &byte, 1), 1); }
  // Waits for a byte; '\0' when the other end was closed.
  char Take() const {
    char byte = '\0';
    const ssize_t size = read(ends_[0], &byte, 1);
    return size == 1 ? byte : '\0';
  }

 private:
  static void Close(int& end) {
    if (end >= 0) close(std::exchange(end, -1));
  }

  int ends_[2] = {-1, -1};
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_SIGNAL_TESTING_H_
