// What reads text from outside, on any text. Under libFuzzer:
//
//   ./bazelw run --config=fuzz //tests:parse_fuzz -- -max_total_time=60
//
// parse_fuzz_test runs the same in any build.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "tocsin/signals/service_manager.h"
#include "tocsin/signals/signal_set.h"

// The program's parser is its own.
#define main WatchSignals
#include "examples/watch_signals.cc"
#undef main

namespace tocsin {
namespace {

void Require(bool holds, const char* promise, absl::string_view text) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\nby: \"%s\"\n", promise,
               absl::CHexEscape(text).c_str());
  std::abort();
}

bool IsNumber(absl::string_view text) {
  for (char c : text) {
    if (!absl::ascii_isdigit(c)) return false;
  }
  return !text.empty();
}

// Whether `text` is one of the ways to write `signum`.
bool Names(absl::string_view text, int signum) {
  if (IsNumber(text)) return std::atoi(std::string(text).c_str()) == signum;
  const std::string upper = absl::AsciiStrToUpper(text);
  absl::string_view name = absl::StripPrefix(upper, "SIG");
  if (const char* known = sigabbrev_np(signum); known != nullptr) {
    return name == known || (signum == SIGABRT && name == "IOT") ||
           (signum == SIGCHLD && name == "CLD") ||
           (signum == SIGIO && name == "IO");
  }
  int base = SIGRTMAX;
  if (absl::ConsumePrefix(&name, "RTMIN")) {
    base = SIGRTMIN;
  } else if (!absl::ConsumePrefix(&name, "RTMAX")) {
    return false;
  }
  if (name.empty()) return signum == base;
  const char sign = name.front();
  name.remove_prefix(1);
  if ((sign != '+' && sign != '-') || !IsNumber(name)) return false;
  const int offset = std::atoi(std::string(name).c_str());
  return signum == (sign == '+' ? base + offset : base - offset);
}

void ReadSignal(absl::string_view text) {
  const absl::StatusOr<int> signum =
      ParseSignal(std::string_view(text.data(), text.size()));
  if (signum.ok()) {
    Require(*signum >= 1 && *signum <= SIGRTMAX, "a signal is read", text);
    Require(Names(text, *signum), "what is no signal is refused", text);
  } else {
    Require(absl::IsInvalidArgument(signum.status()) &&
                absl::StrContains(signum.status().message(), text),
            "a refusal names what was refused", text);
  }
}

// Nobody listens to what the text names.
void Notify(const std::string& text) {
  const std::string name = text.c_str();
  setenv("NOTIFY_SOCKET", name.c_str(), 1);
  const absl::Status status = NotifyStopping();
  const bool is_name = name.size() > 1 && name.size() < 108 &&
                       (name.front() == '/' || name.front() == '@');
  Require(status.code() == (name.empty() ? absl::StatusCode::kOk
                            : is_name    ? absl::StatusCode::kUnavailable
                                         : absl::StatusCode::kInvalidArgument),
          "only the name of a socket is one", name);
}

void ReadPeriod(const std::string& text) {
  const std::string value = text.c_str();
  setenv("NOTIFY_SOCKET", "@tocsin/nobody", 1);
  setenv("WATCHDOG_USEC", value.c_str(), 1);
  const absl::StatusOr<absl::Duration> period = WatchdogPeriod();
  if (value.empty()) {
    Require(period.ok() && *period == absl::InfiniteDuration(),
            "empty is unset", value);
  } else if (period.ok()) {
    Require(IsNumber(value) &&
                absl::ToInt64Microseconds(*period) == std::atoll(value.c_str()),
            "the period is what the text says", value);
    Require(*period > absl::ZeroDuration(), "there is time to ping", value);
  } else {
    Require(absl::IsInvalidArgument(period.status()) &&
                absl::StrContains(period.status().message(), value),
            "a refusal names what was refused", value);
  }
}

// Each line is an argument.
void ReadCommandLine(absl::string_view text) {
  std::vector<std::string> arguments = absl::StrSplit(text, '\n');
  std::vector<char*> argv = {nullptr};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  const absl::StatusOr<Request> request =
      Parse(static_cast<int>(argv.size()), argv.data());
  if (request.ok()) {
    Require(CheckReceivable(request->signals).ok(),
            "only what can be received is watched", text);
    Require(request->count.value_or(1) >= 1, "at least one is waited for",
            text);
  } else {
    Require(absl::IsInvalidArgument(request.status()) &&
                !request.status().message().empty(),
            "a refusal says why", text);
  }
}

}  // namespace
}  // namespace tocsin

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  tocsin::ReadSignal(text);
  tocsin::Notify(text);
  tocsin::ReadPeriod(text);
  tocsin::ReadCommandLine(text);
  return 0;
}
