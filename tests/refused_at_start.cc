// Linked into a test program, has it run under a filter from its first moment:
// the call that $TOCSIN_REFUSED names is answered with $TOCSIN_REFUSED_WITH.
#include <cstdlib>

#include "tests/refused_call.h"

// The tests end processes with children that nobody has waited for, which leave
// a thread that nobody has joined.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() {
  return "report_thread_leaks=0";
}

namespace tocsin {
namespace {

[[gnu::constructor]] void RefuseAtStart() {
  const char* name = getenv("TOCSIN_REFUSED");
  const char* error = getenv("TOCSIN_REFUSED_WITH");
  if (name == nullptr || error == nullptr) abort();
  for (const RefusedCall& call : kPidfdCalls) {
    if (call.name != name) continue;
    if (!Refuse(call, std::atoi(error))) abort();
    return;
  }
  abort();
}

}  // namespace
}  // namespace tocsin
