/* Sleep in a tree of scopes of two levels: two threads sleep in scopes inside one that is
 * cancelled, or is given a deadline; one of them may be woken by what it waits for, and
 * leaves and destroys its scope at once.
 *
 * Stands for
 *   concurrency/internal/sleeper.cc: Sleeper::Sleep, Sleeper::Join
 *   concurrency/internal/wakeable.h: Wake, WakeLater
 *   concurrency/internal/scope.cc: Scope::Cancel, Scope::TellOfChange, Scope::set_deadline, Scope::Leave
 *   concurrency/internal/scope_state.cc: ScopeState::LooksCancelled, ScopeState::Latch, ScopeState::ends
 *   concurrency/internal/scope_tree.cc: ScopeTree::Enter, ScopeTree::Leave, ScopeTree::Attach, ScopeTree::Detach, ScopeTree::CollectWakeUps
 *
 * Runs
 *   cancel: -DCANCEL
 *   deadline: -DDEADLINE
 *
 * Mutants
 *   LOOK_FIRST: a sleeper looks at its scope before it joins the tree
 *   EPOCH_FIRST: a cancel advances the epoch before it changes the state
 *   EPOCH_LATE: a look reads the epoch once it has found the scope clear
 *   WORD_LATE: a sleeper among others reads their word after it has looked
 *   ONE_LEVEL: a cancel wakes only who sleeps in that scope itself
 *   NOT_MARKED: who does not sleep yet is not marked
 *   UNLOCKED: a sleeper leaves the tree without the lock
 *   KEPT: a scope that is destroyed stays in the tree
 *   NO_WAKE (deadline): a new deadline wakes nobody
 *
 * Left out
 *   Memory order: the state and the epoch are written under the lock and in this order;
 *     epoch and state are read with acquire, and the look that counts comes after the
 *     lock was taken in Join().
 *   Time: a deadline passes at any time once it is set.
 *   Shields, reasons and which of two causes wins: tests/cancel_scope_test.cc.
 *   Stop tokens, and fork's child.
 *   The calls that a sleeper may sleep in instead: receive.pml.
 */

#define LOCK(l) atomic { !l -> l = true }
#define ROOT 0
/* Sleeper 0 sleeps in scope 1, by itself; sleeper 1 in scope 2, as Sleep() does, on the
 * word of the scope. */
#define INNER (self + 1)

/* The scopes. */
bool cancelled, has_deadline, passed;     /* of the root */
byte epoch = 1, clear_at[3];
bool exists[3] = true, attached[3];

/* Under scope_tree_mutex. */
bool tree_lock;
bool in_tree[2];

/* The sleepers. */
mtype = { awake, asleep, woken };
mtype word = awake;
bool alive[2];
byte wake_ups;
bool in_futex[2], timed[2];

/* What sleeper 0 waits for. */
bool list_lock, listed, item;

/* Collects under the lock, and wakes after it. */
inline CollectWakeUps() {
  if
  :: attached[ROOT] ->
#ifndef ONE_LEVEL
     if
     :: attached[1] ->
        assert(exists[1]);
        if
        :: in_tree[0] ->
           atomic {
             assert(alive[0]);
             later = (word == asleep);
#ifdef NOT_MARKED
             if :: word == asleep -> word = woken :: else fi
#else
             word = woken
#endif
           }
        :: else
        fi
     :: else
     fi;
     if
     :: attached[2] ->
        assert(exists[2]);
        if
        :: in_tree[1] -> atomic { assert(alive[1]); wake_ups++; all = true }
        :: else
        fi
     :: else
     fi
#else
     skip
#endif
  :: else
  fi;
  tree_lock = false;
  if :: later -> atomic { later = false; in_futex[0] = false } :: else fi;
  if :: all -> atomic { all = false; in_futex[1] = false } :: else fi
}

#ifdef CANCEL
proctype Canceller() {
  bool later, all;
  LOCK(tree_lock);
#ifdef EPOCH_FIRST
  epoch++;
  cancelled = true;
#else
  cancelled = true;
  epoch++;
#endif
  CollectWakeUps()
}
#endif

#ifdef DEADLINE
proctype Setter() {
  bool later, all;
  LOCK(tree_lock);
  has_deadline = true;
  epoch++;
#ifdef NO_WAKE
  tree_lock = false;
#else
  CollectWakeUps();
#endif
  passed = true;
  /* The kernel ends the sleeps that have this timeout. */
  atomic {
    if :: timed[0] -> in_futex[0] = false :: else fi;
    if :: timed[1] -> in_futex[1] = false :: else fi
  }
}
#endif

#ifdef EPOCH_LATE
#define epoch_seen epoch
#else
#define epoch_seen now
#endif

/* CancelledBy(), from `scope` on. */
inline Look(scope) {
  atomic {
    over = false;
    until = false
#ifndef EPOCH_LATE
    ;
    now = epoch
#endif
  };
  if
  :: atomic { clear_at[scope] == epoch_seen || clear_at[ROOT] == epoch_seen -> now = 0 }
  :: atomic { clear_at[scope] != epoch_seen && clear_at[ROOT] != epoch_seen -> until = has_deadline };
     over = cancelled || (until && passed);
#ifdef EPOCH_LATE
     now = epoch;
#endif
     atomic {
       if
       :: !over && !until -> clear_at[scope] = now
       :: else
       fi;
       now = 0
     }
  fi
}

/* A thread that checks in the root. */
proctype Checker() {
  byte now;
  bool over, until;
  Look(ROOT)
}

inline Join() {
  atomic { in_tree[self] || !tree_lock -> attached[INNER] = true; attached[ROOT] = true; in_tree[self] = true }
}

proctype Sleeper(byte self) {
  byte now, seen;
  bool over, until, has_item;
  alive[self] = true;
  do
  :: /* What it waits for. */
     if
     :: atomic { self == 0 && !list_lock && item -> item = false; has_item = true }; break
     :: atomic { self == 0 && !list_lock && !item && !over -> listed = true }
     :: atomic { self == 0 && !list_lock && !item && over -> listed = false }; break
     :: self == 1 && over -> break
     :: self == 1 && !over
     fi;
     /* Sleep() */
#ifndef LOOK_FIRST
     Join();
#endif
#ifndef WORD_LATE
     if :: self == 1 -> seen = wake_ups :: else fi;
#endif
     Look(INNER);
#ifdef LOOK_FIRST
     Join();
#endif
#ifdef WORD_LATE
     if :: self == 1 -> seen = wake_ups :: else fi;
#endif
     if
     :: over -> seen = 0
     :: atomic { !over && self == 1 -> until = has_deadline };     /* ends() */
        if
        :: atomic { wake_ups == seen && !(until && passed) -> in_futex[1] = true; timed[1] = until; seen = 0; until = false };
           atomic { !in_futex[1] -> timed[1] = false }
        :: atomic { wake_ups != seen || (until && passed) -> seen = 0; until = false }
        fi
     :: atomic { !over && self == 0 -> until = has_deadline };
        if
        :: atomic { word == awake -> word = asleep };
           if
           :: atomic { word == asleep && !(until && passed) -> in_futex[0] = true; timed[0] = until; until = false };
              atomic { !in_futex[0] -> timed[0] = false }
           :: atomic { word != asleep || (until && passed) -> until = false }
           fi
        :: atomic { word == woken -> until = false }
        fi;
        word = awake
     fi
  od;
  if :: self == 0 -> atomic { !list_lock -> listed = false } :: else fi;
  /* ~Sleeper(), and the scope is left. */
  if
  :: in_tree[self] ->
#ifdef UNLOCKED
     atomic { in_tree[self] = false; alive[self] = false };
#else
     atomic { !tree_lock -> in_tree[self] = false };
     alive[self] = false;
#endif
#ifndef KEPT
     atomic { !tree_lock -> attached[INNER] = false };
#endif
  :: else -> alive[self] = false
  fi;
  exists[INNER] = false
}

/* Hands sleeper 0 what it waits for, or never does. */
proctype Waker() {
  bool later;
  if
  :: goto end_of_it
  :: true
  fi;
  atomic {
    !list_lock -> item = true;
    if
    :: listed ->
       listed = false;
       assert(alive[0]);
       later = (word == asleep);
       word = woken
    :: else
    fi
  };
  if :: later -> in_futex[0] = false :: else fi;
end_of_it:
  skip
}

init {
  atomic {
    run Sleeper(0);
    run Sleeper(1);
    run Checker();
    run Waker();
#ifdef CANCEL
    run Canceller();
#endif
#ifdef DEADLINE
    run Setter();
#endif
  }
}
