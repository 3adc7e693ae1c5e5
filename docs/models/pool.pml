/* A pool: tasks that become ready, workers that search, steal, run, give their slot away
 * while they wait, and go to sleep; and the monitor, which takes the slot of a worker that
 * blocks without a word. A lost wake-up is a task that never runs.
 *
 * Stands for
 *   concurrency/internal/worker_slots.h: Dispatch, DispatchIfReady, BeginSearch, EndSearch, TakeSlot
 *   concurrency/internal/worker_slots.cc: WorkerSlots::Send, WorkerSlots::Grant, WorkerSlots::Park, WorkerSlots::GiveSlot, WorkerSlots::SomethingLooksReady, WorkerSlots::SomethingIsReady
 *   concurrency/internal/worker.cc: Worker::RunTasks, Worker::StopSearching, Worker::Search, Worker::KeepsSlot, Worker::RunOwnTasks, Worker::RunTaskInTurn
 *   concurrency/internal/worker.h: Leave, Return
 *   concurrency/internal/shard.h: IsReady, SeeReady, Shard::Enter
 *   concurrency/internal/task_queue.cc: TaskQueue::Add, TaskQueue::Steal
 *   concurrency/internal/pool_monitor.cc: PoolMonitor::Rouse, PoolMonitor::Run, PoolMonitor::SomethingIsStuck, PoolMonitor::LookAtWorkers
 *
 * Runs
 *   one-slot: -DSLOTS=1
 *   two-slots: -DSLOTS=2
 *   free-slot: -DSLOTS=2 -DFREE
 *   blocks: -DSLOTS=1 -DBLOCKS
 *
 * Mutants
 *   PARK_UNSEEN: a worker that parks does not look whether something is ready
 *   PARK_FIRST: it looks before it gives its slot up
 *   SEARCH_UNSEEN (free-slot): a worker that stops searching does not look
 *   LOOKED_FIRST (free-slot): it looks before it stops counting as one that searches
 *   LEAVE_UNSEEN: a worker that leaves its slot does not look
 *   NOT_ROUSED (blocks): who finds no slot free does not rouse the monitor
 *   DORMANT_UNSEEN (blocks): the monitor goes dormant without a last look
 *   NOT_TAKEN (blocks): the monitor does not take the slot of a worker that blocks, and
 *     sends nobody
 *   CLEARED_UNSEEN: who finds a shard empty clears its flag without the lock
 *
 * Left out
 *   Memory order: active_, searching_, watch_ and looks_ready are sequentially consistent
 *     where an order counts; clearing looks_ready is relaxed, but under the lock under
 *     which it is set.
 *   Threads that the system refuses or that end: as many as there may be are there, and
 *     parked.
 *   Time: a worker searches for as long as it likes; the monitor looks again when nobody
 *     else can do anything, and one time earlier.
 *   How the monitor tells who blocks from who computes, and whose turn it is of several
 *     groups and shards.
 *   Tasks that are carried to another shard, which needs three at one: each steal takes
 *     one here.
 *   Threads in Wait() of a group, which take its tasks too: without them it is harder.
 */

#define WORKERS 2
#define SHARDS 2
#define LOCK(l) atomic { !l -> l = true }

/* The shards. A task is a parent, which spawns a child and waits for it, or plain. Where it
 * blocks, it says nothing to the pool. FREE: it blocks until the plain one is done, with
 * a slot free and no monitor. */
bool shard_lock[SHARDS], looks_ready[SHARDS];
byte parents[SHARDS], children[SHARDS], plain[SHARDS];
byte taken[SHARDS], taken_at_last_look[SHARDS];
#define NEVER_LOOKED 255
#define IS_READY(s) (parents[s] + children[s] + plain[s] != 0)

/* WorkerSlots */
bool mutex;
byte in_use, searching;
mtype = { dormant, watching };
mtype watch = dormant;
bool idle[WORKERS], is_woken[WORKERS], has_slot[WORKERS];
byte ran[WORKERS];               /* WorkerRecord::tasks */

/* What became of the tasks. */
byte done;
bool child_is_done, over;
byte futile_looks;
#ifdef FREE
#define TASKS 2
#else
#define TASKS 3
#endif

inline RouseMonitor() {
#ifdef NOT_ROUSED
  skip
#else
  atomic { if :: watch == dormant -> watch = watching :: else fi }
#endif
}

/* For a slot that is counted already. */
inline Grant() {
  if
  :: atomic { !mutex && idle[0] -> idle[0] = false; has_slot[0] = true; searching++; is_woken[0] = true }
  :: atomic { !mutex && idle[1] -> idle[1] = false; has_slot[1] = true; searching++; is_woken[1] = true }
  :: atomic { !mutex && !idle[0] && !idle[1] -> in_use-- };
     RouseMonitor()
  fi
}

inline Dispatch() {
  if
  :: searching > 0
  :: else ->
     if
     :: in_use < SLOTS || watch != watching ->
        if
        :: atomic { in_use < SLOTS -> in_use++ }; Grant()
        :: atomic { in_use >= SLOTS }; RouseMonitor()
        fi
     :: else
     fi
  fi
}

/* Shard::IsReady() of each shard. */
inline SomethingIsReady() {
  s = 0;
  do
  :: atomic { s < SHARDS && !looks_ready[s] -> s++ }
  :: atomic { s < SHARDS && looks_ready[s] };
#ifdef CLEARED_UNSEEN
     if
     :: IS_READY(s) -> break
     :: else -> looks_ready[s] = false; s++
     fi
#else
     if
     :: atomic { !shard_lock[s] && IS_READY(s) -> break }
     :: atomic { !shard_lock[s] && !IS_READY(s) -> looks_ready[s] = false; s++ }
     fi
#endif
  :: atomic { s == SHARDS -> break }
  od
}

inline DispatchIfReady() {
  if
  :: searching == 0 ->
     SomethingIsReady();
     if :: atomic { s < SHARDS -> s = 0 }; Dispatch() :: atomic { s == SHARDS -> s = 0 } fi
  :: else
  fi
}

/* Add() */
inline Add(where, at) {
#ifdef CLEARED_UNSEEN
  LOCK(shard_lock[at]);
  atomic { if :: !IS_READY(at) -> taken_at_last_look[at] = NEVER_LOOKED :: else fi; where++ };
  if :: !looks_ready[at] -> looks_ready[at] = true :: else fi;
  shard_lock[at] = false;
#else
  atomic {
    !shard_lock[at] -> if :: !IS_READY(at) -> taken_at_last_look[at] = NEVER_LOOKED :: else fi;
    where++;
    looks_ready[at] = true
  };
#endif
  Dispatch()
}

inline StopSearching() {
#ifdef LOOKED_FIRST
  searches = false;
  SomethingIsReady();
  atomic { searching--; found = (s < SHARDS && searching == 0); s = 0 };
  if :: found -> found = false; Dispatch() :: else fi
#else
  atomic { searches = false; searching-- };
#ifndef SEARCH_UNSEEN
  DispatchIfReady()
#else
  skip
#endif
#endif
}

mtype = { none, parent, child, ordinary };

inline TakeOne(at) {
  if
  :: parents[at] -> parents[at]--; task = parent
  :: children[at] -> children[at]--; task = child
  :: plain[at] -> plain[at]--; task = ordinary
  fi;
  taken[at]++
}

proctype Worker(byte self) {
  byte s;
  bool searches, stole, found, ran_since;
  mtype task = none;
  do
  :: /* Parked. */
     if
     :: atomic { is_woken[self] -> is_woken[self] = false }
     :: atomic { over -> break }
     fi;
     atomic { searches = true; ran_since = false };
     do
     :: /* KeepsSlot() */
        if
        :: ran_since ->
           atomic { if :: !has_slot[self] -> has_slot[self] = true; in_use++ :: else fi };
           if :: in_use > SLOTS -> break :: else fi
        :: else
        fi;
        /* RunOwnTasks(), RunOtherTask(): one at a time. */
        if
        :: looks_ready[self] ->
           if
           :: atomic { !shard_lock[self] && IS_READY(self) -> TakeOne(self) }; goto begin
           :: atomic { !shard_lock[self] && !IS_READY(self) -> looks_ready[self] = false }
           fi
        :: else
        fi;
        if
        :: looks_ready[1 - self] ->
           if
           :: atomic { !shard_lock[0] && !shard_lock[1] && IS_READY(1 - self) -> TakeOne(1 - self); stole = true }; goto begin
           :: atomic { !shard_lock[0] && !shard_lock[1] && !IS_READY(1 - self) -> looks_ready[1 - self] = false }
           fi
        :: else
        fi;
        if
        :: looks_ready[self] -> goto next
        :: else
        fi;
        /* Search() */
        atomic { if :: !searches -> searches = true; searching++ :: else fi };
        if
        :: looks_ready[0] -> goto next
        :: else
        fi;
        if
        :: looks_ready[1] -> goto next
        :: else -> break
        fi;
begin:
        if
        :: searches -> StopSearching()
        :: !searches && stole -> DispatchIfReady()
        :: else
        fi;
        atomic { stole = false; ran_since = true; ran[self]++; futile_looks = 0 };
        if
        :: task == parent ->
#ifndef FREE
           Add(children[self], self);
#endif
#if defined(BLOCKS) || defined(FREE)
           child_is_done;
#else
           /* Leave() */
           if
           :: atomic { has_slot[self] -> has_slot[self] = false; in_use-- };
#ifndef LEAVE_UNSEEN
              DispatchIfReady()
#endif
           :: atomic { !has_slot[self] }
           fi;
           child_is_done;
           /* Return() */
           atomic { if :: !has_slot[self] -> has_slot[self] = true; in_use++ :: else fi };
#endif
        :: task == child -> child_is_done = true
#ifdef FREE
        :: task == ordinary -> child_is_done = true
#else
        :: task == ordinary
#endif
        fi;
        atomic { task = none; done++ };
next:
        skip
     od;
     if :: searches -> StopSearching() :: else fi;
     /* Park() */
#ifdef PARK_FIRST
     DispatchIfReady();
#endif
     atomic {
       !mutex -> if :: has_slot[self] -> has_slot[self] = false; in_use-- :: else fi;
       idle[self] = true
     };
#if !defined(PARK_UNSEEN) && !defined(PARK_FIRST)
     DispatchIfReady()
#endif
  od
}

#ifdef BLOCKS
/* PoolMonitor::Run() */
proctype Monitor() {
  byte s, last_ran[WORKERS];
  bool stuck, takes, early = true;
  do
  :: atomic { over -> break }
  :: atomic { watch == watching };
look:
     /* SomethingIsStuck() */
     s = 0;
     do
     :: atomic { s < SHARDS && (!looks_ready[s] || !shard_lock[s]) ->
                 if
                 :: looks_ready[s] && IS_READY(s) ->
                    stuck = stuck || (taken_at_last_look[s] == taken[s]);
                    taken_at_last_look[s] = taken[s]
                 :: else
                 fi;
                 s++ }
     :: atomic { s == SHARDS -> s = 0; break }
     od;
     /* LookAtWorkers() */
     atomic {
       !mutex -> takes = stuck;
       do
       :: s < WORKERS ->
          if
          :: takes && last_ran[s] == ran[s] && has_slot[s] -> has_slot[s] = false; in_use--; takes = false
          :: else
          fi;
          last_ran[s] = ran[s];
          s++
       :: s == WORKERS -> s = 0; break
       od;
       takes = false
     };
     if
     :: stuck ->
        stuck = false;
#ifndef NOT_TAKEN
        in_use++;
        Grant()
#endif
     :: else ->
        SomethingIsReady();
        if
        :: atomic { s < SHARDS -> s = 0 }; Dispatch()
        :: atomic { s == SHARDS -> s = 0 };
           atomic { if :: watch == watching -> watch = dormant :: else fi };
#ifndef DORMANT_UNSEEN
           SomethingIsReady();
           if
           :: atomic { s < SHARDS -> s = 0; goto roused }
           :: atomic { s == SHARDS -> s = 0 }
           fi;
#endif
           watch != dormant || over;
roused:
           atomic { if :: watch == dormant -> watch = watching :: else fi }
        fi
     fi;
     /* Until the next look. */
     if
     :: atomic { early -> early = false }
     :: timeout -> futile_looks++
     :: over -> break
     fi;
     assert(futile_looks < 5);
     goto look
  od
}
#endif

/* A thread of the program, whose shard is that of the first worker. */
proctype Spawner() {
  Add(parents[0], 0);
  Add(plain[0], 0);
  done == TASKS;
  over = true
}

init {
  atomic {
    idle[0] = true;
    idle[1] = true;
    taken_at_last_look[0] = NEVER_LOOKED;
    taken_at_last_look[1] = NEVER_LOOKED;
    run Worker(0);
    run Worker(1);
#ifdef BLOCKS
    run Monitor();
#endif
    run Spawner()
  }
}
