// A program under a pseudo-terminal of its own.
#ifndef TOCSIN_TESTS_TERMINAL_H_
#define TOCSIN_TESTS_TERMINAL_H_

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <termios.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/child.h"

namespace tocsin {

class Terminal : public Child {
 public:
  // The program leads the terminal's session, and its group the foreground.
  explicit Terminal(std::vector<std::string> argv)
      : Terminal(Start(std::move(argv))) {}
  ~Terminal() { HangUp(); }

  void Type(std::string_view keys) const {
    EXPECT_EQ(write(keyboard_, keys.data(), keys.size()),
              static_cast<ssize_t>(keys.size()));
  }

  void Resize(unsigned short rows) const {
    const winsize size = {
        .ws_row = rows, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
    EXPECT_EQ(ioctl(keyboard_, TIOCSWINSZ, &size), 0);
  }

  void HangUp() {
    if (keyboard_ >= 0) close(std::exchange(keyboard_, -1));
  }

  // Waits until it has shown `text`, after what this returned before. Returns
  // what it has shown up to there.
  std::string AwaitText(std::string_view text) {
    size_t at;
    while ((at = shown_.find(text)) == std::string::npos) {
      if (!Read()) {
        ADD_FAILURE() << "no \"" << text << "\" in: " << shown_;
        return std::exchange(shown_, "");
      }
    }
    std::string up_to = shown_.substr(0, at + text.size());
    shown_.erase(0, up_to.size());
    return up_to;
  }

  // All that it shows until nobody has it open any more.
  std::string AwaitEnd() {
    while (Read()) {
    }
    return std::exchange(shown_, "");
  }

 private:
  struct Started {
    pid_t pid;
    int keyboard;
  };

  explicit Terminal(Started started)
      : Child(started.pid), keyboard_(started.keyboard) {}

  static Started Start(std::vector<std::string> argv) {
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    Started started;
    started.pid = forkpty(&started.keyboard, nullptr, nullptr, nullptr);
    if (started.pid == 0) {
      execvp(arguments[0], arguments.data());
      _exit(127);
    }
    return started;
  }

  // False at the end: a terminal that nobody has open gives EIO.
  bool Read() {
    char buffer[512];
    const ssize_t size = read(keyboard_, buffer, sizeof(buffer));
    if (size <= 0) return false;
    shown_.append(buffer, static_cast<size_t>(size));
    return true;
  }

  int keyboard_;
  std::string shown_;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_TERMINAL_H_
