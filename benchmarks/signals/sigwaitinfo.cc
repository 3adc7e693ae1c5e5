// A thread that sits in sigwaitinfo(2): as fast as it can be.

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
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      return 0;  // nothing is left open
    });
  }
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  assignment.ReportOpen();
  for (;;) {
    siginfo_t info;
    const int signum = sigwaitinfo(&set, &info);
    if (signum > 0) assignment.Answer(0, signum);
  }
}
