#include "tocsin/signals/internal/doorbell_claim.h"

#include <dlfcn.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/signals/internal/handler_state.h"
#include "tocsin/signals/internal/kernel_action.h"
#include "tocsin/signals/internal/signal_handler.h"

namespace tocsin::inline v0_2::internal {
namespace {

constexpr int kMostTries = 20'000;  // a second or more

constinit KernelAction previous ABSL_GUARDED_BY(disposition_mutex) = {};

bool IsUndecided(const KernelAction& action) {
  return IsHandler(action) && (action.flags & kUndecided) == kUndecided;
}

// Sets `found` to the disposition in force, and replaces that by what `choose`
// returns for it, or leaves it if that is null, with no other copy in between.
// False if another copy keeps it undecided.
bool Replace(absl::FunctionRef<const KernelAction*(const KernelAction&)> choose,
             KernelAction& found) {
  for (int tries = 0; tries < kMostTries; ++tries) {
    found = GetAction(kDoorbell);
    if (IsUndecided(found)) {
      TOCSIN_STEP("DoorbellClaim: waits for another copy");
      Pause(tries);
      continue;
    }
    if (choose(found) == nullptr) return true;
    TOCSIN_STEP("DoorbellClaim: has looked");
    found = ExchangeAction(kDoorbell, OurAction(kUndecided));
    if (IsUndecided(found)) continue;
    TOCSIN_STEP("DoorbellClaim: decides");
    const KernelAction* const chosen = choose(found);
    const KernelAction replaced =
        ExchangeAction(kDoorbell, chosen != nullptr ? *chosen : found);
    if (IsUndecided(replaced)) return true;
    SetAction(kDoorbell, replaced);  // other code's, from meanwhile
  }
  return false;
}

std::string FileOf(const void* code) {
  Dl_info info;
  if (dladdr(code, &info) != 0 && info.dli_fname != nullptr) {
    return info.dli_fname;
  }
  return absl::StrCat("the code at 0x",
                      absl::Hex(reinterpret_cast<uintptr_t>(code)));
}

}  // namespace

absl::Status ClaimDoorbell() {
  __atomic_store_n(&handler_state.process, getpid(), __ATOMIC_SEQ_CST);
  const KernelAction ours = OurAction();
  const auto is_taken = [](const KernelAction& found) {
    return IsHandler(found) && !IsOurs(found);
  };
  KernelAction found = {};
  const bool decided = Replace(
      [&](const KernelAction& in_force) {
        return is_taken(in_force) ? nullptr : &ours;
      },
      found);
  if (!decided || is_taken(found)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "SIGSTKFLT has a handler of ", FileOf(found.handler),
        ": a SignalService of another copy of this library, or other code that "
        "uses this signal. There can be only one service in a process; use "
        "that one, or stop it first"));
  }
  // A handler of ours is left from a service of before, and was put back by
  // other code.
  if (!IsOurs(found)) previous = found;
  return absl::OkStatus();
}

void ReleaseDoorbell() {
  const KernelAction before = previous;
  KernelAction found = {};
  Replace(
      [&](const KernelAction& in_force) {
        return IsOurs(in_force) ? &before : nullptr;
      },
      found);
}

}  // namespace tocsin::inline v0_2::internal
