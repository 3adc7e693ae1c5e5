/* Two threads in Receive() of one receiver: as the leader, with a slot for direct
 * hand-off, or beside the service's thread; with signals, a cancel of one of the two, and
 * a close.
 *
 * Stands for
 *   signals/internal/subscription.cc: Subscription::Receive, Subscription::Enqueue, Subscription::Dequeue, Subscription::DequeueOrDrain, Subscription::MarkClosed, Subscription::List, Subscription::Unlist, Subscription::Pick
 *   signals/internal/signal_routes.cc: SignalRoutes::Promote, SignalRoutes::StepDown, SignalRoutes::Drain, SignalRoutes::TakeBackAndDeliver
 *   signals/internal/leader.cc: Leader::~Leader, Leader::Block, Leader::Interrupt, Leadership::Promote, Leadership::StepDown, Leadership::TakeBack, Leadership::ToDrain, Leadership::LeaveOut
 *   signals/internal/direct_handoff.cc: OfferSlot, TakeSlot, DirectHandoff::Offer, DirectHandoff::TakeBack
 *   signals/internal/signal_handler.cc: Handler, HandOver, SendToService
 *   signals/internal/service_thread.cc: ServiceThread::Synchronize, ServiceThread::Run
 *   signals/internal/unsubscribe.cc: Unsubscribe
 *   signals/internal/dispatcher.cc: Dispatcher::Dispatch, Dispatcher::Return
 *   signals/internal/waiting_room.h: Block, InterruptLater
 *   signals/internal/waiter.h: Sleep
 *   concurrency/internal/sleeper.cc: Sleeper::Sleep, Sleeper::Join
 *   concurrency/internal/wakeable.h: WakeLater
 *   concurrency/internal/scope_tree.cc: ScopeTree::Enter, ScopeTree::Leave
 *
 * Runs
 *   leaders: -DABLE=3
 *   slots: -DABLE=0 -DTWO
 *   mixed: -DABLE=1
 *   leaders-cancel: -DABLE=3 -DCANCEL -DBLOCKED
 *   slots-cancel: -DABLE=0 -DCANCEL
 *   leaders-close: -DABLE=3 -DCLOSE
 *   slots-close: -DABLE=0 -DCLOSE
 *   mixed-close: -DABLE=1 -DCLOSE
 *
 * Mutants
 *   BELL_LEFT (leaders-cancel): a leader that returns leaves its bell pending
 *   LEADER_FIRST (leaders-cancel): a leader takes its bell before it leaves the tree of scopes
 *   TIMER_NEVER (leaders-cancel): a leader that steps down sets no timer
 *   NO_RING: a handler does not ring for what the service's thread leaves to a leader
 *   RING_FIRST: a handler looks whether to ring before it forwards
 *   NOT_LOOKED_AT: the service's thread does not look for what was forwarded before the
 *     handlers ring
 *   FORGOTTEN (leaders-close): a leader forgets what it took after its receiver has closed
 *   STILL_LED (leaders-close): a close does not end the lead for its signals
 *   SLOT_AT_ONCE (slots-cancel): a thread that takes its slot back does not wait for a handler
 *   FILLED_FIRST (slots-cancel): a handler marks its slot as filled before the sleeper
 *   PICKED_LEAVES (slots-cancel): a thread that is cancelled leaves the event that it was picked for
 *   LOOK_FIRST (slots-cancel): a sleeper looks at its scope before it joins the tree
 *   CALLS_LATE (slots-cancel): a sleeper in the waiting room reads its word after it looked
 *     for its mark
 *   MARK_LATE (slots-cancel): who wakes it advances the word before it marks the sleeper
 *
 * Left out
 *   Memory order: words and slots are exchanged with sequential consistency or under the
 *     mutexes.
 *   Time: the timer rings at any time once it is set; no Receive() has a timeout, which
 *     ends it as the cancel does.
 *   Several signals, and so which one is taken first: there is one standard signal, which
 *     may be sent while it is pending already. The turns of several are tested in
 *     tests/close_races_test.cc, FairnessRaces.
 *   Spilled signals, the first open and the other receivers: close.pml. What a second
 *     receiver that opens does to the slot and to the leader is a close's part of it.
 *   Threads that share a bit in the waiting room: those wake up for nothing at times.
 *   The handler on the very thread that waits: the same steps, with fewer interleavings;
 *     it waits for no thread.
 */

#define BIT(i) (1 << (i))
#ifdef TWO
#define ALL (BIT(0) | BIT(1))
#else
#define ALL BIT(0)
#endif
#define NOBODY 2

/* The kernel. A standard signal that is pending takes in those that are sent meanwhile:
 * a signal is the set of those that it stands for. */
byte of_process, of_service;     /* pending on the process, on the service's thread */
bool bell, timer_bell;           /* pending there, too, as two entries */
bool timer_runs;
bool own_bell[2];                /* pending on a waiting thread */
bool ours = true;                /* whether the disposition is our handler */
bool in_futex[2], in_room[2];    /* asleep */

/* What became of the signals. */
byte had_effect, received;
byte ended;                      /* how many waiting threads are gone */

/* HandlerState */
bool forwarded = true, ring_for_each;
byte handlers_running;
mtype = { not_offered, offered, filling, filled };
mtype slot_state = not_offered;
byte in_slot, slot_word;

/* The service, under its mutex. */
bool mutex;
bool wanted = true, leaving, registered = true;
byte queue, left_over;
byte change = 1, taken_over;
byte first = NOBODY, second = NOBODY;     /* the list of waiters */
byte offered_by = NOBODY;
byte leader = NOBODY;
bool led, left_out, had_its_turn, timer_set;

/* The two waiters. */
mtype = { awake, asleep, in_call, woken };
mtype word[2] = awake;
bool alive[2];                   /* whether there is a Waiter on the stack */
bool rung[2];
byte calls;                      /* of the waiting room */

/* The scope of waiter 1. */
bool tree_mutex, cancelled;
bool in_tree[2];

#define LOCK(m) atomic { !m -> m = true }
#define IS_ABLE(w) ((ABLE & BIT(w)) != 0)

inline Effect(which) {
  assert((had_effect & which) == 0 && (received & which) == 0);
  had_effect = had_effect | which
}

/* The kernel merges a bell into one that is pending. */
inline Ring() {
  atomic { if :: !bell && !timer_bell -> bell = true :: else fi }
}

/* WakeLater() of `picked`, under a mutex that keeps the sleeper alive: exchanges its word.
 * `later`: the system calls that are due once the mutex is released. */
inline Exchange() {
  assert(alive[picked]);
  word[picked] = woken
}

inline WakePicked(later) {
  if
  :: atomic { word[picked] == in_call && IS_ABLE(picked) -> Exchange() };
     atomic { rung[picked] = true; own_bell[picked] = true; picked = NOBODY }
#ifdef MARK_LATE
  :: atomic { word[picked] == in_call && !IS_ABLE(picked) -> calls++; later = later | (BIT(picked) << 2) };
     atomic { Exchange(); picked = NOBODY }
#else
  :: atomic { word[picked] == in_call && !IS_ABLE(picked) -> Exchange() };
     atomic { calls++; later = later | (BIT(picked) << 2); picked = NOBODY }
#endif
  :: atomic { word[picked] == asleep -> Exchange(); later = later | BIT(picked); picked = NOBODY }
  :: atomic { word[picked] == awake || word[picked] == woken -> Exchange(); picked = NOBODY }
  fi
}

inline Send(later) {
  atomic {
    if :: later & 1 -> in_futex[0] = false :: else fi;
    if :: later & 2 -> in_futex[1] = false :: else fi;
    if :: later & 4 -> in_room[0] = false :: else fi;
    if :: later & 8 -> in_room[1] = false :: else fi;
    later = 0
  }
}

inline Unlock(later) {
  if
  :: atomic { later == 0 -> mutex = false }
  :: atomic { later != 0 -> mutex = false };
     Send(later)
  fi
}

inline TakeFirst() {
  picked = first;
  first = second;
  second = NOBODY
}

/* Under the mutex. */
inline Enqueue(which, later) {
  if
  :: atomic { queue != 0 || first == NOBODY -> queue = queue | which; which = 0 }
  :: atomic { queue == 0 && first != NOBODY -> queue = which; which = 0; TakeFirst() };
     WakePicked(later)
  fi
}

/* Takes the mutex. `returns`: what nobody is subscribed to is sent again. */
inline Dispatch(which, later, returns) {
  if
  :: atomic { !mutex && registered && (queue != 0 || first == NOBODY) -> queue = queue | which; which = 0 }
  :: atomic { !mutex && registered && queue == 0 && first != NOBODY ->
              mutex = true; queue = which; which = 0; TakeFirst() };
     WakePicked(later);
     Unlock(later)
  :: atomic { !mutex && !registered -> if :: returns -> of_process = of_process | which :: else fi; which = 0 }
  fi
}

/* Under the mutex. */
inline TakeSlot(which) {
  do
  :: atomic { slot_state == offered -> slot_state = not_offered; break }
  :: atomic { slot_state == filled -> slot_state = filling };
     which = in_slot;
     atomic { in_slot = 0; slot_state = not_offered; break }
  :: atomic { slot_state == not_offered -> break }
#ifdef SLOT_AT_ONCE
  :: atomic { slot_state == filling -> break }
#endif
  od
}

#ifndef BLOCKED
/* A thread of the program that does not block the signal: its handler. */
proctype Thread() {
  byte which, w;
  mtype was;
  bool forwards, rings;
end:
  do
  :: atomic {
       of_process -> which = of_process;
       of_process = 0;
       if :: ours :: else -> Effect(which); which = 0; goto end fi;
       handlers_running++;
       forwards = forwarded
     };
     if
     :: forwards ->
        if
        :: atomic { slot_state == filled -> slot_state = filling };
           atomic { in_slot = in_slot | which; slot_state = filled; goto handed_over }
        :: atomic { slot_state == offered -> slot_state = filling };
           atomic { in_slot = which; w = slot_word };
#ifdef FILLED_FIRST
           slot_state = filled;
#endif
           atomic { assert(alive[w]); was = word[w]; word[w] = woken };
#ifndef FILLED_FIRST
           slot_state = filled;
#endif
           atomic {
             if :: was == asleep -> in_futex[w] = false :: else fi;
             w = 0;
             was = 0;
             goto handed_over
           }
        :: atomic { slot_state == not_offered || slot_state == filling }
        fi;
#ifdef RING_FIRST
        rings = ring_for_each;
        of_service = of_service | which;
#else
        of_service = of_service | which;
        rings = ring_for_each;
#endif
#ifndef NO_RING
        if :: rings -> Ring() :: else fi
#endif
     :: else -> of_process = of_process | which
     fi;
handed_over:
     atomic { handlers_running--; which = 0; forwards = false; rings = false }
  od
}
#endif

inline LeaveOut() {
  if :: by_timer -> timer_set = false; by_timer = false :: else fi;
  if :: leader == NOBODY -> led = false :: else fi
}

proctype Service() {
  byte which, seen, later, picked = NOBODY;
  bool heard, by_timer, waits_for_it;
  do
  :: heard || change != seen ->
     atomic { heard = false; seen = change };
     if
     :: atomic { !mutex && leaving -> mutex = true };
        do
        :: atomic { of_service -> left_over = left_over | of_service; of_service = 0 }
        :: atomic { !of_service && of_process -> left_over = left_over | of_process; of_process = 0 }
        :: atomic { !of_service -> leaving = false; LeaveOut(); break }
        od
     :: atomic { !mutex && !leaving -> mutex = true; LeaveOut() }
     fi;
     ring_for_each = led;
     atomic {
       left_out = led;
       waits_for_it = wanted && !left_out;
       taken_over = seen;
       mutex = false
     };
#ifndef NOT_LOOKED_AT
     if
     :: left_out ->
        if
        :: atomic { of_service -> which = of_service; of_service = 0 }; goto dispatch
        :: atomic { !of_service && of_process -> which = of_process; of_process = 0 }; goto dispatch
        :: atomic { !of_service && !of_process }
        fi
     :: else
     fi
#endif
  :: else ->
end_wait:
     if
     :: atomic { bell -> bell = false; heard = true }
     :: atomic { timer_bell -> timer_bell = false; heard = true; by_timer = true }
     :: atomic { waits_for_it && of_service -> which = of_service; of_service = 0 }; goto dispatch
     :: atomic { waits_for_it && of_process -> which = of_process; of_process = 0 };
dispatch:
        Dispatch(which, later, false)
     fi
  od
}

inline SetTimer() {
#ifdef TIMER_NEVER
  skip
#else
  if
  :: !timer_set ->
     /* The kernel withdraws a bell of the timer that is pending, and all that was merged
      * into it. */
     timer_set = true;
     timer_bell = false;
     timer_runs = true
  :: else
  fi
#endif
}

/* Takes the mutex, and ends what the thread was until now. */
inline LockAndStepDown() {
  if
  :: atomic { !mutex && !(offers && offered_by == self) -> mutex = true; offers = false;
              if :: leader == self -> leader = NOBODY; had_its_turn = took; SetTimer() :: else fi;
              TakeOrList() }
  :: atomic { !mutex && offers && offered_by == self -> mutex = true; offers = false; offered_by = NOBODY };
     TakeSlot(which);
     if :: which -> Enqueue(which, later) :: else fi;
     atomic { TakeOrList() }
  fi
}

inline TakeOrList() {
#ifdef PICKED_LEAVES
  if :: !over -> mine = queue; queue = 0 :: else fi;
#else
  if
  :: !over || (first != self && second != self) -> mine = queue; queue = 0
  :: else
  fi;
#endif
  over = over || !registered;
  if
  :: mine || over -> Unlist(); goto unlock_and_leave
  :: else -> List()
  fi
}

inline Unlist() {
  if
  :: first == self -> first = second; second = NOBODY
  :: second == self -> second = NOBODY
  :: else
  fi
}

inline List() {
  if
  :: first == self || second == self
  :: first == NOBODY -> first = self
  :: first != NOBODY && first != self && second == NOBODY -> second = self
  fi
}

inline Promote() {
  if
  :: first == self && wanted && able && leader == NOBODY ->
     atomic { leader = self; led = true };
     atomic { ring_for_each = true; waits = true };
     atomic { if :: left_out != led -> Ring() :: else fi; mutex = false }
  :: first == self && wanted && !able && offered_by == NOBODY ->
     atomic { offered_by = self; slot_word = self; slot_state = offered; offers = true; mutex = false }
  :: atomic { first == self && able && (leader != NOBODY || !wanted) -> waits = false; mutex = false }
  :: atomic { first != self || (!able && (!wanted || offered_by != NOBODY)) -> mutex = false }
  fi
}

#define IS_CANCELLED (self == 1 && cancelled)

inline JoinTree() {
  atomic { in_tree[self] || !tree_mutex -> in_tree[self] = true }
}

inline Sleep() {
#ifdef CANCEL
#ifdef LOOK_FIRST
  over = IS_CANCELLED;
  JoinTree();
#else
  JoinTree();
  over = IS_CANCELLED;
#endif
#endif
  if
  :: over
  :: atomic { !over && word[self] == woken }
  :: atomic { !over && word[self] == awake && offers -> word[self] = asleep };
     if
     :: atomic { word[self] == asleep -> in_futex[self] = true };
end_futex:
        !in_futex[self]
     :: atomic { word[self] != asleep }
     fi
  :: atomic { !over && word[self] == awake && !offers -> word[self] = in_call };
     if
     :: able ->
end_block:
        if
        :: atomic { own_bell[self] -> own_bell[self] = false }
        :: atomic { waits && of_process -> taken = of_process; of_process = 0 }
        fi
     :: else ->
        do
#ifdef CALLS_LATE
        :: word[self] == woken -> break
        :: else ->
           seen = calls;
#else
        :: seen = calls;
           if
           :: atomic { word[self] == woken -> break }
           :: atomic { word[self] != woken }
           fi;
#endif
           if
           :: atomic { calls == seen -> in_room[self] = true };
end_room:
              !in_room[self]
           :: atomic { calls != seen }
           fi
        od;
        seen = 0
     fi
  fi;
  if
  :: over
  :: !over -> word[self] = awake
  fi
}

/* A thread in a loop around Receive(). */
proctype Waiter(byte self; bool able) {
  byte which, taken, mine, later, seen, picked = NOBODY;
  bool offers, waits, took, over;
  do
  :: IS_CANCELLED || over -> break
  :: else ->
     /* DequeueOrDrain() */
     if
     :: atomic { !mutex && (queue || !led || leader != NOBODY || had_its_turn) ->
                 mine = queue; queue = 0;
                 if :: mine -> goto got :: else fi;
                 alive[self] = true }
     :: atomic { !mutex && queue == 0 && led && leader == NOBODY && !had_its_turn -> mutex = true;
                 which = of_process; of_process = 0 };
        if :: which -> Enqueue(which, later) :: else fi;
        atomic { mine = queue; queue = 0 };
        Unlock(later);
        if :: mine -> goto got :: else fi;
        alive[self] = true
     fi;
     do
     :: LockAndStepDown();
        Promote();
        if :: later != 0 -> Send(later) :: else fi;
        Sleep();
        if
        :: taken ->
           took = true;
#ifdef FORGOTTEN
           Dispatch(taken, later, false)
#else
           Dispatch(taken, later, true)
#endif
        :: else
        fi
     od;
unlock_and_leave:
     Unlock(later);
#ifdef LEADER_FIRST
     if :: rung[self] -> own_bell[self] = false :: else fi;
#endif
#ifdef CANCEL
     /* ~Sleeper() */
     atomic { !tree_mutex -> in_tree[self] = false };
#endif
     /* ~Leader() */
#if !defined(LEADER_FIRST) && !defined(BELL_LEFT)
     if :: rung[self] -> own_bell[self] = false :: else fi;
#endif
     atomic {
       assert(!own_bell[self]);
       rung[self] = false;
       alive[self] = false;
       word[self] = awake;
       took = false;
       waits = false
     };
     if
     :: mine ->
got:    atomic {
          assert((had_effect & mine) == 0 && (received & mine) == 0);
          received = received | mine;
          mine = 0
        }
     :: else
     fi
  od;
  ended++
}

#ifdef CANCEL
proctype Canceller() {
  byte later, picked = NOBODY;
  if
  :: atomic { !tree_mutex && !in_tree[1] -> cancelled = true }
  :: atomic { !tree_mutex && in_tree[1] -> tree_mutex = true; cancelled = true; picked = 1 };
     WakePicked(later);
     tree_mutex = false;
     Send(later)
  fi
}
#endif

#ifdef CLOSE
/* Closes the receiver, and destroys it once no thread is in it. */
proctype Closer() {
  byte which, later, mine, picked = NOBODY;
  ours = false;
  forwarded = false;
  handlers_running == 0;
  LOCK(mutex);
  wanted = false;
  if
  :: offered_by != NOBODY ->
     offered_by = NOBODY;
     TakeSlot(which);
     atomic { left_over = left_over | which; which = 0 }
  :: else
  fi;
#ifndef STILL_LED
  led = false;
#endif
  atomic { leaving = true; mutex = false };
  atomic { !mutex -> change++; mine = change };
  Ring();
  taken_over == mine;
  atomic { !mutex -> mutex = true; registered = false };
  do
  :: atomic { first != NOBODY -> TakeFirst() };
     WakePicked(later)
  :: else -> break
  od;
  atomic { which = left_over; left_over = 0; mine = 0 };
  Unlock(later);
  atomic { of_process = of_process | which; which = 0 };
  ended == 2;
  atomic { of_process = of_process | queue; queue = 0 }
}
#endif

/* One that is sent while another is pending is merged with that. */
proctype Sender() {
  of_process = of_process | BIT(0);
#ifdef TWO
  of_process = of_process | BIT(1)
#endif
}

proctype Timer() {
end:
  do
  :: atomic { timer_runs -> timer_runs = false; timer_bell = true }
  od
}

/* Nobody can do anything any more. */
proctype Judge() {
  timeout ->
#ifdef CLOSE
  assert(ended == 2);
#elif defined(CANCEL)
  assert(ended == 1);
#else
  assert(ended == 0);
#endif
  assert(of_process == 0 && of_service == 0 && left_over == 0 && queue == 0);
  assert(slot_state == not_offered || slot_state == offered);
  assert((had_effect | received) == ALL);
#ifndef CLOSE
  assert(had_effect == 0)
#endif
}

init {
  atomic {
    run Waiter(0, IS_ABLE(0));
    run Waiter(1, IS_ABLE(1));
    run Service();
#ifndef BLOCKED
    run Thread();
#endif
#ifdef CANCEL
    run Canceller();
#endif
#ifdef CLOSE
    run Closer();
#endif
    run Sender();
    run Timer();
    run Judge()
  }
}
