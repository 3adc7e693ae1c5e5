// Opens the file that it is given, and hangs until its end is forced.
#include <fcntl.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/signals/run.h"

int main(int, char** argv) {
  const int data = open(argv[1], O_WRONLY | O_CREAT, 0600);
  if (write(data, "data\n", 5) != 5) return 2;
  return tocsin::Run(
      [](tocsin::Program&) -> absl::Status {
        kill(getpid(), SIGTERM);
        while (true) pause();
      },
      {.shutdown = {.grace = absl::ZeroDuration()}});
}
