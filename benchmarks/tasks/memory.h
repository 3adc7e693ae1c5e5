#ifndef TOCSIN_BENCHMARKS_TASKS_MEMORY_H_
#define TOCSIN_BENCHMARKS_TASKS_MEMORY_H_

#include <cstdint>

namespace tocsin::benchmarks {

// Of this process, in bytes.
int64_t ResidentMemory();

// Counts the calls of malloc() and its like, from the program or a library.
void StartCountingAllocations();
int64_t StopCountingAllocations();

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_TASKS_MEMORY_H_
