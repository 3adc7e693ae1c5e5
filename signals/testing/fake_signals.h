// Signals for tests, without the operating system.
//
// Code that takes a SignalService& is given the service of a FakeSignals
// instead. Its receivers work as real ones do, with signals that the test sends
// and a time that stands still until the test moves it:
//
//   TEST(Server, ReloadsOnHangUp) {
//     FakeSignals signals;
//     Server server(signals.service());
//     signals.Send(SIGHUP);
//     EXPECT_EQ(server.reloads(), 1);
//   }
//
// Any number of them may exist, even beside a real service. They touch neither
// dispositions nor masks. All members may be called from any thread.
#ifndef TOCSIN_SIGNALS_TESTING_FAKE_SIGNALS_H_
#define TOCSIN_SIGNALS_TESTING_FAKE_SIGNALS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin::inline v0_2 {

class FakeSignals {
 public:
  // The clock starts at `now`.
  explicit FakeSignals(absl::Time now = absl::FromUnixSeconds(1'000'000'000));
  FakeSignals(const FakeSignals&) = delete;
  FakeSignals& operator=(const FakeSignals&) = delete;
  // Receivers may outlive it; they get nothing more.
  ~FakeSignals();

  // The service for the code under test. It lives as long as this object.
  SignalService& service() { return *service_; }

  // Hands a signal to every open receiver that is subscribed to it, before it
  // returns: the receivers merge, order and drop as real ones do. By default it
  // comes from this process, as by kill(2). kInvalidArgument for a signal that
  // can never be received, and kNotFound if no open receiver is subscribed to
  // it: a real one would have its default action.
  absl::Status Send(int signum);

  // The same, with the origin and its fields taken from `event`. The count is
  // ignored: a signal is sent once. The time is that of the clock.
  absl::Status Send(const SignalEvent& event);

  // The time that ReceiveFor() and `received_at` use. Deadlines of cancel
  // scopes use the real clock.
  absl::Time now() const;

  // Moves the time. Threads in ReceiveFor() whose timeout it passes return, and
  // the phases of a Shutdown follow it.
  void Advance(absl::Duration duration);

  // What a forced Shutdown did instead of ending this process: the signal that
  // it would have died by, and what it would have written. std::nullopt if none
  // was forced.
  struct Death {
    int signum;
    std::string report;
  };
  std::optional<Death> death() const;

 private:
  class Dispatcher;

  const std::shared_ptr<Dispatcher> dispatcher_;
  const std::unique_ptr<SignalService> service_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_TESTING_FAKE_SIGNALS_H_
