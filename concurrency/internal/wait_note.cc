#include "tocsin/concurrency/internal/wait_note.h"

namespace tocsin::inline v0_2::internal {

constinit thread_local WaitNote wait_note;

}  // namespace tocsin::inline v0_2::internal
