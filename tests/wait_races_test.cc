// The windows in the waits of the library, each held open at its step.
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/steps.h"
#include "tocsin/concurrency/semaphore.h"
#include "tocsin/tests/scoped_thread.h"

namespace tocsin {
namespace {

TEST(SemaphoreRaces, APermitGrantedAtTheMomentOfACancelCounts) {
  Semaphore semaphore(1);
  ASSERT_TRUE(semaphore.TryAcquire());
  HeldAt cancelled("Semaphore: wait is over");
  absl::Status status = absl::UnknownError("not back");
  ScopedThread thread([&] { status = semaphore.Acquire(); });
  thread.AwaitAsleep();
  thread.scope().Cancel();
  cancelled.AwaitThread();
  ASSERT_TRUE(semaphore.Release().ok());
  cancelled.Release();
  thread.Join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(semaphore.in_use(), 1);
}

}  // namespace
}  // namespace tocsin
