// What a task threw, as a status.
//
// For the thread that handles the exception.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_
#define TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_

#include <exception>
#include <string>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tocsin::inline v0_2::internal {

#ifdef ABSL_HAVE_EXCEPTIONS
// The exception that is being handled, as a status: "`who` threw: ...".
inline absl::Status StatusOfException(absl::string_view who) {
  try {
    throw;
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat(who, " threw: ", e.what()));
  } catch (...) {
    return absl::InternalError(
        absl::StrCat(who, " threw something that is no std::exception"));
  }
}
#endif

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_
