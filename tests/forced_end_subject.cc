// Hangs until its end is forced. A static object has opened $FILE before
// main().
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/signals/run.h"

namespace {

const int file = open(std::getenv("FILE"), O_WRONLY | O_CREAT, 0600);

}  // namespace

int main() {
  if (write(file, "data\n", 5) != 5) return 2;
  return tocsin::Run(
      [](tocsin::Program&) -> absl::Status {
        kill(getpid(), SIGTERM);
        while (true) pause();
      },
      {.shutdown = {.grace = absl::ZeroDuration()}});
}
