// Writes to stderr on the way to a forced end.
//
// Any thread may call it. It takes no lock and no memory, and does not block.
#ifndef TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_
#define TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_

#include "absl/strings/string_view.h"

namespace tocsin::inline v0_2::internal {

// As much of `text` as stderr takes without blocking.
void SayLast(absl::string_view text);

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_
