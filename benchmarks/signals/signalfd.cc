// A thread that reads a signalfd(2).

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "tocsin/benchmarks/signals/assignment.h"

int main(int argc, char** argv) {
  tocsin::benchmarks::Assignment assignment(argc, argv);
  sigset_t set;
  sigemptyset(&set);
  for (int signum : assignment.signals()) sigaddset(&set, signum);
  if (assignment.task() == "open_close") {
    return assignment.MeasureOpenClose([&] {
      pthread_sigmask(SIG_BLOCK, &set, nullptr);
      close(signalfd(-1, &set, SFD_CLOEXEC));
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      return 0;  // nothing is left open
    });
  }
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int fd = signalfd(-1, &set, SFD_CLOEXEC);
  assignment.ReportOpen();
  for (;;) {
    signalfd_siginfo batch[64];
    const ssize_t size = read(fd, batch, sizeof(batch));
    const auto count = size / static_cast<ssize_t>(sizeof(batch[0]));
    for (ssize_t i = 0; i < count; ++i) {
      assignment.Answer(0, static_cast<int>(batch[i].ssi_signo));
    }
  }
}
