#include "tocsin/concurrency/internal/scope_links.h"

#include <utility>

namespace tocsin::inline v0_2::internal {

constinit SlimMutex scope_tree_mutex;
constinit int scope_generation = 0;

namespace {

constinit thread_local const StopRequest* being_made = nullptr;

}  // namespace

void StopRequest::Make() const {
  const StopRequest* const outer = std::exchange(being_made, this);
  std::stop_source(source).request_stop();
  being_made = outer;
}

const ScopeCause* StopRequest::CauseOf(const std::stop_token& token) {
  // A callback may cancel another scope, whose token is then requested inside
  // this request. Its callbacks ask for the innermost one.
  if (being_made == nullptr || being_made->source.get_token() != token) {
    return nullptr;
  }
  return &being_made->cause;
}

}  // namespace tocsin::inline v0_2::internal
