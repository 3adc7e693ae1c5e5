// Counts the seconds until Ctrl+C.
#include <cstdio>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/run.h"

absl::Status Count() {
  absl::Status status;
  for (int seconds = 0; status.ok(); ++seconds) {
    std::printf("%d\n", seconds);
    status = tocsin::Sleep(absl::Seconds(1));
  }
  return status;
}

int main() {
  return tocsin::Run([](tocsin::Program& program) {
    program.tasks().Spawn(Count);
    return program.tasks().Wait();
  });
}
