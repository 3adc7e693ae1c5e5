#include "tocsin/signals/run.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "tocsin/signals/process.h"

namespace tocsin {
namespace {

void Print(const absl::Status& error) {
  std::fprintf(stderr, "%s\n", error.ToString().c_str());
}

int EndBySignal(int signum, RunOptions::AfterSignal how) {
  if (how == RunOptions::AfterSignal::kDieBySignal && getpid() != 1) {
    std::fflush(nullptr);
    DieBySignal(signum);
  }
  return 128 + signum;
}

}  // namespace

int Run(
    absl::FunctionRef<absl::Status(SignalService&, TaskGroup&, Shutdown&)> main,
    RunOptions options) {
  absl::Status status;
  std::optional<int> stopped_by;
  {
    absl::StatusOr<std::unique_ptr<SignalService>> service =
        SignalService::Start();
    if (!service.ok()) {
      Print(service.status());
      return 1;
    }
    TaskGroup::Options group_options;
    group_options.name = "main";
    status = RunTaskGroup(
        [&](TaskGroup& group) {
          absl::StatusOr<std::unique_ptr<Shutdown>> shutdown =
              Shutdown::Start(**service, group,
                              {.signals = options.stop_on,
                               .drain = options.drain,
                               .grace = options.grace,
                               .on_second_signal = options.second});
          if (!shutdown.ok()) return shutdown.status();
          absl::Status ended = main(**service, group, **shutdown);
          if (!ended.ok()) group.Cancel(ended);
          // Here, because the shutdown must see to those that do not end.
          if (absl::Status tasks = group.Wait(); ended.ok()) ended = tasks;
          if (const auto cause = (*shutdown)->cause())
            stopped_by = cause->signum;
          return ended;
        },
        group_options);
  }
  if (!status.ok()) Print(status);
  if (stopped_by.has_value()) {
    return EndBySignal(*stopped_by, options.after_signal);
  }
  return status.ok() ? 0 : 1;
}

int Run(absl::FunctionRef<absl::Status(SignalService&, TaskGroup&)> main,
        RunOptions options) {
  return Run([main](SignalService& service, TaskGroup& group,
                    Shutdown&) { return main(service, group); },
             options);
}

}  // namespace tocsin
