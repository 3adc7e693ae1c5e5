// Another program, run by a test that reads what it prints and sends it
// signals.
#ifndef TOCSIN_TESTS_PROGRAM_H_
#define TOCSIN_TESTS_PROGRAM_H_

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include "gtest/gtest.h"

extern char** environ;

namespace tocsin {

class Program {
 public:
  // Its standard output and error come to ReadLine(). It has nothing to read.
  explicit Program(std::vector<std::string> argv) {
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
    if (posix_spawn(&pid_, arguments[0], &actions, nullptr, arguments.data(),
                    environ) != 0) {
      ADD_FAILURE() << "cannot run " << argv[0];
    }
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (!waited_) {
      Send(SIGKILL);
      Wait();
    }
    fclose(output_);
  }

  pid_t pid() const { return pid_; }

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
    for (int signum : signals) {
      while ((CaughtMask() >> (signum - 1) & 1) == 0) sched_yield();
    }
  }

  void Send(int signum) const { EXPECT_EQ(kill(pid_, signum), 0); }

  // Its wait status, as of waitpid(2).
  int Wait() {
    int status = -1;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    waited_ = true;
    return status;
  }

 private:
  uint64_t CaughtMask() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
    for (std::string word; file >> word;) {
      if (word != "SigCgt:") continue;
      file >> word;
      return std::stoull(word, nullptr, 16);
    }
    ADD_FAILURE() << "process " << pid_ << " is gone";
    return ~uint64_t{0};
  }

  pid_t pid_ = -1;
  FILE* output_ = nullptr;
  bool waited_ = false;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_PROGRAM_H_
