// What a part of tests/shared_library_test.cc has to offer: each shared object
// does the same with the one copy of the library.
#ifndef TOCSIN_TESTS_SHARING_PLUGIN_H_
#define TOCSIN_TESTS_SHARING_PLUGIN_H_

#include <functional>
#include <stop_token>

#include "absl/status/status.h"
#include "tocsin/concurrency/cancel_scope.h"

struct SharingPlugin {
  void (*in_scope)(const std::function<void(tocsin::CancelScope&)>& body);
  void (*in_task)(const std::function<void(std::stop_token)>& body);

  absl::Status (*check)();
  absl::Status (*sleep)();  // until it is cancelled
  // Whether this thread runs a task of a pool.
  bool (*is_worker)();
};

extern "C" __attribute__((visibility("default")))
const SharingPlugin sharing_plugin;

#endif  // TOCSIN_TESTS_SHARING_PLUGIN_H_
