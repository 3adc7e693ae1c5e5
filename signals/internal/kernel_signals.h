// The source of real signals: starts and stops the thread that takes them, adds
// and removes receivers, and resets all of it in a forked child.
//
// Public members may be called from any thread but the service's own.
#ifndef TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
#define TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/signals/internal/disposition.h"
#include "tocsin/signals/internal/handler_watch.h"
#include "tocsin/signals/internal/living_child.h"
#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/service_thread.h"
#include "tocsin/signals/internal/signal_routes.h"
#include "tocsin/signals/internal/subscriber.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2::internal {

class KernelSignals final : public SignalRoutes {
 public:
  explicit KernelSignals(std::function<void(const SignalSet&)> on_replaced);

  // At most one in a process, from Start() to Stop(): kAlreadyExists for a
  // second one, also in another copy of the library.
  static absl::StatusOr<std::shared_ptr<KernelSignals>> Start(
      std::function<void(const SignalSet&)> on_replaced = nullptr)
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  void Stop() override ABSL_LOCKS_EXCLUDED(disposition_mutex);

  absl::Status Enter(Subscriber& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);
  std::vector<RawSiginfo> Leave(Subscriber& subscription) override
      ABSL_LOCKS_EXCLUDED(disposition_mutex);

  bool IgnoreBrokenPipes() override { return internal::IgnoreBrokenPipes(); }
  void KillOnBrokenPipes() override { internal::KillOnBrokenPipes(); }
  void Die(int signum, absl::string_view report,
           const LastWords& last_words) override;
  void KillLivingChildren() override { internal::KillLivingChildren(); }

  absl::Status Verify() const override ABSL_LOCKS_EXCLUDED(disposition_mutex);

 private:
  struct Fork;

  bool Forked() const override;
  Instant LookAtHandlers() override { return After(watch_.Look()); }
  void SendAgain(const std::vector<RawSiginfo>& signals) override;

  const int generation_;  // of the process that made this
  HandlerWatch watch_;
  ServiceThread thread_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_KERNEL_SIGNALS_H_
