#ifndef TOCSIN_BENCHMARKS_SIGNALS_RUN_LOOP_H_
#define TOCSIN_BENCHMARKS_SIGNALS_RUN_LOOP_H_

#include <string_view>
#include <thread>

namespace tocsin::benchmarks {

// Runs `loop` on this thread, which is the main one; if `where` is "elsewhere",
// on another, while this one sleeps with its signals unblocked.
template <typename F>
void RunLoop(std::string_view where, F loop) {
  if (where == "elsewhere") {
    std::thread(loop).join();
  } else {
    loop();
  }
}

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_SIGNALS_RUN_LOOP_H_
