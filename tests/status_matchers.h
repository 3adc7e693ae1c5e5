// Matchers for statuses.
#ifndef TOCSIN_TESTS_STATUS_MATCHERS_H_
#define TOCSIN_TESTS_STATUS_MATCHERS_H_

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"

namespace tocsin {

// The same code and text. That of a cancelled scope has a payload as well.
MATCHER_P(Says, status, "is " + status.ToString()) {
  return arg.code() == status.code() && arg.message() == status.message();
}

}  // namespace tocsin

#endif  // TOCSIN_TESTS_STATUS_MATCHERS_H_
