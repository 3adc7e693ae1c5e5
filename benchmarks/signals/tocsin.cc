// Ours: `main` receives on the main thread, `thread` on others while the main
// thread sleeps, and `blocked` on the main thread under a ScopedSignalBlock.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/benchmarks/signals/assignment.h"
#include "tocsin/signals/scoped_signal_block.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"
#include "tocsin/signals/signal_set.h"

namespace {

using tocsin::ReceiverOptions;
using tocsin::SignalEvent;
using tocsin::SignalReceiver;
using tocsin::SignalService;
using tocsin::benchmarks::Assignment;

std::atomic<uint64_t> allocations{0};

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::_Exit(1);
}

}  // namespace

void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main(int argc, char** argv) {
  const std::string_view where = argc > 1 ? argv[1] : "";
  Assignment assignment(argc, argv, 1);
  tocsin::SignalSet signals;
  for (int signum : assignment.signals()) signals.insert(signum);

  std::optional<tocsin::ScopedSignalBlock> block;
  if (where == "blocked") block.emplace(signals);
  absl::StatusOr<std::unique_ptr<SignalService>> service =
      SignalService::Start();
  if (!service.ok()) Fail(service.status());

  // All of the signals of the case "queued" fit, if the kernel is the faster.
  const ReceiverOptions options{.capacity = 30'000};
  if (assignment.task().starts_with("open_close")) {
    return assignment.MeasureOpenClose([&] {
      absl::StatusOr<SignalReceiver> receiver =
          (*service)->Open(signals, options);
      if (!receiver.ok()) Fail(receiver.status());
      return *std::move(receiver);
    });
  }

  const bool counts = assignment.task() == "count_allocations";
  std::vector<SignalReceiver> receivers;
  for (int i = 0; i < assignment.receivers(); ++i) {
    absl::StatusOr<SignalReceiver> receiver =
        (*service)->Open(signals, options);
    if (!receiver.ok()) Fail(receiver.status());
    receivers.push_back(*std::move(receiver));
  }
  const auto receive = [&](int i) {
    for (const SignalEvent& event : receivers[i]) {
      if (counts) assignment.Report(allocations.load());
      assignment.Answer(i, event.signum);
    }
    Fail(absl::OutOfRangeError("the receiver was closed"));
  };
  std::vector<std::thread> threads;
  for (int i = where == "thread" ? 0 : 1; i < assignment.receivers(); ++i) {
    threads.emplace_back(receive, i);
  }
  assignment.ReportOpen();
  if (where != "thread") receive(0);
  for (std::thread& thread : threads) thread.join();
}
