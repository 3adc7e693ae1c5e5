// Ends a test that hangs, and says what for.
//
// It lives in a process of its own, the parent of the one that runs the tests,
// and looks at that one and all below it from outside. It goes by facts that
// the load of the machine does not change: whether anybody gets to run, and how
// much the processors have worked for them.
#ifndef TOCSIN_TESTS_WATCHDOG_H_
#define TOCSIN_TESTS_WATCHDOG_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace tocsin {

// What the process of the tests tells the watchdog, in memory of both.
struct UnderWay {
  std::atomic<uint32_t> cases;       // that have begun
  std::atomic<uint32_t> times_long;  // see AllowLongRun()
  char name[256];                    // of the one that runs
};

// With this argument a test program watches nobody, and runs its tests in the
// state that it was started with.
inline constexpr char kAsStarted[] = "--as_started";

// Called by a test: it may take so many times as long as others.
void AllowLongRun(int times);

class Watchdog {
 public:
  // Of the process `child` and those below it.
  Watchdog(pid_t child, const UnderWay& under_way)
      : child_(child), under_way_(under_way) {}

  // How long the caller waits between two looks.
  static constexpr int kMillisecondsBetweenLooks = 200;

  // Looks. True if the test that is under way has to be ended: since it began,
  // or for the last 25 looks, nobody has run; or they have taken 7 s of the
  // processors, 60 s under a sanitizer and where coverage is measured. Both are
  // many times what any test needs.
  bool Hangs();

  // Writes to stderr what was wrong, and what each thread waits for.
  void Report(const std::string& wrong) const;
  std::string wrong() const { return wrong_; }

  // Kills them all.
  void KillAll() const;

 private:
  struct Look {
    int64_t worked;  // ticks of the processors
    bool runs;       // some thread was running, or about to
  };

  const pid_t child_;
  const UnderWay& under_way_;
  uint32_t case_ = 0;
  std::deque<Look> looks_;  // at this case, the last of them
  int64_t worked_before_ = 0;
  std::string wrong_;
};

}  // namespace tocsin

#endif  // TOCSIN_TESTS_WATCHDOG_H_
