#include "tocsin/benchmarks/signals/assignment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace tocsin::benchmarks {

namespace {

[[noreturn]] void Refuse(const char* what) {
  std::fprintf(stderr, "%s; a receiver is run by the sender\n", what);
  std::exit(2);
}

AnswerSheet* Map(const char* path) {
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) Refuse("the answer sheet cannot be opened");
  void* const memory = mmap(nullptr, sizeof(AnswerSheet),
                            PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) Refuse("the answer sheet cannot be mapped");
  close(fd);
  return static_cast<AnswerSheet*>(memory);
}

}  // namespace

Assignment::Assignment(int argc, char** argv, int own) {
  if (argc < own + 5) Refuse("arguments are missing");
  sheet_ = Map(argv[own + 1]);
  task_ = argv[own + 2];
  count_ = std::atoi(argv[own + 3]);
  for (int i = own + 4; i < argc; ++i) signals_.push_back(std::atoi(argv[i]));
}

}  // namespace tocsin::benchmarks
