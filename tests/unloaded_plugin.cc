// A plug-in that holds the library, and makes each of the threads that last.
#include <csignal>
#include <cstdlib>
#include <stop_token>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/cancel_scope.h"
#include "tocsin/concurrency/task_group.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/signal_service.h"

// 0 if it did what it should.
extern "C" int RunTasks() {
  tocsin::TaskGroup group;
  for (int i = 0; i < 50; ++i) group.Spawn([] {});
  return group.Wait().ok() ? 0 : 1;
}

extern "C" int TakeTokenWithDeadline() {
  tocsin::CancelScope scope({.timeout = absl::Milliseconds(1)});
  const std::stop_token token = scope.stop_token();
  while (!token.stop_requested()) {
  }
  return 0;
}

extern "C" int AwaitInScope() {
  tocsin::CancelScope scope({.timeout = absl::Milliseconds(1)});
  absl::Mutex mutex;
  absl::MutexLock lock(&mutex);
  bool never = false;
  return tocsin::Await(mutex, absl::Condition(&never)).ok() ? 1 : 0;
}

extern "C" int ReceiveSignal() {
  auto service = tocsin::SignalService::Start();
  if (!service.ok()) return 1;
  auto receiver = (*service)->Open({SIGUSR1});
  if (!receiver.ok()) return 2;
  std::raise(SIGUSR1);
  return receiver->Receive().ok() ? 0 : 3;
}

extern "C" int UseNothing() { return 0; }
