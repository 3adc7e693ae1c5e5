#include "tocsin/concurrency/internal/mask_request.h"

#include <pthread.h>

#include <array>
#include <atomic>

namespace tocsin::inline v0_2::internal {

namespace {

constexpr int kSignals = 64;

// How many requests ask for a signal, by its number.
constinit std::array<std::atomic<int>, kSignals + 1> askers{};

constinit thread_local MaskRequest* innermost = nullptr;

}  // namespace

MaskRequest::MaskRequest(const sigset_t& signals)
    : signals_(signals), outer_(innermost) {
  Count(1);
  innermost = this;
}

MaskRequest::~MaskRequest() {
  innermost = outer_;
  Count(-1);
}

void MaskRequest::Count(int by) const {
  for (int signum = 1; signum <= kSignals; ++signum) {
    if (sigismember(&signals_, signum) == 1) askers[signum].fetch_add(by);
  }
}

sigset_t MaskRequest::AllSignals() {
  sigset_t all;
  sigemptyset(&all);
  for (int signum = 1; signum <= kSignals; ++signum) {
    if (askers[signum].load() > 0) sigaddset(&all, signum);
  }
  return all;
}

// The parent's other threads, and so their blocks, are not in a forked child.
void MaskRequest::ForgetOtherThreads() {
  for (std::atomic<int>& count : askers) count.store(0);
  for (const MaskRequest* own = innermost; own != nullptr; own = own->outer_) {
    own->Count(1);
  }
}

const int MaskRequest::registered =
    pthread_atfork(nullptr, nullptr, ForgetOtherThreads);

}  // namespace tocsin::inline v0_2::internal
