// What the threads and task groups of the process do, for reports: a line for
// each task that has not ended, below what waits for it.
//
//   main waits in Wait() for 2.1s, for group "main" (thread 4711)
//     connection 1 waits in PollFd() for 2s (thread 4713)
//     index waits in Wait() and runs tasks of group "files" (thread 4714)
//       file 7 runs (thread 4714)
//       file 8 has not begun
//
// Any thread may ask.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_TASK_TREE_H_
#define TOCSIN_CONCURRENCY_INTERNAL_TASK_TREE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace tocsin::inline v0_2::internal {

// If there are more lines, the last one says so.
inline constexpr size_t kMostTaskLines = 1000;

// All are of one moment, at which no task of any pool begins or ends. A thread
// is known once it has used a pool.
std::vector<std::string> TaskTree();

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_TASK_TREE_H_
