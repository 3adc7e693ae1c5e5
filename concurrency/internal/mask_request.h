// The signals that living ScopedSignalBlocks ask for, on whichever threads:
// those that the threads of the library are born with blocked.
//
// Any thread may make one; it destroys it, too, in the order of nesting.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_MASK_REQUEST_H_
#define TOCSIN_CONCURRENCY_INTERNAL_MASK_REQUEST_H_

#include <csignal>

namespace tocsin::inline v0_2::internal {

class MaskRequest {
 public:
  // Asks for `signals` until it is destroyed.
  explicit MaskRequest(const sigset_t& signals);
  MaskRequest(const MaskRequest&) = delete;
  MaskRequest& operator=(const MaskRequest&) = delete;
  ~MaskRequest();

  const sigset_t& signals() const { return signals_; }

  // What all of them ask for.
  static sigset_t AllSignals();

 private:
  void Count(int by) const;
  static void ForgetOtherThreads();
  [[maybe_unused]] static const int registered;

  const sigset_t signals_;
  MaskRequest* const outer_;  // of this thread
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_MASK_REQUEST_H_
