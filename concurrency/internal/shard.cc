#include "tocsin/concurrency/internal/shard.h"

#include <utility>

namespace tocsin::inline v0_2::internal {

Shard::~Shard() {
  while (LocalQueue* local = spare) {
    spare = local->next;
    delete local;
  }
}

bool Shard::Stuck() {
  bool stuck = false;
  for (LocalQueue* p = first_ready; p != nullptr; p = p->next_ready) {
    stuck |= std::exchange(p->taken_at_last_look, p->taken) == p->taken;
  }
  return stuck;
}

LocalQueue* Shard::FindAccount(const TaskQueue& queue) const {
  LocalQueue* local = accounts;
  while (local != nullptr && local->queue != &queue) local = local->next;
  return local;
}

LocalQueue& Shard::AddAccount(TaskQueue& queue) {
  LocalQueue* local = spare;
  if (local != nullptr) {
    spare = local->next;
  } else {
    local = new LocalQueue(*this);
  }
  local->queue = &queue;
  local->next = std::exchange(accounts, local);
  return *local;
}

void Shard::Spare(LocalQueue& local) {
  LocalQueue** link = &local.shard.accounts;
  while (*link != &local) link = &(*link)->next;
  *link = local.next;
  local.queue = nullptr;
  local.number = local.numbers_end = 0;
  local.tasks.LeaveMemoryTo(local.shard.spare_tasks);
  local.next = std::exchange(local.shard.spare, &local);
}

}  // namespace tocsin::inline v0_2::internal
