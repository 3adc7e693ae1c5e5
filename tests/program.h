// Another program, run by a test that reads what it prints and sends it
// signals.
#ifndef TOCSIN_TESTS_PROGRAM_H_
#define TOCSIN_TESTS_PROGRAM_H_

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdio>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/process_status.h"

extern char** environ;

namespace tocsin {

class StartedProgram : public Child {
 public:
  // Its standard output and error come to ReadLine(). It has nothing to read.
  explicit StartedProgram(std::vector<std::string> argv)
      : StartedProgram(Start(std::move(argv))) {}
  ~StartedProgram() { fclose(output_); }

  // The next line without its newline, which is waited for; "" at the end.
  std::string ReadLine() {
    std::string line;
    for (int c; (c = fgetc(output_)) != EOF && c != '\n';) {
      line.push_back(static_cast<char>(c));
    }
    return line;
  }

  // All that is left.
  std::string ReadAll() {
    std::string all;
    for (int c; (c = fgetc(output_)) != EOF;) {
      all.push_back(static_cast<char>(c));
    }
    return all;
  }

  // Waits until it has a handler for each of `signals`.
  void AwaitHandlers(std::initializer_list<int> signals) const {
    const std::string task = std::to_string(pid());
    for (int signum : signals) {
      while (!Contains(StatusMask(task, "SigCgt"), signum)) {
        ASSERT_FALSE(HasEnded()) << "without a handler for " << signum;
        sched_yield();
      }
    }
  }

 private:
  struct Started {
    pid_t pid;
    FILE* output;
  };

  explicit StartedProgram(Started started)
      : Child(started.pid), output_(started.output) {}

  static Started Start(std::vector<std::string> argv) {
    Started started{.pid = -1, .output = nullptr};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) ADD_FAILURE() << "pipe2";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    if (posix_spawn(&started.pid, arguments[0], &actions, nullptr,
                    arguments.data(), environ) != 0) {
      ADD_FAILURE() << "cannot run " << argv[0];
    }
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    started.output = fdopen(ends[0], "r");
    return started;
  }

  FILE* const output_;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_PROGRAM_H_
