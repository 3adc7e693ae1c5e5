#include "tocsin/signals/internal/raw_siginfo.h"

#include <cstring>

namespace tocsin::inline v0_2::internal {

siginfo_t RawSiginfo::Full() const {
  siginfo_t full{};
  std::memcpy(&full, words, sizeof(words));
  return full;
}

RawSiginfo RawSiginfo::From(const siginfo_t& info) {
  RawSiginfo raw;
  std::memcpy(raw.words, &info, sizeof(raw.words));
  return raw;
}

}  // namespace tocsin::inline v0_2::internal
