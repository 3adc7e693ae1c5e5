// libevent's signal events, in a loop on the main thread, or `elsewhere` while
// that one sleeps.

#include <event2/event.h>

#include <memory>

#include "tocsin/benchmarks/signals/assignment.h"
#include "tocsin/benchmarks/signals/run_loop.h"

int main(int argc, char** argv) {
  static tocsin::benchmarks::Assignment assignment(argc, argv, 1);
  event_base* const base = event_base_new();
  const event_callback_fn answer = [](evutil_socket_t signum, short, void*) {
    assignment.Answer(0, static_cast<int>(signum));
  };
  if (assignment.task().starts_with("open_close")) {
    return assignment.MeasureOpenClose([&] {
      std::unique_ptr<event, decltype(&event_free)> e(
          evsignal_new(base, assignment.signals()[0], answer, nullptr),
          &event_free);
      evsignal_add(e.get(), nullptr);
      return e;
    });
  }
  for (int signum : assignment.signals()) {
    evsignal_add(evsignal_new(base, signum, answer, nullptr), nullptr);
  }
  assignment.ReportOpen();
  tocsin::benchmarks::RunLoop(argv[1], [&] { event_base_dispatch(base); });
}
