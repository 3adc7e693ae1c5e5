// libuv's uv_signal_t, in a loop on the main thread, or `elsewhere` while that
// one sleeps.

#include <uv.h>

#include <memory>
#include <vector>

#include "tocsin/benchmarks/signals/assignment.h"
#include "tocsin/benchmarks/signals/run_loop.h"

int main(int argc, char** argv) {
  static tocsin::benchmarks::Assignment assignment(argc, argv, 1);
  uv_loop_t* const loop = uv_default_loop();
  const uv_signal_cb answer = [](uv_signal_t*, int signum) {
    assignment.Answer(0, signum);
  };
  if (assignment.task().starts_with("open_close")) {
    const auto close = [](uv_signal_t* handle) {
      uv_close(reinterpret_cast<uv_handle_t*>(handle), nullptr);
      uv_run(handle->loop, UV_RUN_NOWAIT);
      delete handle;
    };
    return assignment.MeasureOpenClose([&] {
      std::unique_ptr<uv_signal_t, decltype(close)> handle(new uv_signal_t);
      uv_signal_init(loop, handle.get());
      uv_signal_start(handle.get(), answer, assignment.signals()[0]);
      return handle;
    });
  }
  std::vector<uv_signal_t> handles(assignment.signals().size());
  for (size_t i = 0; i < handles.size(); ++i) {
    uv_signal_init(loop, &handles[i]);
    uv_signal_start(&handles[i], answer, assignment.signals()[i]);
  }
  assignment.ReportOpen();
  tocsin::benchmarks::RunLoop(argv[1], [&] { uv_run(loop, UV_RUN_DEFAULT); });
}
