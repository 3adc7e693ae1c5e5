#include "tocsin/concurrency/cancel_scope.h"

#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tocsin/concurrency/internal/deadline_timer.h"
#include "tocsin/concurrency/internal/mutex_lock.h"
#include "tocsin/concurrency/internal/sleeper.h"
#include "tocsin/concurrency/internal/step.h"
#include "tocsin/concurrency/internal/wall_clock.h"
#include "tocsin/concurrency/internal/worker_slot.h"

namespace tocsin {
namespace internal {

ABSL_CONST_INIT SlimMutex scope_tree_mutex;

void ScopeState::DieOf(const char* mistake) {
  std::fprintf(stderr,
               "tocsin: a CancelScope was destroyed %s. Keep scopes in local "
               "variables and task groups inside the scope they were made in, "
               "so that the inner ones end first.\n",
               mistake);
  std::abort();
}

ScopeState::ScopeState(absl::Time deadline, bool shield)
    : ScopeState(current_scope, true, ToNanoseconds(deadline), shield) {
  current_scope = this;
}

void ScopeState::Adopt(std::stop_token stop) {
  if (stop.stop_possible()) {
    adopted_.emplace(std::move(stop), RequestCancel{this});
  }
}

void ScopeState::Leave() {
  adopted_.reset();  // waits for the Cancel() it may be running
  if (entered_) {
    if (current_scope != this) {
      DieOf("out of order or on another thread than the one that made it");
    }
    current_scope = parent_;
  }
  // Whoever joined it to the tree has left it again, and nobody can any more.
  if (attached_.load(std::memory_order_acquire)) ScopeTree::Detach(*this);
}

void ScopeState::RequestCancel::operator()() const {
  scope->Cancel(absl::CancelledError("stop was requested"));
}

void ScopeState::Cancel(absl::Status reason) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (Latched()) return;
  reason_ = reason.ok() ? absl::CancelledError() : std::move(reason);
  State live = State::kLive;
  if (!state_.compare_exchange_strong(live, State::kCancelled)) return;
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

absl::Status ScopeState::status() const {
  const ScopeState* by = CancelledBy();
  return by == nullptr ? absl::OkStatus() : by->Cause();
}

absl::Status ScopeState::WaitStatus() const {
  const ScopeState* by = CancelledBy();
  if (by == nullptr) return absl::OkStatus();
  absl::Status cause = by->Cause();
  if (absl::IsCancelled(cause) ||
      by->state_.load(std::memory_order_acquire) == State::kExpired) {
    return cause;
  }
  return absl::CancelledError(cause.ToString());
}

absl::Status ScopeState::Cause() const {
  if (state_.load(std::memory_order_acquire) == State::kCancelled) {
    return reason_;
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "the deadline of the cancel scope passed: ",
      absl::FormatTime(
          FromNanoseconds(deadline_.load(std::memory_order_relaxed)),
          absl::UTCTimeZone())));
}

absl::Time ScopeState::deadline() const {
  int64_t nearest = kNever;
  for (const ScopeState* s = this; s != nullptr; s = s->OuterInReach()) {
    nearest = std::min(nearest, s->deadline_.load(std::memory_order_acquire));
  }
  return FromNanoseconds(nearest);
}

void ScopeState::set_deadline(absl::Time deadline) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  if (Latched()) return;
  deadline_.store(ToNanoseconds(deadline), std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

void ScopeState::set_shield(bool shield) {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  shield_.store(shield, std::memory_order_release);
  TOCSIN_STEP("CancelScope: changed, not yet announced");
  scope_epoch.fetch_add(1);
  ScopeTree::CollectWakeUps(*this, wake_ups);
}

std::stop_token ScopeState::stop_token() const {
  ScopeWakeUps wake_ups;
  MutexLock lock(scope_tree_mutex);
  ScopeTree::Attach(*this);
  if (!links_.exported.stop_possible()) {
    links_.request = std::make_unique<StopRequest>();
    links_.exported = links_.request->source;
  }
  ScopeTree::CollectWakeUps(*this, wake_ups);
  return links_.exported.get_token();
}

// A deadline counts from the moment it is seen to have passed, so that a wall
// clock that is set back does not un-cancel a scope.
bool ScopeState::Latched() const {
  if (state_.load(std::memory_order_acquire) != State::kLive) return true;
  const int64_t deadline = deadline_.load(std::memory_order_acquire);
  if (deadline == kNever || deadline > NowInNanoseconds()) return false;
  State live = State::kLive;
  state_.compare_exchange_strong(live, State::kExpired);
  return true;
}

const ScopeState* ScopeState::CancelledBy() const {
  const uint64_t now = scope_epoch.load(std::memory_order_acquire);
  bool timed = false;
  for (const ScopeState* s = this; s != nullptr; s = s->OuterInReach()) {
    if (s->clear_at_.load(std::memory_order_acquire) == now) break;
    if (s->Latched()) return s;
    timed |= s->deadline_.load(std::memory_order_relaxed) != kNever;
  }
  TOCSIN_STEP("CancelScope: found clear");
  if (!timed) clear_at_.store(now, std::memory_order_release);
  return nullptr;
}

void ScopeTree::Detach(const ScopeState& scope) {
  MutexLock lock(scope_tree_mutex);
  ScopeLinks& links = scope.links_;
  if (links.first_child != nullptr || links.sleepers != nullptr) {
    ScopeState::DieOf("while something inside it still waits");
  }
  DeadlineTimer::Get().Set(&scope, kNever);
  const ScopeState* const next = links.next_sibling;
  const ScopeState* const previous = links.previous_sibling;
  if (next != nullptr) next->links_.previous_sibling = previous;
  if (previous != nullptr) {
    previous->links_.next_sibling = next;
  } else if (scope.parent_ != nullptr) {
    scope.parent_->links_.first_child = next;
  }
  links.~ScopeLinks();
}

void ScopeTree::CollectWakeUps(const ScopeState& scope,
                               ScopeWakeUps& wake_ups) {
  if (!scope.attached_) return;
  const ScopeState* s = &scope;
  while (true) {
    ScopeLinks& links = s->links_;
    bool with_others = false;
    for (Sleeper* sleeper = links.sleepers; sleeper != nullptr;
         sleeper = sleeper->next_) {
      if (sleeper->with_others_) {
        with_others = true;
      } else {
        sleeper->WakeLater(wake_ups.asleep);
      }
    }
    if (with_others) {
      links.wake_ups.fetch_add(1);
      wake_ups.asleep.Add(&links.wake_ups, kAnyBit);
    }
    if (links.request != nullptr) {
      const bool cancelled = s->cancelled();
      DeadlineTimer::Get().Set(
          s, cancelled ? kNever : absl::ToUnixNanos(s->deadline()));
      if (cancelled) {
        *wake_ups.next_request = std::move(links.request);
        wake_ups.next_request = &(*wake_ups.next_request)->next;
      }
    }
    // On to the next scope of the subtree, in order and without a stack, past
    // those that are shielded from the change.
    const ScopeState* next = links.first_child;
    while (true) {
      while (next != nullptr && next->shield_.load(std::memory_order_acquire)) {
        next = next->links_.next_sibling;
      }
      if (next != nullptr || s == &scope) break;
      next = s->links_.next_sibling;
      s = s->parent_;
    }
    if (next == nullptr) return;
    s = next;
  }
}

ScopeWakeUps::~ScopeWakeUps() {
  asleep.Send();
  for (auto r = std::move(first_request); r != nullptr;) {
    r->source.request_stop();
    r = std::move(r->next);
  }
}

// A forked child has one thread. What others left in the scopes that this
// thread is in, their sleepers and inner scopes, does not exist there.
struct ScopeTree::Fork {
  static void Prepare() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    scope_tree_mutex.Lock();
  }
  static void InParent() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    scope_tree_mutex.Unlock();
  }
  static void InChild() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    DeadlineTimer::Get().ForgetAll();
    const ScopeState* inner = nullptr;
    for (ScopeState* s = current_scope; s != nullptr; s = s->parent_) {
      if (!s->attached_) continue;
      ScopeLinks& links = s->links_;
      links.sleepers = nullptr;
      links.first_child = inner;
      links.next_sibling = links.previous_sibling = nullptr;
      links.timer = kNever;
      inner = s;
    }
    scope_tree_mutex.Unlock();
  }

  // Before main(), because pthread_atfork() must not be called under the lock
  // that a fork() on another thread is waiting for.
  [[maybe_unused]] static const int registered;
};

const int ScopeTree::Fork::registered =
    pthread_atfork(Prepare, InParent, InChild);

void ScopeTree::Attach(const ScopeState& scope) {
  const ScopeState* child = nullptr;  // has joined just now
  for (const ScopeState* s = &scope; s != nullptr; s = s->parent_) {
    const bool was_attached = s->attached_;
    if (!was_attached) {
      ::new (&s->links_) ScopeLinks;
      s->attached_ = true;
    }
    if (child != nullptr) {
      const ScopeState* const next = s->links_.first_child;
      child->links_.next_sibling = next;
      if (next != nullptr) next->links_.previous_sibling = child;
      s->links_.first_child = child;
    }
    if (was_attached) return;
    child = s;
  }
}

Sleeper::Sleeper(absl::Time timeout, BlockingCall* call)
    : scope_(current_scope), timeout_(timeout), call_(call) {}

Sleeper::Sleeper(Unscoped)
    : scope_(nullptr), timeout_(absl::InfiniteFuture()), call_(nullptr) {}

Sleeper::Sleeper(absl::Time timeout, WithOthers)
    : scope_(current_scope),
      timeout_(timeout),
      call_(nullptr),
      with_others_(scope_ != nullptr) {}

Sleeper::~Sleeper() {
  if (!joined_) return;
  MutexLock lock(scope_tree_mutex);
  if (next_ != nullptr) next_->previous_ = previous_;
  (previous_ != nullptr ? previous_->next_ : scope_->links_.sleepers) = next_;
}

void Sleeper::Join() {
  if (joined_ || scope_ == nullptr) return;
  joined_ = true;
  MutexLock lock(scope_tree_mutex);
  ScopeTree::Attach(*scope_);
  next_ = scope_->links_.sleepers;
  if (next_ != nullptr) next_->previous_ = this;
  scope_->links_.sleepers = this;
}

absl::Status Sleeper::Sleep(uint32_t how) {
  // Joining comes before the look at the scope: what cancels it after the look
  // finds this sleeper and wakes it.
  Join();
  const uint32_t wake_ups =
      with_others_ ? scope_->links_.wake_ups.load(std::memory_order_acquire)
                   : 0;
  absl::Time until = timeout_;
  if (scope_ != nullptr) {
    if (absl::Status status = scope_->WaitStatus(); !status.ok()) return status;
    TOCSIN_STEP("Sleeper: found its scope clear");
    until = std::min(until, scope_->deadline());
  }
  if (timeout_ != absl::InfiniteFuture() && timeout_ <= internal::Now()) {
    return absl::DeadlineExceededError("the timeout of the call passed");
  }
  if (with_others_) {
    SlotRelease release;
    FutexWait(scope_->links_.wake_ups, wake_ups, until);
    return absl::OkStatus();
  }
  uint32_t awake = kAwake;
  if (word_.compare_exchange_strong(awake, how, std::memory_order_acq_rel)) {
    TOCSIN_STEP("Sleeper: about to sleep");
    SlotRelease release;
    if (how == kAsleep) {
      FutexWait(word_, kAsleep, until);
    } else {
      call_->Block(*this, until);
    }
  }
  word_.exchange(kAwake, std::memory_order_acq_rel);
  return absl::OkStatus();
}

void ScopeEntry::DieOfOrder() {
  ScopeState::DieOf("after the scope around it was left");
}

DeadlineTimer& DeadlineTimer::Get() {
  static DeadlineTimer& timer = *new DeadlineTimer;
  return timer;
}

void DeadlineTimer::Set(const ScopeState* scope, int64_t time) {
  if (scope->links_.timer == time && (running_ || time == kNever)) return;
  if (time != kNever) alarms_.insert({time, scope});
  if (scope->links_.timer != kNever && scope->links_.timer != time) {
    alarms_.erase({scope->links_.timer, scope});
  }
  scope->links_.timer = time;
  if (time == kNever) return;
  if (!running_) {
    pthread_t thread;
    auto run = [](void* timer) -> void* {
      pthread_setname_np(pthread_self(), "tocsin-timer");
      static_cast<DeadlineTimer*>(timer)->Run();
      return nullptr;
    };
    // Where no thread can be had, the next call tries again.
    running_ = pthread_create(&thread, nullptr, run, this) == 0;
    if (running_) pthread_detach(thread);
  } else if (alarms_.begin()->second == scope) {
    changes_.fetch_add(1, std::memory_order_release);
    FutexWakeOne(&changes_);
  }
}

void DeadlineTimer::ForgetAll() {
  alarms_.clear();
  running_ = false;
}

void DeadlineTimer::Run() {
  while (true) {
    const uint32_t changes = changes_.load(std::memory_order_acquire);
    absl::Time next = absl::InfiniteFuture();
    std::stop_source due(std::nostopstate);
    {
      MutexLock lock(scope_tree_mutex);
      if (!alarms_.empty()) {
        const auto [time, scope] = *alarms_.begin();
        if (time <= NowInNanoseconds() && scope->cancelled()) {
          alarms_.erase(alarms_.begin());
          scope->links_.timer = kNever;
          due = scope->links_.exported;
        } else {
          next = FromNanoseconds(time);
        }
      }
    }
    TOCSIN_STEP("DeadlineTimer: has looked at its alarms");
    if (due.stop_possible()) {
      due.request_stop();
    } else {
      FutexWait(changes_, changes, next);
    }
  }
}

}  // namespace internal

using internal::ScopeState;

bool MoveOnAfter(absl::Duration timeout, absl::FunctionRef<void()> body) {
  CancelScope scope({.deadline = internal::Now() + timeout});
  body();
  const ScopeState& state = ScopeState::Of(scope);
  const bool from_outside = state.parent() && state.parent()->cancelled();
  return !from_outside && state.Latched();
}

absl::Status FailAfter(absl::Duration timeout,
                       absl::FunctionRef<absl::Status()> body) {
  CancelScope scope({.deadline = internal::Now() + timeout});
  absl::Status status = body();
  const bool interrupted =
      absl::IsCancelled(status) || absl::IsDeadlineExceeded(status);
  const ScopeState& state = ScopeState::Of(scope);
  const bool from_outside = state.parent() && state.parent()->cancelled();
  if (interrupted && !from_outside && state.Latched()) {
    return absl::DeadlineExceededError(
        absl::StrCat("not done within ", absl::FormatDuration(timeout)));
  }
  return status;
}

}  // namespace tocsin
