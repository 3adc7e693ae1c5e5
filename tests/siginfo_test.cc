// What an event tells of where its signal came from.
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Origin = SignalEvent::Origin;
using Change = ChildStatus::Change;

std::string InWords(const SignalEvent& event) {
  std::ostringstream words;
  words << event;
  return words.str();
}

void ExpectFromOurselves(const SignalEvent& event) {
  ASSERT_TRUE(event.sender.has_value()) << event;
  EXPECT_EQ(event.sender->pid, getpid());
  EXPECT_EQ(event.sender->uid, getuid());
}

// S1, S4: raise(3) and pthread_kill(3) differ from kill(2) in the kernel's
// siginfo; to the reader all of them are somebody's wish.
TEST(Origin, IsTheUserForKillRaiseAndPthreadKill) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  for (int (*send)() :
       {+[] { return kill(getpid(), SIGUSR1); },
        +[] { return Raise(SIGUSR1).ok() ? 0 : -1; },
        +[] { return raise(SIGUSR1); },
        +[] { return pthread_kill(pthread_self(), SIGUSR1); }}) {
    ASSERT_EQ(send(), 0);
    const SignalEvent event = Next(receiver);
    EXPECT_EQ(event.origin, Origin::kUser);
    ExpectFromOurselves(event);
    EXPECT_FALSE(event.value.has_value());
    EXPECT_EQ(InWords(event),
              absl::StrCat("SIGUSR1 from pid ", getpid(),
                           " (siginfo_test, uid ", getuid(), ")"));
  }
}

// S1
TEST(Origin, IsTheQueueForSigqueue) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1, SIGRTMIN + 1});
  for (int signum : {SIGUSR1, SIGRTMIN + 1}) {
    QueueSelf(signum, -7);
    const SignalEvent event = Next(receiver);
    EXPECT_EQ(event.origin, Origin::kQueue);
    ExpectFromOurselves(event);
    EXPECT_EQ(event.value->sival_int, -7);
    EXPECT_THAT(InWords(event), HasSubstr(" with value -7"));
  }
}

// A pointer is kept whole.
TEST(Origin, TheQueuesValueCanBeAPointer) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  ASSERT_EQ(sigqueue(getpid(), SIGRTMIN, {.sival_ptr = &receiver}), 0);
  EXPECT_EQ(Next(receiver).value->sival_ptr, &receiver);
}

// S1
TEST(Origin, IsTheKernelForAnAlarm) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGALRM});
  const itimerval soon = {.it_interval = {}, .it_value = {0, 1}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.origin, Origin::kKernel);
  EXPECT_FALSE(event.sender.has_value());
  EXPECT_EQ(InWords(event), "SIGALRM from the kernel");
}

// A timer of timer_create(2) that sends SIGRTMIN to the process.
class Timer {
 public:
  explicit Timer(int value) {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN;
    event.sigev_value.sival_int = value;
    EXPECT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer_), 0);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { timer_delete(timer_); }

  void Set(const itimerspec& when) {
    EXPECT_EQ(timer_settime(timer_, 0, &when, nullptr), 0);
  }

 private:
  timer_t timer_;
};

constexpr timespec kMicrosecond = {.tv_sec = 0, .tv_nsec = 1000};

// S1
TEST(Origin, IsTheTimerForTimerCreate) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  Timer timer(42);
  timer.Set({.it_interval = {}, .it_value = kMicrosecond});
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.origin, Origin::kTimer);
  EXPECT_FALSE(event.sender.has_value());
  EXPECT_EQ(event.value->sival_int, 42);
  EXPECT_EQ(event.timer_overrun, 0);
  EXPECT_EQ(InWords(event), "SIGRTMIN from the timer with value 42");
}

// S1: it expires again and again before anybody can take its signal.
TEST(Origin, ATimerTellsHowManyExpirationsWereMissed) {
  SetDisposition(SIGRTMIN, SIG_IGN);  // for what comes after the close
  {
    const ScopedSignalBlock block({SIGRTMIN});
    Timer timer(42);
    timer.Set({.it_interval = kMicrosecond, .it_value = kMicrosecond});
    auto service = StartService();
    SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
    SignalEvent event;
    do {
      event = Next(receiver);
      ASSERT_EQ(event.origin, Origin::kTimer);
    } while (event.timer_overrun == 0);
    EXPECT_THAT(InWords(event),
                HasSubstr(absl::StrCat(", ", *event.timer_overrun,
                                       " expirations missed")));
  }
  SetDisposition(SIGRTMIN, SIG_DFL);
}

// It goes on sending while the receiver closes.
TEST(Close, EndsAlsoWhenATimerSendsAsFastAsItsSignalsAreTaken) {
  SetDisposition(SIGRTMIN, SIG_IGN);  // for what comes after the close
  {
    const ScopedSignalBlock block({SIGRTMIN});
    Timer timer(42);
    timer.Set({.it_interval = kMicrosecond, .it_value = kMicrosecond});
    auto service = StartService();
    for (int i = 0; i < 100; ++i) {
      SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
      EXPECT_EQ(Next(receiver).origin, Origin::kTimer);
    }
  }
  SetDisposition(SIGRTMIN, SIG_DFL);
}

// S1
TEST(Origin, IsTheMessageQueueForMqNotify) {
  const std::string name =
      absl::StrCat("/tocsin_siginfo_test_", std::random_device()());
  mq_attr attributes{};
  attributes.mq_maxmsg = 1;
  attributes.mq_msgsize = 1;
  const mqd_t queue =
      mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
  if (queue == -1) GTEST_SKIP() << "no message queues here, errno " << errno;
  mq_unlink(name.c_str());
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGRTMIN});
  sigevent event_wanted{};
  event_wanted.sigev_notify = SIGEV_SIGNAL;
  event_wanted.sigev_signo = SIGRTMIN;
  event_wanted.sigev_value.sival_int = 9;
  ASSERT_EQ(mq_notify(queue, &event_wanted), 0);
  ASSERT_EQ(mq_send(queue, "x", 1, 0), 0);
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.origin, Origin::kMessageQueue);
  ExpectFromOurselves(event);
  EXPECT_EQ(event.value->sival_int, 9);
  mq_close(queue);
}

// S1: also for a standard signal that was chosen with F_SETSIG.
TEST(Origin, IsIoForAFileDescriptorThatBecameReady) {
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGIO, SIGUSR1, SIGCHLD, SIGRTMIN});
  for (int signum : {SIGIO, SIGUSR1, SIGCHLD, SIGRTMIN}) {
    Pipe pipe;
    ASSERT_EQ(fcntl(pipe.reader(), F_SETOWN, getpid()), 0);
    ASSERT_EQ(fcntl(pipe.reader(), F_SETSIG, signum), 0);
    ASSERT_EQ(fcntl(pipe.reader(), F_SETFL, O_ASYNC), 0);
    pipe.Put();
    const SignalEvent event = Next(receiver);
    EXPECT_EQ(event.signum, signum);
    EXPECT_EQ(event.origin, Origin::kIo);
    EXPECT_FALSE(event.sender.has_value());
    EXPECT_EQ(event.fd, pipe.reader());
    EXPECT_THAT(InWords(event),
                EndsWith(absl::StrCat(" for fd ", pipe.reader())));
    // Before the pipe is closed, which is readable too.
    ASSERT_EQ(fcntl(pipe.reader(), F_SETFL, 0), 0);
  }
}

// G04. The kernel says of both that we sent them to ourselves.
TEST(Origin, AWriteInVainFailsAndIsReceived) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGPIPE, SIGXFSZ});
  std::thread([] {
    Pipe pipe;
    pipe.CloseReader();
    EXPECT_EQ(write(pipe.writer(), "x", 1), -1);
    EXPECT_EQ(errno, EPIPE);
  }).join();
  SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, SIGPIPE);
  ExpectFromOurselves(event);

  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
  FILE* const file = tmpfile();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_EQ(write(fileno(file), "x", 1), -1);
  const int error = errno;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  fclose(file);
  EXPECT_EQ(error, EFBIG);
  EXPECT_EQ(Next(receiver).signum, SIGXFSZ);
}

// G05, T3: without a handler the kernel would drop these.
TEST(Origin, SignalsThatAreIgnoredByDefaultAreReceived) {
  auto service = StartService();
  SignalReceiver receiver =
      OpenReceiver(*service, {SIGCHLD, SIGWINCH, SIGURG, SIGCONT});
  for (int signum : {SIGCHLD, SIGWINCH, SIGURG, SIGCONT}) {
    SendSelf(signum);
    const SignalEvent event = Next(receiver);
    EXPECT_EQ(event.signum, signum);
    EXPECT_EQ(event.origin, Origin::kUser);
    EXPECT_FALSE(event.child.has_value());
  }
}

// The fields of a siginfo_t that whoever sends it fills in.
siginfo_t Forged(int signum, int code) {
  siginfo_t info{};
  info.si_signo = signum;
  info.si_code = code;
  info.si_pid = 1;
  info.si_uid = 4242;
  info.si_value.sival_int = 7;
  return info;
}

// What a sender says of itself is passed on and means nothing.
TEST(Origin, OfAForgedSiginfoIsWhatTheForgerWrote) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGTERM, SIGRTMIN});
  for (int signum : {SIGTERM, SIGRTMIN}) {
    const siginfo_t queued = Forged(signum, SI_QUEUE);
    ASSERT_EQ(syscall(SYS_rt_sigqueueinfo, getpid(), signum, &queued), 0);
    SignalEvent event = Next(receiver);
    EXPECT_EQ(event.signum, signum);
    EXPECT_EQ(event.origin, Origin::kQueue);
    EXPECT_EQ(event.sender->pid, 1);
    EXPECT_EQ(event.sender->uid, 4242u);

    const siginfo_t unheard_of = Forged(signum, -12345);
    ASSERT_EQ(syscall(SYS_rt_sigqueueinfo, getpid(), signum, &unheard_of), 0);
    event = Next(receiver);
    EXPECT_EQ(event.signum, signum);
    EXPECT_EQ(event.origin, Origin::kOther);
    EXPECT_FALSE(event.sender.has_value());
  }
}

// The kernel takes any code from a process that sends to itself, from its main
// thread, where the tests run.
SignalEvent ReceiveForged(SignalReceiver& receiver, const siginfo_t& info) {
  EXPECT_EQ(syscall(SYS_rt_sigqueueinfo, getpid(), info.si_signo, &info), 0);
  SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, info.si_signo);
  EXPECT_EQ(event.count, 1);
  return event;
}

// SI_USER, SI_TKILL and so on mean the same for every signal.
TEST(Origin, IsByTheCodeOfTheSiginfo) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(
      *service, {SIGINT, SIGQUIT, SIGTSTP, SIGHUP, SIGCONT, SIGWINCH, SIGTERM,
                 SIGALRM, SIGXCPU, SIGURG, SIGCHLD, SIGIO, SIGUSR1, SIGRTMIN});
  for (int signum : {SIGINT, SIGTERM, SIGCHLD, SIGIO, SIGRTMIN}) {
    const std::pair<int, Origin> origins[] = {
        {SI_USER, Origin::kUser},          {SI_TKILL, Origin::kUser},
        {SI_QUEUE, Origin::kQueue},        {SI_TIMER, Origin::kTimer},
        {SI_MESGQ, Origin::kMessageQueue}, {SI_SIGIO, Origin::kIo},
        {SI_ASYNCIO, Origin::kOther},      {SI_ASYNCNL, Origin::kOther},
    };
    for (const auto& [code, origin] : origins) {
      const SignalEvent event = ReceiveForged(receiver, Forged(signum, code));
      EXPECT_EQ(event.origin, origin)
          << SignalName(signum) << ", code " << code;
    }
  }
  for (int signum : {SIGINT, SIGQUIT, SIGTSTP, SIGHUP, SIGCONT, SIGWINCH}) {
    EXPECT_EQ(ReceiveForged(receiver, Forged(signum, SI_KERNEL)).origin,
              Origin::kTerminal)
        << SignalName(signum);
  }
  for (int signum :
       {SIGTERM, SIGALRM, SIGXCPU, SIGURG, SIGCHLD, SIGUSR1, SIGRTMIN}) {
    EXPECT_EQ(ReceiveForged(receiver, Forged(signum, SI_KERNEL)).origin,
              Origin::kKernel)
        << SignalName(signum);
  }
  for (int code = 1; code <= 6; ++code) {
    for (int signum : {SIGIO, SIGUSR1, SIGRTMIN}) {
      EXPECT_EQ(ReceiveForged(receiver, Forged(signum, code)).origin,
                Origin::kIo)
          << SignalName(signum) << ", code " << code;
    }
  }
}

// And of the rest it has nothing, though the siginfo has something there.
TEST(Origin, DecidesWhatElseAnEventHas) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD, SIGRTMIN});
  const std::pair<int, Change> changes[] = {
      {CLD_EXITED, Change::kExited},   {CLD_KILLED, Change::kKilled},
      {CLD_DUMPED, Change::kDumped},   {CLD_TRAPPED, Change::kTrapped},
      {CLD_STOPPED, Change::kStopped}, {CLD_CONTINUED, Change::kContinued},
  };
  for (const auto& [code, change] : changes) {
    const SignalEvent event = ReceiveForged(receiver, Forged(SIGCHLD, code));
    EXPECT_EQ(event.origin, Origin::kChild);
    EXPECT_EQ(event.sender->pid, 1);
    EXPECT_EQ(event.sender->uid, 4242u);
    EXPECT_EQ(event.child->pid, 1);
    EXPECT_EQ(event.child->change, change);
    EXPECT_EQ(event.child->code, 7);
    EXPECT_FALSE(event.value || event.timer_overrun || event.fd);
  }
  for (int code : {SI_USER, SI_TKILL, SI_QUEUE, SI_MESGQ}) {
    siginfo_t info = Forged(SIGRTMIN, code);
    SignalEvent event = ReceiveForged(receiver, info);
    EXPECT_EQ(event.sender->pid, 1);
    EXPECT_EQ(event.sender->uid, 4242u);
    EXPECT_EQ(event.value.has_value(), code == SI_QUEUE || code == SI_MESGQ);
    EXPECT_EQ(event.value.value_or(sigval{.sival_int = 7}).sival_int, 7);
    EXPECT_FALSE(event.child || event.timer_overrun || event.fd);
    // The kernel's way to say that it is nobody of our pid namespace.
    info.si_pid = 0;
    event = ReceiveForged(receiver, info);
    EXPECT_FALSE(event.sender.has_value());
    EXPECT_EQ(event.value.has_value(), code == SI_QUEUE || code == SI_MESGQ);
  }
  SignalEvent event = ReceiveForged(receiver, Forged(SIGRTMIN, SI_TIMER));
  EXPECT_EQ(event.value->sival_int, 7);
  EXPECT_EQ(event.timer_overrun, 4242);
  EXPECT_FALSE(event.sender || event.child || event.fd);
  for (int code : {int{SI_SIGIO}, int{POLL_IN}}) {
    event = ReceiveForged(receiver, Forged(SIGRTMIN, code));
    EXPECT_EQ(event.fd, 7);
    EXPECT_FALSE(event.sender || event.child || event.value ||
                 event.timer_overrun);
  }
  for (int code : {int{SI_KERNEL}, -12345}) {
    event = ReceiveForged(receiver, Forged(SIGRTMIN, code));
    EXPECT_FALSE(event.sender || event.child || event.value ||
                 event.timer_overrun || event.fd);
  }
}

void ExpectChild(SignalReceiver& receiver, const Child& child, Change change,
                 int code, const std::string& words) {
  const SignalEvent event = Next(receiver);
  EXPECT_EQ(event.signum, SIGCHLD);
  EXPECT_EQ(event.origin, Origin::kChild);
  ASSERT_TRUE(event.child.has_value());
  EXPECT_EQ(event.child->pid, child.pid());
  EXPECT_EQ(event.child->change, change);
  EXPECT_EQ(event.child->code, code);
  EXPECT_EQ(event.sender->pid, child.pid());
  EXPECT_EQ(event.sender->uid, getuid());
  EXPECT_EQ(InWords(event),
            absl::StrCat("SIGCHLD: child ", child.pid(), " ", words));
}

TEST(Origin, IsTheChildForItsChanges) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGCHLD});
  Child exits(Fork([] { _exit(7); }));
  ExpectChild(receiver, exits, Change::kExited, 7, "exited with status 7");
  Child waits(Fork([] {
    while (true) pause();
  }));
  waits.Send(SIGSTOP);
  ExpectChild(receiver, waits, Change::kStopped, SIGSTOP,
              "was stopped by SIGSTOP");
  waits.Send(SIGCONT);
  ExpectChild(receiver, waits, Change::kContinued, SIGCONT,
              "was continued by SIGCONT");
  waits.Send(SIGTERM);
  ExpectChild(receiver, waits, Change::kKilled, SIGTERM,
              "was killed by SIGTERM");
}

TEST(InWords, TellsHowManyWereMerged) {
  auto service = StartService();
  SignalReceiver receiver = OpenReceiver(*service, {SIGUSR1});
  SignalReceiver witness = OpenReceiver(*service, {SIGUSR1});
  for (int i = 0; i < 3; ++i) {
    SendSelf(SIGUSR1);
    Next(witness);
  }
  EXPECT_THAT(InWords(Next(receiver)),
              AllOf(StartsWith("SIGUSR1 (3 times) from pid "),
                    HasSubstr("siginfo_test")));
}

}  // namespace
}  // namespace tocsin
