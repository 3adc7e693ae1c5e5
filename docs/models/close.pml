/* The close of the last receiver of a signal, against signals in each of the five places
 * where one can be (docs/design.md, "Closing, and the five places"), and against a
 * receiver that opens meanwhile.
 *
 * Stands for
 *   signals/internal/unsubscribe.cc: Unsubscribe
 *   signals/internal/signal_handler.cc: Handler, HandOver, SendToService, SendToProcess, Spill, Decline
 *   signals/internal/disposition.cc: Forward, RestoreDisposition, StopForwarding, AwaitHandlers
 *   signals/internal/forwarding.cc: TakeSpilled
 *   signals/internal/direct_handoff.cc: OfferSlot, TakeSlot, DirectHandoff::TakeBack
 *   signals/internal/service_thread.cc: ServiceThread::Synchronize, ServiceThread::Run
 *   signals/internal/kernel_signals.cc: KernelSignals::Enter
 *   signals/internal/dispatcher.cc: Dispatcher::Deliver, Dispatcher::Return
 *   signals/internal/event_queue.cc: EventQueue::Push, EventQueue::Pop, EventQueue::Remove
 *   signals/internal/subscription.cc: Subscription::Close, Subscription::TryReceive
 *
 * Runs
 *   two-receivers: -DTWO -DTHREADS=2
 *   opens: -DTWO -DOPENS -DTHREADS=1
 *   spilled: -DSPILLS -DTHREADS=2
 *   slot: -DSLOT -DTHREADS=2
 *
 * Mutants
 *   NO_AWAIT (slot): the close does not wait for handlers that run
 *   AWAIT_FIRST (slot): the close waits for handlers before it tells them to stop
 *   LOOK_FIRST (slot): a handler looks whether to forward before it is counted
 *   NO_SYNCHRONIZE (slot): the close does not wait until the service's thread has looked
 *   UNREGISTER_FIRST (spilled): the close removes the receiver before that
 *   SPILLED_LAST (spilled): the service's thread takes what was spilled after it has told that it looked
 *   SEEN_LATE (spilled): it reads which change it has looked at once it has taken what was spilled
 *   LEFT_PENDING (slot): the service's thread forgets a signal that is leaving, without taking it
 *   LEFT_IN_SLOT (slot): the close does not take the slot
 *   SLOT_UNTIMELY (slot): the close takes the slot before the handlers have ended
 *   SENT_TWICE: a destroyed receiver sends what another one has, or has received, again
 *   NOT_SENT (slot): a destroyed receiver sends nothing again
 *   INSTALLED_FIRST (opens): an open installs the handler before it tells handlers to
 *     forward
 *   OPENED_UNAWAITED (opens): an open does not wait for handlers that decline
 *
 * Left out
 *   Memory order: all that handlers share with threads is sequentially consistent, but
 *     for the contents of slots, which belong to one side at a time as the slot's state
 *     says; the rest is under the mutexes.
 *   The order in which the kernel hands out what is pending: here it is any order.
 *   Signals directed at a thread: only the handler on that thread takes them, and does
 *     the same with them.
 *   The limit of 1,024 signals of the process that a close takes: here it may leave them
 *     there at any time.
 *   Handlers of other code and dispositions that it changes: tests/other_handlers_test.cc.
 *   The leader: receive.pml.
 */

#define BIT(i) (1 << (i))
#define ALL (BIT(0) | BIT(1))
#ifndef SLOT
#define REAL_TIME
#endif
#define A 0
#define B 1

/* The kernel. A standard signal that is pending takes in those that are sent meanwhile:
 * a signal is the set of those that it stands for. */
byte of_process;     /* pending on the process */
byte of_service;     /* pending on the service's thread */
bool bell;
bool ours;           /* whether the disposition is our handler */

/* What became of the signals. */
byte had_effect;     /* by the disposition from before */
byte received;       /* by a thread */
byte got[2];         /* by a thread from this receiver */

/* HandlerState */
bool forwarded;
byte handlers_running;
mtype = { not_offered, offered, filling, filled };
mtype slot_state = not_offered;
byte in_slot;
bool spill_writing, spill_ready;
byte in_spill;

/* The service, under its mutex. */
bool mutex, disposition_mutex;
bool wanted, leaving;
bool registered[2];
byte queue[2];
byte left_over;
byte change, taken_over;
bool is_offered;     /* DirectHandoff::offered_by_ */

byte ended;          /* how many owners are done */

#define LOCK(m) atomic { !m -> m = true }

inline Effect(which) {
  assert((had_effect & which) == 0 && (received & which) == 0);
  had_effect = had_effect | which
}

/* Takes one real-time signal, any one, or the only standard signal there is. */
inline Take(set, which) {
#ifdef REAL_TIME
  if
  :: set & BIT(0) -> which = BIT(0)
  :: set & BIT(1) -> which = BIT(1)
  fi;
#else
  which = set;
#endif
  set = set & ~which
}

inline Deliver(which) {
  if :: registered[A] -> queue[A] = queue[A] | which :: else fi;
  if :: registered[B] -> queue[B] = queue[B] | which :: else fi
}

/* A thread of the program that does not block the signal: its handler. */
proctype Thread() {
  byte which;
  bool forwards;
end:
  do
  :: atomic {
       of_process -> Take(of_process, which);
       if :: ours :: else -> Effect(which); which = 0; goto end fi
     };
     /* Place 1 */
#ifdef LOOK_FIRST
     forwards = forwarded;
     handlers_running++;
#else
     handlers_running++;
     forwards = forwarded;
#endif
     /* Place 2 */
     if
     :: forwards ->
#ifdef SLOT
        if
        :: atomic { slot_state == filled -> slot_state = filling };
           atomic { in_slot = in_slot | which; slot_state = filled; goto handed_over }
        :: atomic { slot_state == offered -> slot_state = filling };
           in_slot = which;
           atomic { slot_state = filled; goto handed_over }
        :: atomic { slot_state == not_offered || slot_state == filling }
        fi;
#endif
        if
        :: of_service = of_service | which
#ifdef SPILLS
        /* The kernel has no room for it. */
        :: atomic { !spill_writing && !spill_ready -> spill_writing = true };
           in_spill = which;
           atomic { spill_writing = false; spill_ready = true };
           bell = true
        :: atomic { spill_writing || spill_ready -> of_process = of_process | which }
#endif
        fi
     :: else ->
        /* Decline(): where it finds our handler, other code has put that back. */
        if
        :: ours -> ours = false /* not reached */
        :: else
        fi;
        of_process = of_process | which
     fi;
#ifdef SLOT
handed_over:
#endif
     atomic { handlers_running--; which = 0; forwards = false }
  od
}

inline TakeSpilled() {
  do
  :: spill_ready ->
     which = in_spill;
     atomic { spill_ready = false; in_spill = 0 };
     atomic { !mutex -> Deliver(which); which = 0 }
  :: else -> break
  od
}

proctype Service() {
  byte which, seen;
  bool rung, waits_for_it;
  do
  :: rung || change != seen ->
     rung = false;
     seen = change;
#if defined(SPILLS) && !defined(SPILLED_LAST)
     TakeSpilled();
#endif
     LOCK(mutex);
     if
     :: leaving ->
#ifndef LEFT_PENDING
        do
        :: atomic { of_service -> Take(of_service, which); left_over = left_over | which; which = 0 }
        :: atomic { !of_service && of_process -> Take(of_process, which);
                    left_over = left_over | which; which = 0 }
        :: atomic { !of_service -> break }
        od
#endif
     :: else
     fi;
     atomic {
       leaving = false;
       waits_for_it = wanted;
#ifdef SEEN_LATE
       seen = change;
#endif
       taken_over = seen;
       mutex = false
     };
#if defined(SPILLS) && defined(SPILLED_LAST)
     TakeSpilled()
#endif
  :: else ->
end_wait:
     if
     :: atomic { bell -> bell = false; rung = true }
     :: atomic { waits_for_it && of_service -> Take(of_service, which) };
        atomic { !mutex -> Deliver(which); which = 0 }
     :: atomic { waits_for_it && of_process -> Take(of_process, which) };
        atomic { !mutex -> Deliver(which); which = 0 }
     fi
  od
}

/* TakeSlot(), under the mutex. */
inline TakeSlot(which) {
  which = 0;
  do
  :: atomic { slot_state == offered -> slot_state = not_offered; break }
  :: atomic { slot_state == filled -> slot_state = filling };
     which = in_slot;
     atomic { in_slot = 0; slot_state = not_offered; break }
  :: atomic { slot_state == not_offered -> break }
  od
}

inline Unsubscribe(self, back) {
  LOCK(disposition_mutex);
  /* LOCK(mutex) around a look at `registered`, which the disposition mutex guards too. */
  if
  :: !registered[1 - self] ->
     assert(ours);
     ours = false;
#ifdef AWAIT_FIRST
     handlers_running == 0;
#endif
     forwarded = false;
#if !defined(NO_AWAIT) && !defined(AWAIT_FIRST) && !defined(SLOT_UNTIMELY)
     handlers_running == 0;
#endif
#ifdef UNREGISTER_FIRST
     atomic { !mutex -> registered[self] = false };
#endif
     LOCK(mutex);
     wanted = false;
#if defined(SLOT) && !defined(LEFT_IN_SLOT)
     if
     :: is_offered ->
        is_offered = false;
        TakeSlot(back);
        left_over = left_over | back;
        back = 0
     :: else
     fi;
#endif
     atomic { leaving = true; mutex = false };
#ifdef SLOT_UNTIMELY
     handlers_running == 0;
#endif
     atomic { !mutex -> change++; back = change };
     bell = true;
#ifndef NO_SYNCHRONIZE
     taken_over == back
#endif
  :: else
  fi;
  atomic {
    !mutex -> registered[self] = false;
    back = left_over;
    left_over = 0
  };
  disposition_mutex = false;
  /* Dispatcher::Return() */
  atomic { of_process = of_process | back; back = 0 }
}

inline Receive(self, which) {
  atomic {
    !mutex && queue[self] -> Take(queue[self], which);
    assert((had_effect & which) == 0 && (got[self] & which) == 0);
    got[self] = got[self] | which;
    received = received | which;
    which = 0
  }
}

inline Open(self) {
  LOCK(disposition_mutex);
  atomic {
    !mutex -> registered[self] = true;
    which = wanted;
    wanted = true;
    change++
  };
  if
  :: which == 0 ->
#ifdef INSTALLED_FIRST
     ours = true;
     forwarded = true
#else
     forwarded = true;
#ifndef OPENED_UNAWAITED
     handlers_running == 0;
#endif
     ours = true
#endif
  :: else
  fi;
  which = 0;
  bell = true;
  disposition_mutex = false
}

/* The thread that owns a receiver: receives, closes, receives what is left, destroys. */
proctype Owner(byte self) {
  byte which;
#ifdef OPENS
  if :: self == B -> Open(self) :: else fi;
#endif
  do
  :: Receive(self, which)
  :: break
  od;
  Unsubscribe(self, which);
  do
  :: Receive(self, which)
  :: break
  od;
  /* ~Subscription(): what only this queue has, and nobody received, is sent again. */
  atomic {
    !mutex ->
#ifdef NOT_SENT
    which = 0;
#elif defined(SENT_TWICE)
    which = queue[self];
#else
    which = queue[self] & ~queue[1 - self] & ~received;
#endif
    queue[self] = 0
  };
  atomic { of_process = of_process | which; which = 0; ended++ }
}

#ifdef SLOT
/* The one thread that waits in Receive(): it offers the slot, and takes it back when its
 * wait is over. How it sleeps and is woken is in receive.pml. */
proctype Waiter() {
  byte which;
  do
  :: LOCK(mutex);
     if
     :: is_offered ->
        is_offered = false;
        TakeSlot(which);
        if :: which -> Deliver(which); which = 0 :: else fi
     :: else
     fi;
     if
     :: !registered[A] -> atomic { mutex = false; break }
     :: registered[A] && queue[A] ->
        mutex = false;
        if :: Receive(A, which) :: queue[A] == 0 fi
     :: registered[A] && !queue[A] && wanted ->
        is_offered = true;
        atomic { slot_state = offered; mutex = false }
     :: registered[A] && !queue[A] && !wanted -> mutex = false
     fi;
     slot_state == filled || queue[A] || !registered[A]
  od
}
#endif

#ifdef REAL_TIME
/* Both have been sent: that no thread has taken a signal yet, and that it comes later, is
 * the same to all others. */
#define SENT ALL
#else
/* The second one may come when the first one is not pending any more. */
#define SENT BIT(0)
proctype Sender() {
  of_process = of_process | BIT(1)
}
#endif

/* Nobody can do anything any more. */
proctype Judge() {
#ifdef TWO
  timeout -> assert(ended == 2);
#else
  timeout -> assert(ended == 1);
#endif
  assert(of_process == 0 && of_service == 0 && left_over == 0);
  assert(slot_state == not_offered && !spill_ready && handlers_running == 0);
  assert((had_effect | received) == ALL);
  assert((had_effect & received) == 0)
}

init {
  byte i;
  atomic {
    ours = true;
    forwarded = true;
    wanted = true;
    registered[A] = true;
    change = 1;      /* seen is 0: Service() looks at once */
    of_process = SENT;
#ifdef TWO
#ifndef OPENS
    registered[B] = true;
#endif
    run Owner(B);
#endif
#ifdef SLOT
    run Waiter();
    run Sender();
#endif
    run Owner(A);
    run Service();
    do
    :: i < THREADS -> run Thread(); i++
    :: else -> break
    od;
    run Judge()
  }
}
