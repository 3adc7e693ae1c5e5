// One signal as a receiver gets it: which, why, from whom.
//
//   std::cout << event << "\n";   // SIGTERM from pid 4711 (kubelet, uid 0)
//
// What it says about the sender is for people to read, not to decide by: any
// process that may send a signal at all can forge it (sigqueue(3)).
//
// A value: each thread has its own.
#ifndef TOCSIN_SIGNALS_SIGNAL_EVENT_H_
#define TOCSIN_SIGNALS_SIGNAL_EVENT_H_

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <ostream>
#include <sstream>

#include "absl/time/time.h"

namespace tocsin::inline v0_2 {

struct Sender {
  pid_t pid;
  uid_t uid;
};

// What SIGCHLD says about a child.
struct ChildStatus {
  enum class Change {
    kExited,
    kKilled,
    kDumped,
    kTrapped,
    kStopped,
    kContinued
  };
  pid_t pid;
  Change change;
  int code;  // the exit status for kExited, else the signal
};

struct SignalEvent {
  // Where it came from, by siginfo_t's si_code.
  enum class Origin {
    kUser,          // kill(2), raise(3), pthread_kill(3)
    kQueue,         // sigqueue(3)
    kKernel,        // the kernel itself, for example at a CPU limit
    kTerminal,      // a key such as Ctrl+C, a hang-up, a new window size
    kTimer,         // timer_settime(2)
    kChild,         // a child changed its state
    kMessageQueue,  // mq_notify(3)
    kIo,            // a file descriptor became ready, fcntl(2) F_SETSIG
    kOther,
  };

  int signum = 0;
  // How many signals of this number were merged into this event while it was
  // queued, the first included. Always 1 for real-time signals, which are never
  // merged.
  int count = 1;
  Origin origin = Origin::kOther;
  // std::nullopt if the kernel names no sender: for the terminal, a timer, I/O
  // and the kernel itself, and for kUser and kQueue if the sender is outside of
  // our pid namespace.
  std::optional<Sender> sender;
  std::optional<sigval> value;       // kQueue, kTimer, kMessageQueue
  std::optional<ChildStatus> child;  // kChild
  std::optional<int> timer_overrun;  // kTimer: expirations that were missed
  std::optional<int> fd;             // kIo
  absl::Time received_at;            // when our process took it from the kernel

  // In words, with the sender's command name as it is at the time of printing.
  friend std::ostream& operator<<(std::ostream& out, const SignalEvent& event);
  // The same for absl::StrCat() and absl::StrFormat(), in releases of Abseil
  // that have it.
  template <typename Sink>
  friend void AbslStringify(Sink& sink, const SignalEvent& event) {
    std::ostringstream out;
    out << event;
    sink.Append(out.str());
  }
};

// "user", "queue", "terminal", ...
std::ostream& operator<<(std::ostream& out, SignalEvent::Origin origin);
template <typename Sink>
void AbslStringify(Sink& sink, SignalEvent::Origin origin) {
  std::ostringstream out;
  out << origin;
  sink.Append(out.str());
}

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SIGNAL_EVENT_H_
