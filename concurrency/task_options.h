// Options for one task of a group.
//
// A value: each thread has its own.
//
//   group.Spawn(Flush, {.name = "flush", .start_even_if_cancelled = true});
#ifndef TOCSIN_CONCURRENCY_TASK_OPTIONS_H_
#define TOCSIN_CONCURRENCY_TASK_OPTIONS_H_

#include <string>

namespace tocsin::inline v0_2 {

struct TaskOptions {
  // For reports; "task 3" if none is given. A task with a thread of its own
  // also names that thread so, cut to 15 bytes.
  std::string name = {};
  // Starts the task even if its group is cancelled by then; its first wait
  // reports that. Without this such a task is destroyed and never runs.
  bool start_even_if_cancelled = false;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_OPTIONS_H_
