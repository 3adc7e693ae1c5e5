// Counts the seconds until Ctrl+C.
#include <cstdio>

#include "ticker.h"
#include "tocsin/signals/run.h"

int main() {
  return tocsin::Run([](tocsin::Program& program) {
    program.tasks().Spawn(
        [] { return Tick([](int seconds) { std::printf("%d\n", seconds); }); });
    return program.tasks().Wait();
  });
}
