// What a task threw, as a status.
//
// For the thread that handles the exception.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_
#define TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_

#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <typeinfo>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

#ifdef ABSL_HAVE_EXCEPTIONS
// The type of the exception that is being handled. Needs no RTTI.
inline std::string NameOfException() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "a foreign exception";
  int error = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(type->name(), nullptr, nullptr, &error), std::free);
  return name != nullptr ? name.get() : type->name();
}

// The exception that is being handled, as a status:
// "`who` threw std::runtime_error: ...". Ends the program if it is the end of
// the thread: what waits for `who` would wait for ever, and glibc lets nobody
// keep such an exception (of which there is no object, as a sanitizer notices).
__attribute__((no_sanitize("null"))) inline absl::Status StatusOfException(
    absl::string_view who) {
  const std::string what = absl::StrCat(who, " threw ", NameOfException());
  try {
    throw;
#ifdef __GLIBCXX__
  } catch (const abi::__forced_unwind&) {
    std::fprintf(stderr,
                 "tocsin: %s called pthread_exit(), or pthread_cancel() ended "
                 "its thread, and what waits for it would wait for ever. Let "
                 "it return.\n",
                 std::string(who).c_str());
    std::abort();
#endif
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat(what, ": ", e.what()));
  } catch (...) {
    return absl::InternalError(what);
  }
}
#endif

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_EXCEPTION_H_
