#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin::inline v0_2::internal {

constinit thread_local WorkerSlot* worker_slot = nullptr;

}  // namespace tocsin::inline v0_2::internal
