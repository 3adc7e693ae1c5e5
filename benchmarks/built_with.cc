// Prints how Bazel has built the programs beside it, as an object in JSON.

#include <cstdio>

#include "absl/base/config.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#ifdef NDEBUG
#define MODE "-c opt"
#else
#define MODE "not optimized"
#endif

int main() {
  std::printf(
      "{\"compiler\": \"%s\", \"abseil\": \"%d.%d, from source, %s\"}\n",
      COMPILER, ABSL_LTS_RELEASE_VERSION, ABSL_LTS_RELEASE_PATCH_LEVEL, MODE);
}
