// A thread's wait for the end of a group, whose tasks it runs meanwhile.
//
// Lives on the stack of that thread. Several threads may wait for a group.
#ifndef TOCSIN_CONCURRENCY_INTERNAL_GROUP_JOIN_H_
#define TOCSIN_CONCURRENCY_INTERNAL_GROUP_JOIN_H_

#include <cstddef>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/task_wait.h"

namespace tocsin::inline v0_2::internal {

class GroupJoin {
 public:
  // If it `may_be_refused`, it is also refused in the place of one that may
  // not, where each waits for the other.
  GroupJoin(TaskQueue& queue, bool may_be_refused)
      : queue_(queue), may_be_refused_(may_be_refused) {}
  GroupJoin(const GroupJoin&) = delete;
  GroupJoin& operator=(const GroupJoin&) = delete;

  // Runs the tasks of this queue and no others, then sleeps until the last one
  // has ended elsewhere, and closes the queue. Returns a copy of `outcome`,
  // which the group has by then. The queue may be gone after that, if another
  // thread waits for it, too. Nothing if called by a task that would wait for
  // itself: at once or instead of sleeping; or through the waits of other
  // tasks, after a while.
  [[nodiscard]] std::optional<absl::Status> Run(const absl::Status& outcome);

 private:
  // The two parts of Run(): while there are tasks at home, and while there are
  // none. False if it would wait for itself. Now and then the first also runs
  // one that is elsewhere.
  void RunHomeTask(RunningTask& running)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  void RunHomeTasks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  bool RunWithoutTasks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  bool WouldWaitForItself() const;
  bool IsRefused();
  void Sleep() ABSL_LOCKS_EXCLUDED(queue_.home_shard_.lock);
  void RunTasksThatAreDue()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.home_shard_.lock);
  bool RunTaskFromElsewhere() ABSL_LOCKS_EXCLUDED(queue_.home_shard_.lock);
  bool SomethingIsReadyElsewhere();

  TaskQueue& queue_;
  const bool may_be_refused_;
  Instant since_{};               // when it slept first
  std::optional<TaskWait> long_;  // in a task, once it has lasted
  bool background_cancelled_ = false;
  size_t turn_ = 0;  // of the shard to look at first
};

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_CONCURRENCY_INTERNAL_GROUP_JOIN_H_
