#include "tocsin/concurrency/internal/error_text.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tocsin::internal {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(ErrorText, IsThatOfTheSystem) {
  EXPECT_EQ(ErrorText(EACCES), std::strerror(EACCES));
}

TEST(ErrorText, NamesTheLimitThatWasReached) {
  for (int error : {EAGAIN, EMFILE, ENFILE}) {
    EXPECT_THAT(ErrorText(error), StartsWith(std::strerror(error)));
  }
  EXPECT_THAT(ErrorText(EAGAIN), HasSubstr("RLIMIT_NPROC"));
  EXPECT_THAT(ErrorText(EAGAIN), HasSubstr("pids.max"));
  EXPECT_THAT(ErrorText(EMFILE), HasSubstr("RLIMIT_NOFILE"));
  EXPECT_THAT(ErrorText(ENFILE), HasSubstr("fs.file-max"));
}

TEST(ErrorText, NamesNoOtherLimit) {
  for (int error : {EAGAIN, EMFILE, ENFILE}) {
    const std::string text = ErrorText(error);
    const int limits = (text.find("NPROC") != std::string::npos ? 1 : 0) +
                       (text.find("NOFILE") != std::string::npos ? 1 : 0) +
                       (text.find("file-max") != std::string::npos ? 1 : 0);
    EXPECT_EQ(limits, 1) << text;
  }
}

}  // namespace
}  // namespace tocsin::internal
