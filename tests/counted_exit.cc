// Linked into every program that is measured for coverage: a forked child that
// ends by _exit() writes its counts, too.
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

extern "C" void __gcov_dump();

namespace {

// A child made behind the back of pthread_atfork(), as by vfork(), may be in
// the memory of its parent, whose counts they are.
pid_t process = getpid();
[[maybe_unused]] const int at_fork =
    pthread_atfork(nullptr, nullptr, [] { process = getpid(); });

}  // namespace

extern "C" void _exit(int status) {
  if (process == getpid()) __gcov_dump();
  while (true) syscall(SYS_exit_group, status);
}
