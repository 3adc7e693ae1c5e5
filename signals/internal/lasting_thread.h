// A thread that lasts as long as the process, for what the kernel ties to the
// life of a thread and a caller may do on any: PR_SET_PDEATHSIG is sent when
// the thread that made the child ends, and the workers of a pool come and go.
//
// Any thread may call it, in a forked child too, where the thread is another.
#ifndef TOCSIN_SIGNALS_INTERNAL_LASTING_THREAD_H_
#define TOCSIN_SIGNALS_INTERNAL_LASTING_THREAD_H_

#include "absl/functional/function_ref.h"

namespace tocsin::inline v0_2::internal {

// Calls `work` there, and returns when it has returned: 0, or the errno of
// pthread_create() if there is no thread.
int CallOnLastingThread(absl::FunctionRef<void()> work);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LASTING_THREAD_H_
