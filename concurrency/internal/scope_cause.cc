#include "tocsin/concurrency/internal/scope_cause.h"

#include <new>
#include <string>
#include <utility>

#include "absl/base/config.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/status_text.h"

namespace tocsin::inline v0_2::internal {
namespace {

// The type URL of the payload that holds the number of the scope.
constexpr absl::string_view kMark = "tocsin.scope";

absl::Status Marked(absl::Status status, uint64_t scope) {
  status.SetPayload(kMark, absl::Cord(absl::StrCat(scope)));
  return status;
}

}  // namespace

std::optional<uint64_t> ScopeOf(const absl::Status& status) {
  const auto mark = status.GetPayload(kMark);
  uint64_t scope;
  if (!mark.has_value() || !absl::SimpleAtoi(std::string(*mark), &scope)) {
    return std::nullopt;
  }
  return scope;
}

absl::Status ScopeCause::status() const {
  if (!exists()) return absl::OkStatus();
  if (!reason.ok()) return Marked(reason, scope);
  return Marked(absl::DeadlineExceededError(absl::StrCat(
                    "the deadline of the cancel scope passed: ",
                    absl::FormatTime(deadline, absl::UTCTimeZone()))),
                scope);
}

absl::Status ScopeCause::WaitStatus() const {
  if (!exists()) return absl::OkStatus();
  // A deadline is reported as one, even if the scope has it from the stop token
  // of another.
  const bool is_deadline = reason.ok() || (absl::IsDeadlineExceeded(reason) &&
                                           ScopeOf(reason).has_value());
#ifdef ABSL_HAVE_EXCEPTIONS
  try {
#endif
    if (is_deadline || absl::IsCancelled(reason)) return status();
    return Marked(absl::CancelledError(TextOf(reason)), scope);
#ifdef ABSL_HAVE_EXCEPTIONS
  } catch (const std::bad_alloc&) {
    return absl::Status(is_deadline ? absl::StatusCode::kDeadlineExceeded
                                    : absl::StatusCode::kCancelled,
                        "");
  }
#endif
}

}  // namespace tocsin::inline v0_2::internal
