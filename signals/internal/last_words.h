// Writes to stderr on the way to a forced end.
//
// Any thread may call it. It takes no lock and no memory, and does not block.
#ifndef TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_
#define TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_

#include <sys/stat.h>

#include <optional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tocsin::inline v0_2::internal {

class LastWords {
 public:
  // How long they are put off, at most, for the report and the program's hook.
  static constexpr absl::Duration kPutOff = absl::Milliseconds(250);

  // Descriptor 2 counts as stderr if it was open when the process started, and
  // only as long as it is the same file as now. Otherwise a file with the
  // program's data may have got the number.
  LastWords();

  // As much of `text` as stderr takes without blocking.
  void Say(absl::string_view text) const;

 private:
  std::optional<struct stat> stderr_;
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_LAST_WORDS_H_
