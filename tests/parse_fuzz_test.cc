// The fuzz target without a fuzzer: on texts that are right or nearly so.
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>

#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace tocsin {
namespace {

void Read(const std::string& text) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()),
                         text.size());
}

const std::string kTexts[] = {
    "",
    "TERM",
    "SIGTERM",
    "sigabrt",
    "IOT",
    "15",
    "65",
    "RTMIN",
    "RTMIN+3",
    "SIGRTMAX-1",
    "99999999999999999999",
    "30000000",
    "/run/systemd/nobody",
    "@tocsin/nobody",
    "@" + std::string(106, 'n'),
    "/" + std::string(107, 'n'),
    "--help",
    "--count=3\nSIGHUP\nUSR1",
    "--count=0",
    "TERM\nSIGKILL",
};

// Changes a byte or takes one, or puts one or another text in.
void Change(std::string& text, std::mt19937& random) {
  const size_t at = random() % (text.size() + 1);
  const char byte = random() % 2 ? " \t\n\0+-0SIG/@="[random() % 13]
                                 : static_cast<char>(random());
  switch (random() % 4) {
    case 0:
      if (at < text.size()) text[at] = byte;
      break;
    case 1:
      if (at < text.size()) text.erase(at, 1);
      break;
    case 2:
      text.insert(at, 1, byte);
      break;
    case 3:
      text.insert(at, kTexts[random() % std::size(kTexts)]);
      break;
  }
}

TEST(Parsers, KeepTheirPromisesWhateverTheyRead) {
  std::mt19937 random;
  for (const std::string& whole : kTexts) {
    Read(whole);
    for (int i = 0; i < 1000; ++i) {
      std::string text = whole;
      for (auto changes = random() % 4 + 1; changes > 0; --changes) {
        Change(text, random);
      }
      Read(text);
    }
  }
}

}  // namespace
}  // namespace tocsin
