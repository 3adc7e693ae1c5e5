#include "tocsin/signals/signal_set.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace tocsin::inline v0_2 {
namespace {

struct Name {
  int signum;
  absl::string_view name;
};

// Where a number has two names, the first is the one we print.
constexpr Name kNames[] = {
    {SIGHUP, "HUP"},       {SIGINT, "INT"},       {SIGQUIT, "QUIT"},
    {SIGILL, "ILL"},       {SIGTRAP, "TRAP"},     {SIGABRT, "ABRT"},
    {SIGABRT, "IOT"},      {SIGBUS, "BUS"},       {SIGFPE, "FPE"},
    {SIGKILL, "KILL"},     {SIGUSR1, "USR1"},     {SIGSEGV, "SEGV"},
    {SIGUSR2, "USR2"},     {SIGPIPE, "PIPE"},     {SIGALRM, "ALRM"},
    {SIGTERM, "TERM"},     {SIGSTKFLT, "STKFLT"}, {SIGCHLD, "CHLD"},
    {SIGCHLD, "CLD"},      {SIGCONT, "CONT"},     {SIGSTOP, "STOP"},
    {SIGTSTP, "TSTP"},     {SIGTTIN, "TTIN"},     {SIGTTOU, "TTOU"},
    {SIGURG, "URG"},       {SIGXCPU, "XCPU"},     {SIGXFSZ, "XFSZ"},
    {SIGVTALRM, "VTALRM"}, {SIGPROF, "PROF"},     {SIGWINCH, "WINCH"},
    {SIGIO, "IO"},         {SIGPOLL, "POLL"},     {SIGPWR, "PWR"},
    {SIGSYS, "SYS"},
};

// SimpleAtoi() would also accept a sign, and blanks on either side.
std::optional<int> Number(absl::string_view text) {
  int number;
  if (!std::all_of(text.begin(), text.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(text, &number)) {
    return std::nullopt;
  }
  return number;
}

// The number in `text` after `prefix`: 3 for "RTMIN+3" after "RTMIN", 0 for
// "RTMIN" alone.
std::optional<int> Offset(absl::string_view text, absl::string_view prefix) {
  if (!absl::ConsumePrefix(&text, prefix)) return std::nullopt;
  if (text.empty()) return 0;
  const char sign = text.front();
  text.remove_prefix(1);
  const std::optional<int> offset = Number(text);
  if ((sign != '+' && sign != '-') || !offset.has_value()) return std::nullopt;
  return sign == '+' ? *offset : -*offset;
}

absl::string_view WhyRefused(int signum) {
  switch (signum) {
    case SIGKILL:
    case SIGSTOP:
      return "the kernel never delivers it to a program; clean up on SIGTERM, "
             "which well-behaved senders try first";
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS:
      return "it reports a fault of the thread that runs, which cannot go on; "
             "install a crash handler for it instead";
    case SIGABRT:
      return "abort() ends the program whatever is done about the signal; "
             "install a crash handler for it instead";
    case SIGTTIN:
    case SIGTTOU:
      return "the terminal call that raises it would be restarted and raise it "
             "again without end; leave it to stop the job";
    case SIGSTKFLT:
      return "the signal service wakes its own thread with it; choose another, "
             "for example a real-time signal";
  }
  if (signum >= 32 && signum < SIGRTMIN) {
    return "the C library keeps it for its threads; choose one from SIGRTMIN "
           "on";
  }
  return "";
}

}  // namespace

std::string SignalName(int signum) {
  for (const Name& known : kNames) {
    if (known.signum == signum) return absl::StrCat("SIG", known.name);
  }
  if (signum == SIGRTMAX) return "SIGRTMAX";
  if (signum == SIGRTMIN) return "SIGRTMIN";
  if (signum > SIGRTMIN && signum < SIGRTMAX) {
    return absl::StrCat("SIGRTMIN+", signum - SIGRTMIN);
  }
  return absl::StrCat("signal ", signum);
}

absl::StatusOr<int> ParseSignal(std::string_view given) {
  // Abseil's own string_view is another type in some builds of it.
  const absl::string_view text(given.data(), given.size());
  const std::string upper = absl::AsciiStrToUpper(text);
  const absl::string_view name = absl::StripPrefix(upper, "SIG");
  for (const Name& known : kNames) {
    if (name == known.name) return known.signum;
  }
  std::optional<int> signum;
  if (const auto above = Offset(name, "RTMIN"); above.has_value()) {
    if (*above >= 0 && *above <= SIGRTMAX - SIGRTMIN)
      signum = SIGRTMIN + *above;
  } else if (const auto below = Offset(name, "RTMAX"); below.has_value()) {
    if (*below <= 0 && *below >= SIGRTMIN - SIGRTMAX)
      signum = SIGRTMAX + *below;
  } else if (const auto number = Number(text); number.has_value()) {
    if (*number >= 1 && *number <= SIGRTMAX) signum = *number;
  }
  if (signum.has_value()) return *signum;
  return absl::InvalidArgumentError(
      absl::StrCat("no such signal: \"", text,
                   "\"; name one as TERM, SIGTERM, 15 or RTMIN+3"));
}

absl::Status CheckReceivable(const SignalSet& signals) {
  if (signals.malformed_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "signal ", signals.not_a_signal_,
        " cannot be received: signals are numbered from 1 to ", SIGRTMAX));
  }
  if (signals.empty()) {
    return absl::InvalidArgumentError(
        "no signals were given; name at least one, for example SIGTERM");
  }
  for (int signum : signals) {
    if (absl::string_view why = WhyRefused(signum); !why.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(SignalName(signum), " cannot be received: ", why));
    }
  }
  return absl::OkStatus();
}

}  // namespace tocsin::inline v0_2
