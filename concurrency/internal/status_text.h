// A status in words, for the text of another.
//
// Any thread may ask.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_STATUS_TEXT_H_
#define TOCSIN_CONCURRENCY_INTERNAL_STATUS_TEXT_H_

#include <string>

#include "absl/status/status.h"

namespace tocsin::inline v0_2::internal {

// Without payloads, which are for programs and not for people.
inline std::string TextOf(const absl::Status& status) {
  return status.ToString(absl::StatusToStringMode::kWithNoExtraData);
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_STATUS_TEXT_H_
