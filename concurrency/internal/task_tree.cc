#include "tocsin/concurrency/internal/task_tree.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "tocsin/concurrency/internal/clock.h"
#include "tocsin/concurrency/internal/held_shards.h"
#include "tocsin/concurrency/internal/local_queue.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/roster.h"
#include "tocsin/concurrency/internal/running_task.h"
#include "tocsin/concurrency/internal/shard.h"
#include "tocsin/concurrency/internal/task.h"
#include "tocsin/concurrency/internal/task_queue.h"
#include "tocsin/concurrency/internal/wait_note.h"
#include "tocsin/concurrency/internal/worker_slots.h"

namespace tocsin::inline v0_2::internal {
namespace {

// Of a group's tasks that have not begun so many are named.
constexpr size_t kMostNames = 10;
// Lines are not indented further.
constexpr size_t kDeepest = 30;

// What was seen. Its pointers into the library are only compared: what they
// point to may be gone once the shards are released.
struct SeenThread {
  pid_t id;
  bool worker;
  Wait wait;
  const RunningTask* runs = nullptr;  // the first on its stack
};

struct SeenTask {
  std::string name;
  TaskKind kind;
  const TaskQueue* group;
  const SeenThread* thread = nullptr;  // if that is known
  const RunningTask* runs = nullptr;   // the next on that thread's stack
};

struct SeenGroup {
  std::string name;
  const RunningTask* made_by = nullptr;
  const TaskQueue* made_in = nullptr;
  std::vector<const RunningTask*> begun;
  std::vector<std::string> others;  // names of those that have not begun
  size_t other_count = 0;
};

struct Sight {
  Sight();

  std::vector<SeenThread> threads;
  std::map<const RunningTask*, SeenTask> tasks;
  std::map<const TaskQueue*, SeenGroup> groups;

 private:
  // Call them while the shards are held.
  void SeeStack(const HeldShards& held, SeenThread& thread,
                const RunningTask* top);
  void SeeGroup(const TaskQueue& queue);
  void SeeTasks(const LocalQueue& local, SeenGroup& group);
  void SeeOther(SeenGroup& group, const Task& task, uint64_t number);
};

Sight::Sight() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  MutexLock lock(Roster::mutex);
  const HeldShards held;
  std::vector<const RunningTask*> tops;
  for (Roster::Entry* e = Roster::threads; e != nullptr; e = e->next) {
    const auto& thread = static_cast<const Roster::Thread&>(*e);
    threads.push_back({thread.id, thread.worker, thread.wait->Read()});
    tops.push_back(thread.task->load(std::memory_order_acquire));
  }
  for (size_t i = 0; i < threads.size(); ++i) {
    SeeStack(held, threads[i], tops[i]);
    // It exists until the thread has taken the lock of its home shard.
    const TaskQueue* const awaited = threads[i].wait.group;
    if (awaited != nullptr && held.Have(awaited->home().shard)) {
      SeeGroup(*awaited);
    }
  }
  for (Shard* shard : held.shards()) {
    for (const auto* p = shard->accounts; p != nullptr; p = p->next) {
      if (p->unfinished.load() != 0) SeeGroup(*p->queue);
    }
    for (const auto* p = shard->first_ready; p != nullptr; p = p->next_ready) {
      SeeGroup(*p->queue);
    }
  }
  for (auto& [queue, group] : groups) {
    for (const Task* t = queue->starting(); t != nullptr; t = t->next) {
      SeeOther(group, *t, 0);
    }
    SeeTasks(queue->home(), group);
  }
  for (Shard* shard : held.shards()) {
    for (const auto* p = shard->accounts; p != nullptr; p = p->next) {
      if (p->unfinished.load() != 0) SeeTasks(*p, groups.at(p->queue));
    }
  }
}

void Sight::SeeStack(const HeldShards& held, SeenThread& thread,
                     const RunningTask* top) {
  const RunningTask* above = nullptr;
  for (const RunningTask* r = top; r != nullptr; r = r->outer) {
    if (!held.Have(r->local->shard)) break;
    if (r->kind == TaskKind::kDiscarded) continue;
    tasks.emplace(r, SeenTask{r->name(), r->kind, &r->queue(), &thread, above});
    SeeGroup(r->queue());
    above = r;
  }
  thread.runs = above;
}

void Sight::SeeGroup(const TaskQueue& queue) {
  const auto [seen, is_new] = groups.try_emplace(&queue);
  if (!is_new) return;
  seen->second.name = queue.name();
  seen->second.made_by = queue.made_by();
  seen->second.made_in = queue.made_in();
}

void Sight::SeeTasks(const LocalQueue& local, SeenGroup& group) {
  for (const RunningTask* r = local.begun; r != nullptr; r = r->next) {
    tasks.try_emplace(r, SeenTask{r->name(), r->kind, local.queue});
    group.begun.push_back(r);
  }
  const size_t named = std::min(local.tasks.size(), kMostNames);
  for (size_t i = 0; i < named; ++i) {
    SeeOther(group, *local.tasks[i], local.tasks[i]->number);
  }
  group.other_count += local.tasks.size() - named;
}

void Sight::SeeOther(SeenGroup& group, const Task& task, uint64_t number) {
  if (++group.other_count > kMostNames) return;
  group.others.push_back(NameOf(task.options(), number));
}

class Text {
 public:
  explicit Text(const Sight& sight);

  std::vector<std::string> Lines() &&;

 private:
  using Groups = std::vector<const TaskQueue*>;

  void Add(size_t depth, const std::string& line);
  void AddThread(const SeenThread& thread);
  void AddTask(size_t depth, const RunningTask* at);
  void AddGroup(size_t depth, const TaskQueue* queue);
  // Only the tasks.
  void AddTasks(size_t depth, const TaskQueue* queue);
  std::string NameOfGroup(const TaskQueue* queue) const;
  // What the thread does at one place of its stack, on top of which it runs the
  // task `runs`, if that is not null.
  std::string Doing(const SeenThread& thread, const RunningTask* runs) const;
  // The group whose Wait() is at that place, or null.
  const TaskQueue* WaitsFor(const SeenThread& thread,
                            const RunningTask* runs) const;

  const Sight& sight_;
  std::set<const TaskQueue*> awaited_;            // by somebody
  std::map<const RunningTask*, Groups> made_by_;  // of the others
  std::set<const TaskQueue*> told_;
  std::vector<std::string> lines_;
};

Text::Text(const Sight& sight) : sight_(sight) {
  for (const SeenThread& thread : sight.threads) {
    if (!thread.worker) awaited_.insert(WaitsFor(thread, thread.runs));
  }
  for (const auto& [at, task] : sight.tasks) {
    if (task.thread != nullptr) {
      awaited_.insert(WaitsFor(*task.thread, task.runs));
    }
  }
  for (const auto& [queue, group] : sight.groups) {
    const auto maker = sight.tasks.find(group.made_by);
    if (awaited_.contains(queue) || maker == sight.tasks.end()) continue;
    if (maker->second.group != group.made_in) continue;  // another by now
    made_by_[group.made_by].push_back(queue);
  }
}

std::vector<std::string> Text::Lines() && {
  std::vector<const SeenThread*> threads;
  for (const SeenThread& thread : sight_.threads) {
    if (!thread.worker) threads.push_back(&thread);
  }
  // Main first.
  std::sort(threads.begin(), threads.end(),
            [](const SeenThread* a, const SeenThread* b) {
              return std::pair(a->id != getpid(), a->id) <
                     std::pair(b->id != getpid(), b->id);
            });
  for (const SeenThread* thread : threads) AddThread(*thread);
  std::set<const TaskQueue*> below = awaited_;
  for (const auto& [at, groups] : made_by_) {
    below.insert(groups.begin(), groups.end());
  }
  for (const auto& [queue, group] : sight_.groups) {
    if (!below.contains(queue)) AddGroup(0, queue);
  }
  // Whose wait or maker was not told of.
  for (const auto& [queue, group] : sight_.groups) AddGroup(0, queue);
  if (lines_.size() > kMostTaskLines) {
    lines_.resize(kMostTaskLines);
    lines_.back() = "and more";
  }
  return std::move(lines_);
}

void Text::Add(size_t depth, const std::string& line) {
  lines_.push_back(
      absl::StrCat(std::string(2 * std::min(depth, kDeepest), ' '), line));
}

void Text::AddThread(const SeenThread& thread) {
  const bool main = thread.id == getpid();
  if (!main && thread.runs == nullptr && thread.wait.call == nullptr) return;
  Add(0, absl::StrCat(main ? "main" : "a thread", Doing(thread, thread.runs)));
  AddTasks(1, WaitsFor(thread, thread.runs));
}

void Text::AddTask(size_t depth, const RunningTask* at) {
  const SeenTask& task = sight_.tasks.at(at);
  if (task.thread == nullptr) return Add(depth, task.name + " runs");
  Add(depth, absl::StrCat(task.name, Doing(*task.thread, task.runs)));
  AddTasks(depth + 1, WaitsFor(*task.thread, task.runs));
  const auto made = made_by_.find(at);
  if (made == made_by_.end()) return;
  for (const TaskQueue* queue : made->second) AddGroup(depth + 1, queue);
}

void Text::AddGroup(size_t depth, const TaskQueue* queue) {
  if (told_.contains(queue) || lines_.size() > kMostTaskLines) return;
  Add(depth, NameOfGroup(queue));
  AddTasks(depth + 1, queue);
}

void Text::AddTasks(size_t depth, const TaskQueue* queue) {
  const auto seen = sight_.groups.find(queue);
  if (seen == sight_.groups.end() || lines_.size() > kMostTaskLines) return;
  if (!told_.insert(queue).second) return;
  const SeenGroup& group = seen->second;
  for (size_t i = group.begun.size(); i > 0; --i) {
    AddTask(depth, group.begun[i - 1]);
  }
  for (const std::string& name : group.others) {
    Add(depth, absl::StrCat(name, " has not begun"));
  }
  if (group.other_count > group.others.size()) {
    Add(depth, absl::StrCat("and ", group.other_count - group.others.size(),
                            " more that have not begun"));
  }
}

std::string Text::NameOfGroup(const TaskQueue* queue) const {
  const auto group = sight_.groups.find(queue);
  if (group == sight_.groups.end() || group->second.name.empty()) {
    return "a group";
  }
  return absl::StrCat("group \"", group->second.name, "\"");
}

std::string Text::Doing(const SeenThread& thread,
                        const RunningTask* runs) const {
  const TaskQueue* const group = WaitsFor(thread, runs);
  const Wait& wait = thread.wait;
  std::string doing;
  if (runs != nullptr) {
    doing = group != nullptr
                ? absl::StrCat("waits in Wait() and runs tasks of ",
                               NameOfGroup(group))
                : absl::StrCat("waits in TaskHandle::Wait() and runs ",
                               sight_.tasks.at(runs).name);
  } else if (wait.call != nullptr) {
    const absl::Duration since = absl::FromChrono(Now() - wait.since);
    doing = absl::StrCat(
        "waits in ", wait.call, " for ",
        absl::FormatDuration(absl::Trunc(since, absl::Milliseconds(1))),
        group != nullptr ? ", for " + NameOfGroup(group) : "");
  } else {
    doing = "runs";
  }
  return absl::StrCat(" ", doing, " (thread ", thread.id, ")");
}

const TaskQueue* Text::WaitsFor(const SeenThread& thread,
                                const RunningTask* runs) const {
  if (runs == nullptr) return thread.wait.group;
  const SeenTask& task = sight_.tasks.at(runs);
  const bool in_wait_for_task =
      task.kind == TaskKind::kReserved || task.kind == TaskKind::kInTurn;
  return in_wait_for_task ? nullptr : task.group;
}

}  // namespace

std::vector<std::string> TaskTree() {
  const Sight sight;
  return Text(sight).Lines();
}

}  // namespace tocsin::inline v0_2::internal
