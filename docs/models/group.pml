/* The end of a task group: its last tasks, at its home and in an account of another shard,
 * a task that spawns, one that cancels the group, two threads that wait, and the owner that
 * destroys the group once it has been told.
 *
 * Stands for
 *   concurrency/internal/task_queue.h: TaskQueue::EndAt, TaskQueue::CloseIfEnded, TaskQueue::Ended, TaskQueue::NothingUnfinished
 *   concurrency/internal/task_queue.cc: TaskQueue::AddAt, TaskQueue::AddToAccount, TaskQueue::OpenAccount, TaskQueue::Discard, TaskQueue::DiscardAt, TaskQueue::StealHome, TaskQueue::EndAlone, TaskQueue::AnnounceEnd, TaskQueue::CloseAccount, TaskQueue::NoticeEnd
 *   concurrency/internal/completion_count.h: NothingUnfinished, OpenAccount, CloseAccountButTheLast, CloseAccount
 *   concurrency/internal/group_join.cc: GroupJoin::RunHomeTasks, GroupJoin::Run, GroupJoin::RunWithoutTasks, GroupJoin::Sleep, GroupJoin::SomethingIsReadyElsewhere
 *   concurrency/internal/group_waiters.cc: GroupWaiters::Enter, GroupWaiters::Leave, GroupWaiters::WakeAll
 *   concurrency/internal/group_state.cc: GroupState::~GroupState, GroupState::Cancel, GroupState::Wait, GroupState::NoticeClosed
 *
 * Runs
 *   cancels: -DCANCELS=1 -DSPAWNS=0
 *   spawns: -DCANCELS=0 -DSPAWNS=1
 *   outside: -DCANCELS=0 -DSPAWNS=0 -DOUTSIDE
 *
 * Mutants
 *   CLOSED_UNLOCKED: who closes the last account counts before it has the home lock
 *   TOLD_UNLOCKED: who ends the last task tells the waiters without the home lock
 *   NOT_HELD_OPEN (outside): a discard holds no account of its own
 *   NO_LAST_LOOK: a waiter falls asleep without a last look under the lock
 *   ONE_TOLD: the end wakes one waiter only
 *   TOLD_FIRST: the waiters are told before the account is counted as closed
 *   ACCOUNT_LATE (spawns): a task is in an account before that is counted
 *
 * Left out
 *   Memory order: all but the number of accounts is under the locks of the shards, and
 *     that is sequentially consistent.
 *   Who takes a ready task, and who is woken for it: pool.pml. Here the workers take it
 *     at any time, or the waiters do.
 *   Tasks that are carried to another shard: both counts change under both locks, and
 *     neither becomes zero by it, because the older half never is all of several.
 *   The limit of running tasks, background tasks, tasks with a thread of their own: they
 *     count at home, under its lock.
 *   The cancel of the scope itself: scope.pml.
 */

/* Shards outlive groups, with their locks. */
bool home_lock, shard_lock;

/* The group. */
byte home_tasks, home_unfinished;
byte accounts;
byte joining;
bool closed;
bool waits[2], is_woken[2], alive[2];    /* GroupWaiters */

/* Its account at the other shard. */
byte tasks, unfinished;

/* What became of it. */
bool destroyed;
byte added, ended, being_destroyed;
byte cancels = CANCELS, spawns = SPAWNS;
bool other_is_back;
#ifdef OUTSIDE
bool canceller_is_back;
#else
bool canceller_is_back = true;
#endif

mtype = { NOTHING, AT_HOME, ELSEWHERE };

#define LOCK(l) atomic { !l -> l = true }
#define ENDED (home_unfinished == 0 && accounts == 0)
#define TOUCH assert(!destroyed)

/* Under the home lock. The system calls follow once it is released, and use addresses
 * only: a wake-up is seen by then at the latest. */
inline NoticeEnd() {
  atomic {
    TOUCH;
    if
    :: joining && ENDED ->
#ifdef ONE_TOLD
       if
       :: waits[0] -> is_woken[0] = true
       :: else -> is_woken[1] = true
       fi
#else
       if :: waits[0] -> assert(alive[0]); is_woken[0] = true :: else fi;
       if :: waits[1] -> assert(alive[1]); is_woken[1] = true :: else fi
#endif
    :: else
    fi
  }
}

inline CloseAccount() {
  if
  :: atomic { accounts > 1 -> TOUCH; accounts-- }
  :: atomic { accounts <= 1 -> TOUCH; assert(accounts == 1) };
#ifdef CLOSED_UNLOCKED
     accounts--;
     LOCK(home_lock);
#else
     LOCK(home_lock);
#ifdef TOLD_FIRST
     NoticeEnd();
     accounts--;
#else
     accounts--;
     NoticeEnd();
#endif
#endif
#ifdef CLOSED_UNLOCKED
     NoticeEnd();
#endif
     home_lock = false
  fi
}

/* The end of a task that counts at home, under the home lock; releases that. */
inline EndAtHome() {
  atomic { TOUCH; home_unfinished--; ended++ };
#ifdef TOLD_UNLOCKED
  home_lock = false;
  NoticeEnd()
#else
  if
  :: (waits[0] || waits[1]) && home_unfinished == 0 -> NoticeEnd()
  :: else
  fi;
  home_lock = false
#endif
}

inline EndInAccount() {
  atomic { !shard_lock -> shard_lock = true; unfinished--; ended++ };
  if
  :: unfinished == 0 -> shard_lock = false; CloseAccount()
  :: else -> shard_lock = false
  fi
}

/* Add(), on a thread of the other shard, by a task of the group. */
inline Spawn() {
#ifdef ACCOUNT_LATE
  atomic { !shard_lock -> shard_lock = true; opens = (unfinished == 0); tasks++; unfinished++; added++; shard_lock = false };
  if
  :: opens -> atomic { !home_lock -> TOUCH; accounts++ }
  :: else
  fi
#else
  if
  :: atomic { !shard_lock && unfinished != 0 -> tasks++; unfinished++; added++ }
  :: atomic { !shard_lock && unfinished == 0 };
     atomic { !home_lock -> TOUCH; assert(!closed); accounts++ };
     if
     :: atomic { !shard_lock && unfinished == 0 -> tasks++; unfinished++; added++ }
     :: atomic { !shard_lock && unfinished != 0 -> tasks++; unfinished++; added++ };
        CloseAccount()
     fi
  fi
#endif
}

inline Discard() {
  if
  :: atomic { !home_lock && closed -> TOUCH; goto discarded }
#ifdef NOT_HELD_OPEN
  :: atomic { !home_lock && !closed -> TOUCH }
#else
  :: atomic { !home_lock && !closed -> TOUCH; accounts++ }
#endif
  fi;
  atomic {
    !home_lock -> TOUCH;
    n = home_tasks;
    home_tasks = 0;
    being_destroyed = being_destroyed + n
  };
  if
  :: n ->
     atomic { ended = ended + n; being_destroyed = being_destroyed - n };
     atomic { !home_lock -> TOUCH; home_unfinished = home_unfinished - n; n = 0 }
  :: else
  fi;
  atomic {
    !shard_lock -> n = tasks;
    tasks = 0;
    being_destroyed = being_destroyed + n
  };
  if
  :: n ->
     atomic { ended = ended + n; being_destroyed = being_destroyed - n };
     atomic { !shard_lock -> unfinished = unfinished - n; n = (unfinished == 0) };
     if :: n -> atomic { TOUCH; accounts--; n = 0 } :: else fi
  :: else
  fi;
#ifndef NOT_HELD_OPEN
  CloseAccount();
#endif
discarded:
  skip
}

/* Runs the task that a thread took. */
inline RunTaken() {
  if
  :: atomic { cancels -> cancels-- }; Discard()
  :: atomic { spawns -> spawns-- }; Spawn()
  :: true
  fi;
  if
  :: took == AT_HOME -> LOCK(home_lock); EndAtHome()
  :: took == ELSEWHERE -> EndInAccount()
  fi;
  took = NOTHING
}

/* A worker of the pool, whose shard is the other one. */
proctype Worker() {
  byte n;
  mtype took = NOTHING;
  bool opens;
end:
  if
  :: atomic { !home_lock && home_tasks -> TOUCH; home_tasks--; took = AT_HOME }
  :: atomic { !shard_lock && tasks -> tasks--; took = ELSEWHERE }
  fi;
  RunTaken();
  goto end
}

/* GroupJoin::Run() */
inline Join() {
  atomic { !home_lock -> home_lock = true; TOUCH; joining++ };
  do
  :: if
     :: home_tasks -> atomic { home_tasks--; took = AT_HOME; home_lock = false }
     :: home_tasks == 0 && (closed || ENDED) -> closed = true; break
     :: home_tasks == 0 && !closed && !ENDED ->
        home_lock = false;
        if
        :: atomic { !home_lock && !shard_lock && tasks -> tasks--; took = ELSEWHERE }
        :: !tasks ->
           /* Sleep() */
           atomic { alive[self] = true; is_woken[self] = false };
           if
#ifdef NO_LAST_LOOK
           :: atomic { !home_lock -> TOUCH; waits[self] = true };
#else
           :: atomic { !home_lock && (home_tasks || ENDED) -> TOUCH }
           :: atomic { !home_lock && !home_tasks && !ENDED -> TOUCH; waits[self] = true };
#endif
              if
              :: atomic { !shard_lock && tasks }
              :: atomic { !shard_lock && !tasks };
                 is_woken[self] || home_tasks || tasks
              fi;
              atomic { !home_lock -> TOUCH; waits[self] = false }
           fi;
           alive[self] = false
        fi
     fi;
     if
     :: took != NOTHING -> RunTaken()
     :: else
     fi;
     LOCK(home_lock)
  od;
  atomic {
    assert(added == ended && tasks == 0 && being_destroyed == 0);
    joining--;
    home_lock = false
  }
}

/* Another thread, which may wait. */
proctype Other() {
  byte n, self = 1;
  mtype took = NOTHING;
  bool opens;
  if
  :: Join()
  :: true
  fi;
  other_is_back = true
}

#ifdef OUTSIDE
/* A thread of the program that cancels the group. */
proctype Canceller() {
  byte n;
  Discard();
  canceller_is_back = true
}
#endif

/* Destroys the group at once, or after its own Wait(); but not while another one is in
 * Wait() or Cancel(), which is its business. */
proctype Owner() {
  byte n, self = 0;
  mtype took = NOTHING;
  bool opens;
  if
  :: goto wait
  :: other_is_back && canceller_is_back
  fi;
  if
  :: closed -> goto end_of_it     /* settled_ */
  :: else -> Discard()
  fi;
wait:
  Join();
  other_is_back && canceller_is_back;
end_of_it:
  destroyed = true
}

init {
  atomic {
    home_tasks = 1; home_unfinished = 1;
    tasks = 1; unfinished = 1; accounts = 1;
    added = 2;
    run Worker();
    run Worker();
    run Other();
#ifdef OUTSIDE
    run Canceller();
#endif
    run Owner()
  }
}
