// The windows in events, each held open at its step.
#include <atomic>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/steps.h"
#include "tocsin/concurrency/event.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

const absl::Status& NotBack() {
  static const absl::Status& status =
      *new absl::Status(absl::UnknownError("not back"));
  return status;
}

TEST(EventRaces, ASetAtTheMomentOfACancelCounts) {
  Event event;
  HeldAt cancelled("Event: wait is over");
  absl::Status status = NotBack();
  ScopedThread waiter([&] { status = event.Wait(); });
  waiter.AwaitAsleep();
  waiter.scope().Cancel();
  cancelled.AwaitThread();
  event.Set();
  cancelled.Release();
  waiter.Join();
  EXPECT_EQ(status, absl::OkStatus());
}

TEST(EventRaces, ASetBetweenTheLookAndTheWaitIsSeen) {
  Event event;
  AtStep set("Event: about to wait", [&] { event.Set(); });
  EXPECT_EQ(event.Wait(), absl::OkStatus());
  EXPECT_TRUE(set.passed());
}

TEST(EventRaces, ASetMeetsAWaitOnlyBeforeOrAfterItsEntry) {
  Event event;
  HeldAt entering("Event: in the list");
  absl::Status status = NotBack();
  ScopedThread waiter([&] { status = event.Wait(); });
  entering.AwaitThread();
  ScopedThread setter([&] { event.Set(); });
  setter.AwaitAsleep();
  EXPECT_FALSE(event.is_set());
  entering.Release();
  setter.Join();
  waiter.Join();
  EXPECT_EQ(status, absl::OkStatus());
}

TEST(EventRaces, ItsDestructorLetsTheSetGetOut) {
  std::optional<Event> event(std::in_place);
  HeldAt setting("Event: is set");
  ScopedThread setter([set = &*event] { set->Set(); });
  setting.AwaitThread();
  EXPECT_TRUE(event->is_set());  // so it may be destroyed
  std::atomic<bool> destroyed{false};
  ScopedThread destroyer([&] {
    event.reset();
    destroyed = true;
  });
  destroyer.AwaitAsleep();
  EXPECT_FALSE(destroyed);
  setting.Release();
}

}  // namespace
}  // namespace tocsin
