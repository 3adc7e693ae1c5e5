// A program with a copy of the library that loads others with copies of their
// own, and does what it is told:
//
//   plugin_host load:FILE start:1 start:0 send receive:1 stop:1 die
//
// Plug-in 0 is the program itself. Each command prints a line.
#include <dlfcn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tests/plugin.h"

namespace {

std::vector<const Plugin*> plugins = {&plugin};
std::atomic<bool> foreign_ran = false;
bool forked = false;

void Foreign(int) { foreign_ran = true; }

const Plugin* Load(const char* file) {
  void* const object = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (object == nullptr) {
    std::puts(dlerror());
    std::exit(1);
  }
  return static_cast<const Plugin*>(dlsym(object, "plugin"));
}

void SetHandler(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigaction(SIGSTKFLT, &action, nullptr);
}

const char* Disposition() {
  struct sigaction action;
  sigaction(SIGSTKFLT, nullptr, &action);
  if (action.sa_handler == SIG_DFL) return "default";
  if (action.sa_handler == SIG_IGN) return "ignored";
  return action.sa_handler == &Foreign ? "foreign" : "other";
}

// A bell that comes to this thread.
void Ring() {
  foreign_ran = false;
  syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGSTKFLT);
}

void Obey(std::string_view command) {
  const size_t colon = command.find(':');
  const std::string_view verb = command.substr(0, colon);
  const char* const argument =
      colon == command.npos ? "0" : command.data() + colon + 1;
  const auto which = [&] {
    return plugins.at(std::strtoul(argument, nullptr, 10));
  };
  if (verb == "load") {
    plugins.push_back(Load(argument));
    std::puts("loaded");
  } else if (verb == "start") {
    std::puts(which()->start());
  } else if (verb == "receive") {
    std::printf("%d\n", which()->receive());
  } else if (verb == "stop") {
    which()->stop();
    std::puts("stopped");
  } else if (verb == "send") {
    kill(getpid(), SIGTERM);
    std::puts("sent");
  } else if (verb == "ring") {
    Ring();
    std::puts(foreign_ran ? "the foreign handler ran" : "nothing");
  } else if (verb == "foreign" || verb == "ignore") {
    SetHandler(verb == "foreign" ? Foreign : SIG_IGN);
    std::puts(Disposition());
  } else if (verb == "disposition") {
    std::puts(Disposition());
  } else if (verb == "fork") {
    // The child does the rest, then the parent too.
    int status = 0;
    const pid_t child = fork();
    forked = child == 0;
    if (!forked) waitpid(child, &status, 0);
    std::printf(forked ? "child\n" : "parent, %d\n", status);
  } else if (verb == "die") {
    kill(getpid(), SIGTERM);
    std::puts("alive");
  } else {
    std::printf("no command: %s\n", command.data());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (int i = 1; i < argc; ++i) Obey(argv[i]);
  if (!forked) return 0;
  std::fflush(stdout);
  _exit(0);  // LeakSanitizer looks for the threads of the parent
}
