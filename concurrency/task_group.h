// Tasks that run on other threads and end before the block that started them.
//
//   absl::Status ReadAll(const std::vector<std::string>& paths) {
//     TaskGroup group;
//     for (const std::string& path : paths) {
//       group.Spawn([&path] { return Read(path); });
//     }
//     return group.Wait();
//   }
//
// A TaskGroup is a TaskSet (see task_set.h for its members). Its scope is a
// child of the thread's current scope, and the thread is in it from the
// constructor to the end of Wait(), as in a nursery of Trio. So what cancels a
// scope around the group cancels its tasks; and when a task fails, the waits of
// the thread that made the group end, too. The code after Wait() is outside:
//
//   TaskGroup group;
//   for (int i = 0; i < 4; ++i) group.Spawn([&] { return Work(jobs); });
//   for (const Job& job : all) {
//     if (!jobs.Push(job).ok()) break;  // also when all workers have failed
//   }
//   jobs.Close();
//   absl::Status status = group.Wait();  // the error of the first one
//   SayGoodbye();                        // may wait again
//
// Wait() returns the first error of a task. If there is none, and a scope
// around the group was cancelled before the group itself was, it returns that
// scope's kCancelled or kDeadlineExceeded; otherwise OK.
//
// Made and destroyed by one thread, in the scope and the task in which it was
// made, in the order of nesting with CancelScopes. This is checked where a
// scope or a task ends, also after Wait(): the program ends with a message that
// names the group. What is made at its first use and then stays, such as a
// member of a singleton, is a TaskSet. Wait() leaves the group if that thread
// calls it and is in no scope that it made inside; otherwise the destructor
// does. All other members may be called from any thread.
#ifndef TOCSIN_CONCURRENCY_TASK_GROUP_H_
#define TOCSIN_CONCURRENCY_TASK_GROUP_H_

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/task_set.h"

namespace tocsin::inline v0_2 {

using TaskGroupOptions = TaskSetOptions;

class [[nodiscard]] TaskGroup final : public TaskSet {
 public:
  TaskGroup() : TaskSet(Entered()) {}
  explicit TaskGroup(Options options)
      : TaskSet(Entered(), std::move(options)) {}

 private:
  friend absl::Status RunTaskGroup(
      absl::FunctionRef<absl::Status(TaskGroup&)> body, Options options);
};

// Runs `body` in a group and waits for the tasks it spawned. An error of the
// body cancels them. Returns the first error of all, and not its effects on the
// others.
//
//   absl::Status status = RunTaskGroup([](TaskGroup& group) {
//     group.Spawn(Produce);
//     return Consume();  // its waits end when Produce fails
//   });
absl::Status RunTaskGroup(absl::FunctionRef<absl::Status(TaskGroup&)> body,
                          TaskGroup::Options options = {});

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_CONCURRENCY_TASK_GROUP_H_
