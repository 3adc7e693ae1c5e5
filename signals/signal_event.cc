#include "tocsin/signals/signal_event.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {
namespace {

std::string CommandOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/comm"));
  std::string command;
  std::getline(file, command);
  return command;
}

const char* Verb(ChildStatus::Change change) {
  switch (change) {
    case ChildStatus::Change::kExited:
      return "exited with status ";
    case ChildStatus::Change::kKilled:
      return "was killed by ";
    case ChildStatus::Change::kDumped:
      return "dumped core on ";
    case ChildStatus::Change::kTrapped:
      return "was trapped by ";
    case ChildStatus::Change::kStopped:
      return "was stopped by ";
    case ChildStatus::Change::kContinued:
      return "was continued by ";
  }
  return "";
}

}  // namespace

std::ostream& operator<<(std::ostream& out, SignalEvent::Origin origin) {
  switch (origin) {
    case SignalEvent::Origin::kUser:
      return out << "user";
    case SignalEvent::Origin::kQueue:
      return out << "queue";
    case SignalEvent::Origin::kKernel:
      return out << "kernel";
    case SignalEvent::Origin::kTerminal:
      return out << "terminal";
    case SignalEvent::Origin::kTimer:
      return out << "timer";
    case SignalEvent::Origin::kChild:
      return out << "child";
    case SignalEvent::Origin::kMessageQueue:
      return out << "message queue";
    case SignalEvent::Origin::kIo:
      return out << "io";
    case SignalEvent::Origin::kOther:
      break;
  }
  return out << "other";
}

std::ostream& operator<<(std::ostream& out, const SignalEvent& event) {
  using Origin = SignalEvent::Origin;
  out << SignalName(event.signum);
  if (event.count > 1) out << " (" << event.count << " times)";
  if (event.child.has_value()) {
    out << ": child " << event.child->pid << " " << Verb(event.child->change);
    if (event.child->change == ChildStatus::Change::kExited) {
      return out << event.child->code;
    }
    return out << SignalName(event.child->code);
  }
  if (event.sender.has_value()) {
    out << " from pid " << event.sender->pid << " (";
    if (std::string name = CommandOf(event.sender->pid); !name.empty()) {
      out << name << ", ";
    }
    out << "uid " << event.sender->uid << ")";
  } else if (event.origin == Origin::kUser || event.origin == Origin::kQueue) {
    out << " from outside of this pid namespace";
  } else if (event.origin == Origin::kTerminal ||
             event.origin == Origin::kTimer) {
    out << " from the " << event.origin;
  } else {
    out << " from the kernel";
  }
  if (event.fd.has_value()) out << " for fd " << *event.fd;
  if (event.value.has_value()) {
    out << " with value " << event.value->sival_int;
  }
  if (event.timer_overrun.value_or(0) > 0) {
    out << ", " << *event.timer_overrun << " expirations missed";
  }
  return out;
}

}  // namespace tocsin::inline v0_2
