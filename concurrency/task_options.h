// What can be said about a task besides what it does.
//
// A value: each thread has its own.
//
//   group.Spawn(Flush, {.name = "flush", .start_even_if_cancelled = true});
#ifndef TOCSIN_CONCURRENCY_TASK_OPTIONS_H_
#define TOCSIN_CONCURRENCY_TASK_OPTIONS_H_

#include <string>

namespace tocsin::inline v0_2 {

struct TaskOptions {
  // For reports; "task 3" where none is given. Tasks with a thread of their own
  // give it to that, too, cut to 15 bytes.
  std::string name = {};
  // Starts the task even if its group is cancelled by then; its first wait says
  // so. Without this such a task is destroyed and never runs.
  bool start_even_if_cancelled = false;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_OPTIONS_H_
