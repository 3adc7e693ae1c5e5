// Services and receivers that live longer than main(), on both sides.
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>

#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/signal_testing.h"
#include "tocsin/signals/process.h"
#include "tocsin/signals/signal_receiver.h"
#include "tocsin/signals/signal_service.h"

namespace tocsin {
namespace {

// Made before main(), and destroyed after it, in the reverse order.
const std::unique_ptr<SignalService> global_service = StartService();
SignalReceiver global_receiver = OpenReceiver(*global_service, {SIGTERM});

// V5
TEST(StaticLifetime, AReceiverThatIsAGlobalReceives) {
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(global_receiver).signum, SIGTERM);
}

// V5: in a forked child these are the parent's.
TEST(StaticLifetime, GlobalsAreDestroyedAtExitInAForkedChild) {
  Child child(fork());
  if (child.pid() == 0) exit(7);
  EXPECT_EQ(ExitStatus(child.Wait()), 7);
  SendSelf(SIGTERM);
  EXPECT_EQ(Next(global_receiver).signum, SIGTERM);
}

}  // namespace
}  // namespace tocsin
