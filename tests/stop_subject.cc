// A program for ci/senders, which sends it stop signals as other programs do:
// it prints "ready", waits to be stopped, and prints "cleaned up" when it is
// through with a clean-up that takes a while.
//
//   stop_subject [parent]
//
// "parent" runs another one in the same process group and with the same output,
// and stops it when it is stopped itself.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/child_process.h"
#include "tocsin/signals/run.h"

namespace {

// In one write(2), so that lines of two processes do not mix.
void Print(const char* line) { dprintf(STDOUT_FILENO, "%s\n", line); }

absl::Status AwaitStop(const std::string& child_program) {
  if (child_program.empty()) {
    Print("ready");
    return tocsin::Sleep(absl::InfiniteDuration());
  }
  auto child = tocsin::ChildProcess::Spawn({child_program});
  if (!child.ok()) return child.status();
  Print("ready");
  return child->WaitOrTerminate().status();
}

absl::Status CleanUp() {
  tocsin::CleanUpScope clean_up;
  absl::Status status = tocsin::Sleep(absl::Milliseconds(20));
  if (status.ok()) Print("cleaned up");
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_parent = argc == 2 && argv[1] == std::string_view("parent");
  if (argc > 1 && !is_parent) return 2;
  return tocsin::Run([&](tocsin::Program&) {
    absl::Status status = AwaitStop(is_parent ? argv[0] : "");
    status.Update(CleanUp());
    return status;
  });
}
