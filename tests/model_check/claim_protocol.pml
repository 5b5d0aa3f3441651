/* The claim protocol: each script is one atomic step, and a crash, a lost reply or the clock may come between any two.

   Jobs, workers and leases are numbers. A lease is used again only when nobody remembers its name, as a name in Redis
   is never used twice. The order within a list is left open, so a claim takes any jobs that wait. Bounds are set with
   -D; FAULT_... plants a fault in one safeguard, LIVE bounds the failures, for promises about the end of a job. */

#ifndef JOBS
#define JOBS 2
#endif
#define WORKERS 2
#ifndef LEASES
#define LEASES 3
#endif
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS 2
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef REPLAYS
#define REPLAYS 1
#endif
#ifndef FAILURES
#define FAILURES 2
#endif
#define NO_LEASE LEASES
#define REFUSED (JOBS + 1)
#define bit_of(job) (1 << (job))

/* Outcomes, and the decisions of a run. */
#define NONE 0
#define SUCCESS 1
#define FAILURE 2
#define CANCELLED 3
#define RETRY 3

/* A worker of the former version ends an empty lease without a fence for a late BLMOVE. */
#if defined(FORMER)
#define is_former(worker) 1
#elif defined(TWO_VERSIONS)
#define is_former(worker) ((worker) == 1)
#else
#define is_former(worker) 0
#endif

/* --- what lies in Redis */

bit has_record[JOBS];
byte queued[JOBS], isolated[JOBS], delayed[JOBS];  /* how often the message lies there */
byte outcome[JOBS];
bit has_letter[JOBS];
byte attempts[JOBS];       /* in the history of the message, since the last replay */
bit has_history[JOBS];     /* an attempt or a replay stands before the message: no BLMOVE waits at its list */
bit was_lost[JOBS];        /* an attempt in the history was lost, so the job runs alone */
bit may_give_up[JOBS];     /* the last attempt ran alone, or ended with an error */
bit cancel_mark;

typedef Lease {
  bit is_member, is_expired, is_blocking, is_extended, is_isolated;
  bit is_fenced;           /* a string in place of the list: BLMOVE refuses it */
  byte holds[JOBS];
};
Lease leases[LEASES];

/* --- connections and memories */

byte sent[WORKERS] = NO_LEASE;     /* the lease of a BLMOVE whose bytes are under way */
byte blocked[WORKERS] = NO_LEASE;     /* the lease of a BLMOVE that waits at Redis */
bit blocked_later[WORKERS];
byte reply[WORKERS];       /* to a BLMOVE: 0 none, a job + 1, or REFUSED */
bit is_waiting[WORKERS];   /* the worker waits for this reply */
byte held[WORKERS] = NO_LEASE;       /* the lease that a worker knows */
byte claimed[WORKERS];     /* the jobs in its memory, as bits */
byte swept = NO_LEASE;     /* the lease that the sweep found expired */
byte failures;
byte deaths[JOBS];          /* how often a letter was stored */

/* --- ghosts: what the promises speak of */

byte published[JOBS];      /* outcomes since the last replay */
byte cancelled_early[WORKERS];  /* jobs that were cancelled before the claim, as bits */
bit ran_alone_last[JOBS];

hidden byte i, k, slot, number;
hidden byte was_empty;

/* Crashes, lost replies and late renewals; with POISON, any number of crashes of pool processes besides. */
#define may_fail (failures < FAILURES)
#define failed() failures++

#ifdef FAILOVER
/* A replica holds the state of an earlier moment. After the failover it is the primary. */
typedef Replica {
  bit has_history[JOBS], has_record[JOBS], has_letter[JOBS], was_lost[JOBS], may_give_up[JOBS], cancel_mark, ran_alone_last[JOBS];
  byte queued[JOBS], isolated[JOBS], delayed[JOBS], outcome[JOBS], attempts[JOBS], deaths[JOBS];
  Lease leases[LEASES];
};
Replica replica;
bit is_confirmed[JOBS];    /* the submit waited for the replica */
bit is_replicated, is_failed_over;
#endif

/* --- the promises, which the claim at the end checks after each step */

#define held_by(l, j) (leases[l].is_member * leases[l].holds[j])
#define stray_in(l, j) ((1 - leases[l].is_member) * leases[l].holds[j])
#if LEASES > 3
#define leased(j) (held_by(0, j) + held_by(1, j) + held_by(2, j) + held_by(3, j))
#define stray(j) (stray_in(0, j) + stray_in(1, j) + stray_in(2, j) + stray_in(3, j))
#else
#define leased(j) (held_by(0, j) + held_by(1, j) + held_by(2, j))
#define stray(j) (stray_in(0, j) + stray_in(1, j) + stray_in(2, j))
#endif
#define copies(j) (queued[j] + isolated[j] + delayed[j] + leased(j))

#define no_list_without_its_lease(j) (stray(j) == 0)
#define in_one_place(j) ((has_record[j] || copies(j) == 0) && (!has_record[j] || outcome[j] != NONE || copies(j) == 1))
/* The message of a cancelled job waits until it is claimed, and is dropped then. */
#define gone_when_ended(j) (outcome[j] == NONE || copies(j) == 0 || (outcome[j] == CANCELLED && copies(j) == 1))
#define failures_are_letters(j) (has_letter[j] == (outcome[j] == FAILURE))
#define published_once(j) (published[j] <= 1)
#ifdef FAILOVER
#define durable_is_kept(j) (!is_confirmed[j] || has_record[j])
#else
#define durable_is_kept(j) true
#endif

#define check(j) \
  assert(no_list_without_its_lease(j)); assert(in_one_place(j)); assert(gone_when_ended(j)); \
  assert(failures_are_letters(j)); assert(published_once(j)); assert(durable_is_kept(j))

inline show_state() {
  printf("STATE");
  for (i : 0 .. JOBS - 1) {
    printf(" job=%d,%d,%d,%d,%d,%d,%d", has_record[i], queued[i], isolated[i], delayed[i], outcome[i], has_letter[i],
      attempts[i])
  }
  for (k : 0 .. LEASES - 1) {
    number = 0;
    for (i : 0 .. JOBS - 1) { number = number + bit_of(i) * leases[k].holds[i] }
    printf(" lease=%d,%d", leases[k].is_member, number)
  }
  printf("\n")
}

#define is_remembered(l) (sent[0] == l || sent[1] == l || blocked[0] == l || blocked[1] == l || held[0] == l || \
  held[1] == l)

/* End a step. A fence that nobody can meet any more is forgotten: it would only add states. */
inline end_step() {
  blocked_later[0] = blocked_later[0] && blocked[0] != NO_LEASE && blocked[1] != NO_LEASE;
  blocked_later[1] = blocked_later[1] && blocked[0] != NO_LEASE && blocked[1] != NO_LEASE;
#ifdef TRACE
  show_state();
#endif
  leases[0].is_fenced = leases[0].is_fenced && is_remembered(0);
  leases[1].is_fenced = leases[1].is_fenced && is_remembered(1);
  leases[2].is_fenced = leases[2].is_fenced && is_remembered(2)
#if LEASES > 3
  ; leases[3].is_fenced = leases[3].is_fenced && is_remembered(3)
#endif
}

/* --- parts of steps */

/* Leases whose name somebody knows. */
#ifdef FAILOVER
#define in_replica(l) replica.leases[l].is_member
#else
#define in_replica(l) 0
#endif
#define is_known(l) (leases[l].is_member || swept == l || sent[0] == l || sent[1] == l || blocked[0] == l || \
  blocked[1] == l || held[0] == l || held[1] == l || in_replica(l))
#if LEASES > 3
#define has_free_lease !(is_known(0) && is_known(1) && is_known(2) && is_known(3))
#else
#define has_free_lease !(is_known(0) && is_known(1) && is_known(2))
#endif

inline find_free_lease() {
  slot = 0;
  do
  :: slot < LEASES && is_known(slot) -> slot++
  :: else -> break
  od
}

inline reset_lease(l) {
  leases[l].is_member = 0; leases[l].is_expired = 0; leases[l].is_blocking = 0; leases[l].is_extended = 0;
  leases[l].is_isolated = 0; leases[l].is_fenced = 0;
  for (i : 0 .. JOBS - 1) { leases[l].holds[i] = 0 }
}

/* End a lease: the member and the list are deleted. */
inline end_lease(l) {
  leases[l].is_member = 0; leases[l].is_expired = 0; leases[l].is_blocking = 0; leases[l].is_extended = 0;
  leases[l].is_isolated = 0;
  for (i : 0 .. JOBS - 1) { leases[l].holds[i] = 0 }
}

/* Redis moves a job to a BLMOVE that waits: to the one that has waited longest, in the step that pushed the job. */
inline serve(w) {
  if
  :: blocked[w] != NO_LEASE ->
    if
    :: leases[blocked[w]].is_fenced ->
      number = 0;
      for (i : 0 .. JOBS - 1) { number = number + (queued[i] > 0 && !has_history[i]) }
      if
      :: number > 0 ->
        if :: is_waiting[w] && held[w] == blocked[w] -> reply[w] = REFUSED :: else fi;
        blocked[w] = NO_LEASE; blocked_later[w] = 0
      :: else
      fi
    :: else ->
      for (i : 0 .. JOBS - 1) {
        if
        :: blocked[w] != NO_LEASE && queued[i] > 0 && !has_history[i] ->
          queued[i]--; leases[blocked[w]].holds[i]++;
          if :: is_waiting[w] && held[w] == blocked[w] -> reply[w] = i + 1 :: else fi;
          blocked[w] = NO_LEASE; blocked_later[w] = 0
        :: else
        fi
      }
    fi
  :: else
  fi
}
inline serve_blocked() {
  if
  :: blocked_later[0] -> serve(1); serve(0)
  :: else -> serve(0); serve(1)
  fi
}

inline push_back(l, j) {
  if
  :: leases[l].is_isolated -> isolated[j] = isolated[j] + leases[l].holds[j]
  :: else -> queued[j] = queued[j] + leases[l].holds[j]
  fi
}

inline forget(w) { held[w] = NO_LEASE; claimed[w] = 0; cancelled_early[w] = 0; reply[w] = 0; is_waiting[w] = 0 }

/* --- the scripts of a worker */

#if JOBS == 3
#define waits_any (queued[0] + queued[1] + queued[2] + isolated[0] + isolated[1] + isolated[2] > 0)
#else
#define waits_any (queued[0] + queued[1] + isolated[0] + isolated[1] > 0)
#endif

/* CLAIM of the jobs in `take`, as bits; from the isolated jobs if `from_isolated`. It ends a parked lease. */
inline claim(w, take, from_isolated) {
#ifdef FAULT_LEASE_NAME_REUSED
  slot = w;
#else
  find_free_lease();
  reset_lease(slot);
#endif
  printf("STEP claim worker=%d lease=%d jobs=%d isolated=%d parked=%d\n", w, slot, take, from_isolated, held[w]);
  number = 0;
  for (i : 0 .. JOBS - 1) {
    if
    :: (take & bit_of(i)) ->
      number++;
      if
      :: from_isolated -> isolated[i]--
      :: held[w] != NO_LEASE && leases[held[w]].holds[i] > 0 -> leases[held[w]].holds[i]--
      :: else -> queued[i]--
      fi;
      leases[slot].holds[i]++;
      if :: outcome[i] == CANCELLED -> cancelled_early[w] = cancelled_early[w] | bit_of(i) :: else fi
    :: else
    fi
  }
  for (i : 0 .. JOBS - 1) {
    if :: (take & bit_of(i)) && was_lost[i] -> assert(number == 1) :: else fi    /* it runs alone */
  }
  if :: held[w] != NO_LEASE -> end_lease(held[w]); leases[held[w]].is_fenced = 0 :: else fi;
  leases[slot].is_isolated = from_isolated;
#ifndef FAULT_CLAIM_IN_TWO_STEPS
  leases[slot].is_member = 1; leases[slot].is_expired = 0;
#endif
  held[w] = slot; claimed[w] = take; is_waiting[w] = 0; reply[w] = 0;
  end_step()
}

/* CLAIM that finds nothing: the lease is parked. */
inline park(w) {
  if
  :: held[w] == NO_LEASE -> find_free_lease(); reset_lease(slot); held[w] = slot
  :: else
  fi;
#ifndef FAULT_BLMOVE_BEFORE_LEASE
  leases[held[w]].is_member = 1;
#endif
  leases[held[w]].is_blocking = 1; leases[held[w]].is_expired = 0; leases[held[w]].is_extended = 0;
  leases[held[w]].is_fenced = 0;
  printf("STEP park worker=%d lease=%d\n", w, held[w]);
  end_step()
}

inline renew(w) {
  printf("STEP renew worker=%d lease=%d\n", w, held[w]);
  if
#ifdef FAULT_RENEW_OF_A_LOST_LEASE
  :: true -> leases[held[w]].is_member = 1; leases[held[w]].is_expired = 0
#endif
  :: leases[held[w]].is_member -> leases[held[w]].is_expired = 0; leases[held[w]].is_extended = 0
  :: else
  fi;
  end_step()
}

/* PUBLISH with a decision for each job, in 2 bits; 0 for a job that has an outcome already. */
inline publish(w, decisions) {
  printf("STEP publish worker=%d lease=%d jobs=%d decisions=%d\n", w, held[w], claimed[w], decisions);
  if
#ifdef FAULT_PUBLISH_WITHOUT_FENCE
  :: true ->
#else
  :: leases[held[w]].is_member ->
#endif
    for (i : 0 .. JOBS - 1) {
      number = (decisions >> (2 * i)) & 3;
      if
      :: (claimed[w] & bit_of(i)) && number == RETRY ->
        delayed[i]++; has_history[i] = 1; may_give_up[i] = 1; ran_alone_last[i] = 1;
        attempts[i] = (attempts[i] < MAX_ATTEMPTS + 1 -> attempts[i] + 1 : attempts[i])
#ifdef FAULT_RETRY_KEEPS_THE_LEASE
        ; leases[held[w]].holds[i]++
#endif
#ifdef FAULT_OUTCOME_OVERWRITTEN
      :: (claimed[w] & bit_of(i)) && (number == SUCCESS || number == FAILURE) ->
#else
      :: (claimed[w] & bit_of(i)) && (number == SUCCESS || number == FAILURE) && outcome[i] == NONE ->
#endif
        outcome[i] = number; published[i]++;
#ifndef FAULT_FAILURE_WITHOUT_LETTER
        if :: number == FAILURE -> has_letter[i] = 1; deaths[i]++ :: else fi
#else
        skip
#endif
      :: else
      fi
    };
#ifdef FAULT_RETRY_KEEPS_THE_LEASE
    for (i : 0 .. JOBS - 1) { number = delayed[i]; leases[held[w]].holds[i] = (number > 0 -> 1 : 0) }
#else
#ifndef FAULT_PUBLISH_IN_TWO_STEPS
    end_lease(held[w])
#endif
#endif
  :: else
  fi;
  end_step()
}

/* REQUEUE by the owner: the messages go back where they came from. */
inline requeue(w) {
  printf("STEP requeue worker=%d lease=%d\n", w, held[w]);
  if
#ifdef FAULT_REQUEUE_FROM_MEMORY
  :: claimed[w] != 0 ->
    for (i : 0 .. JOBS - 1) { if :: (claimed[w] & bit_of(i)) -> queued[i]++ :: else fi };
    end_lease(held[w])
#endif
  :: leases[held[w]].is_member ->
    number = 0;
    for (i : 0 .. JOBS - 1) { number = number + leases[held[w]].holds[i]; push_back(held[w], i) };
    leases[held[w]].is_fenced = (leases[held[w]].is_blocking && number == 0 && !is_former(w) -> 1 : 0);
    end_lease(held[w])
#ifdef FAULT_NO_FENCE_FOR_BLMOVE
    ; leases[held[w]].is_fenced = 0
#endif
  :: else
  fi;
  forget(w);
  serve_blocked();
  end_step()
}

/* REQUEUE_ISOLATED, by the owner after a crash of its pool process, or by a sweep. */
inline isolate(l) {
  number = 0;
  for (i : 0 .. JOBS - 1) { number = number + leases[l].holds[i] };
  for (i : 0 .. JOBS - 1) {
    if
    :: leases[l].holds[i] > 0 ->
#ifdef FAULT_LOST_JOB_NOT_ISOLATED
      queued[i] = queued[i] + leases[l].holds[i];
#else
      isolated[i] = isolated[i] + leases[l].holds[i];
#endif
#ifndef FAULT_LOST_RUN_NOT_COUNTED
      attempts[i] = (attempts[i] < MAX_ATTEMPTS + 1 -> attempts[i] + 1 : attempts[i]);
#endif
      has_history[i] = 1; was_lost[i] = 1; may_give_up[i] = (number == 1 -> 1 : 0); ran_alone_last[i] = (number == 1 -> 1 : 0)
    :: else
    fi
  };
  end_lease(l)
}

inline crash_of_pool_process(w) {
  printf("STEP isolate worker=%d lease=%d\n", w, held[w]);
  if :: leases[held[w]].is_member -> isolate(held[w]) :: else fi;
  forget(w);
  end_step()
}

/* Choose what a claim takes: one isolated job, or any others. */
inline choose_jobs() {
  if
  :: isolated[0] > 0 -> job = 1; alone = 1
  :: isolated[1] > 0 -> job = 2; alone = 1
  :: queued[0] > 0 -> job = 1
  :: queued[1] > 0 -> job = 2
  :: queued[0] > 0 && queued[1] > 0 -> job = 3
#if JOBS == 3
  :: isolated[2] > 0 -> job = 4; alone = 1
  :: queued[2] > 0 -> job = 4
  :: queued[0] > 0 && queued[2] > 0 -> job = 5
  :: queued[1] > 0 && queued[2] > 0 -> job = 6
#endif
  fi
}

inline choose_decisions(w) {
  decisions = 0; job = 0;
  do
  :: job < JOBS && !(claimed[w] & bit_of(job)) -> job++
  :: job < JOBS && (claimed[w] & bit_of(job)) && (dropped & bit_of(job)) -> job++
  :: job < JOBS && (claimed[w] & bit_of(job)) && !(dropped & bit_of(job)) ->
    if
#ifdef FAULT_GIVEN_UP_FOR_A_SHARED_RUN
    :: attempts[job] >= MAX_ATTEMPTS ->
#else
    :: attempts[job] >= MAX_ATTEMPTS && may_give_up[job] ->
#endif
      assert(ran_alone_last[job]);                       /* given up only for a run in which it was alone */
      decisions = decisions | (FAILURE << (2 * job))
    :: else ->
      assert(!(cancelled_early[w] & bit_of(job)));       /* a job that was cancelled before its claim does not run */
      if
      :: decisions = decisions | (SUCCESS << (2 * job))
#ifndef ONLY_SUCCESS
      :: decisions = decisions | (FAILURE << (2 * job))
      :: attempts[job] + 1 < MAX_ATTEMPTS -> decisions = decisions | (RETRY << (2 * job))
#endif
      fi
    fi;
    job++
  :: else -> break
  od;
  job = 0
}

#define crash(w) printf("STEP crash worker=%d\n", w); failed(); forget(w); end_step()

/* Bytes of a closed connection may come late. The former version counts on it that they do not. */
#define may_be_late(w) (!is_former(w))
#ifdef LIVE
#define may_send(w) (!waits_any && sent[w] == NO_LEASE && (!is_former(w) || leases[held[w]].is_member))
#else
#define may_send(w) (sent[w] == NO_LEASE && (!is_former(w) || leases[held[w]].is_member))
#endif

/* A job whose attempts are used up is a dead letter before its message is opened: it cannot end its process. */
#define runs(w, j) ((claimed[w] & bit_of(j)) && !(attempts[j] >= MAX_ATTEMPTS && may_give_up[j]))

/* A jump from one atomic sequence to another would keep the others out, so a step that is not begins each state. */
proctype Worker(byte w) {
  byte decisions, dropped, job;
  bit alone;

idle:
  skip;
  atomic {
    if
    :: waits_any && has_free_lease ->
      choose_jobs();
      d_step { claim(w, job, alone); job = 0; alone = 0 };
#ifdef FAULT_CLAIM_IN_TWO_STEPS
      goto claimed_half
#else
      if
      :: goto opening
      :: may_fail -> failed(); goto orphaned              /* the reply is lost */
      fi
#endif
#ifndef NO_BLOCKING
    :: !waits_any && has_free_lease && sent[w] == NO_LEASE && blocked[w] == NO_LEASE ->
      d_step { park(w) };
      goto parked
#endif
    fi
  };

parked:                                                   /* nothing of this worker is at Redis but its lease */
  skip;
  atomic {
    if
    :: may_send(w) -> d_step { sent[w] = held[w]; is_waiting[w] = 1; reply[w] = 0 }; goto waiting
    :: !waits_any && !(is_former(w) && leases[held[w]].is_fenced) &&
      !(leases[held[w]].is_member && !leases[held[w]].is_expired) -> d_step { park(w) }; goto parked
    :: is_former(w) && leases[held[w]].is_fenced -> leases[held[w]].is_fenced = 0   /* the fence expires */; goto parked
    :: waits_any && has_free_lease && !(is_former(w) && leases[held[w]].is_fenced) ->
      /* a list changed: claim, with the parked lease */
      choose_jobs();
      d_step { claim(w, job, alone); job = 0; alone = 0 };
      goto opening
    :: may_fail -> failed(); goto orphaned                /* it may not claim any more */
    :: may_fail -> d_step { crash(w) }; goto idle
    fi
  };

waiting:                                                  /* a BLMOVE was sent */
  skip;
  atomic {
    if
    :: reply[w] > 0 && reply[w] < REFUSED ->
      if
      :: leases[held[w]].is_member ->                     /* the job runs under the lease */
        d_step {
          claimed[w] = bit_of(reply[w] - 1);
          if :: outcome[reply[w] - 1] == CANCELLED -> cancelled_early[w] = claimed[w] :: else fi;
          leases[held[w]].is_blocking = 0; reply[w] = 0; is_waiting[w] = 0
        }
        goto opening
      :: else -> d_step { forget(w) }; goto idle          /* the lease was swept with the job */
      fi
    :: reply[w] == REFUSED -> d_step { forget(w) }; goto idle
    :: blocked[w] == held[w] ->
      d_step {
        printf("STEP unblock worker=%d\n", w);
        blocked[w] = NO_LEASE; blocked_later[w] = 0; is_waiting[w] = 0;
        end_step()
      };
      goto parked
    :: may_fail && (may_be_late(w) || sent[w] == NO_LEASE) -> failed(); goto orphaned   /* the connection is lost */
    :: may_fail && (may_be_late(w) || sent[w] == NO_LEASE) -> d_step { crash(w) }; goto idle
    fi
  };

orphaned:
  skip;
  atomic {
#ifndef FAULT_NO_UNBLOCK
    if
    :: blocked[w] != NO_LEASE && blocked[w] == held[w] ->
      d_step {
        printf("STEP unblock worker=%d\n", w);
        blocked[w] = NO_LEASE; blocked_later[w] = 0; is_waiting[w] = 0;
        end_step()
      }
    :: else -> d_step { is_waiting[w] = 0; reply[w] = 0 }
    fi
#else
    d_step { is_waiting[w] = 0; reply[w] = 0 }
#endif
  };
  atomic {
    if
    :: d_step { requeue(w) }; goto idle
    :: may_fail -> d_step { crash(w) }; goto idle
    fi
  };

opening:                                                  /* drop the jobs that have an outcome */
  skip;
  atomic {
    if
    :: d_step {
        dropped = 0;
        if
        :: cancel_mark ->
          for (i : 0 .. JOBS - 1) {
            if :: (claimed[w] & bit_of(i)) && outcome[i] != NONE -> dropped = dropped | bit_of(i) :: else fi
          }
        :: else
        fi
      }
    :: may_fail -> d_step { crash(w) }; goto idle
    fi
  };

running:
  skip;
  atomic {
    if
    :: choose_decisions(w);
      d_step { publish(w, decisions) };
#ifdef FAULT_PUBLISH_IN_TWO_STEPS
      goto published_half
#else
      if
      :: d_step { forget(w); decisions = 0; dropped = 0 }; goto idle
      :: may_fail -> failed(); goto publishing            /* the reply is lost */
      fi
#endif
    :: leases[held[w]].is_member && leases[held[w]].is_expired -> d_step { renew(w) }; goto running
#ifdef TRACE                                              /* a renewal that changes nothing: for the scripts */
    :: d_step { renew(w) }; goto running
#endif
#ifdef FAULT_RENEW_OF_A_LOST_LEASE
    :: !leases[held[w]].is_member -> d_step { renew(w) }; goto running
#endif
#ifdef POISON
    :: runs(w, 0) || runs(w, 1) -> d_step { crash_of_pool_process(w); dropped = 0 }; goto idle
#else
    :: may_fail -> d_step { failed(); crash_of_pool_process(w); dropped = 0 }; goto idle
#endif
    :: may_fail -> d_step { failed(); requeue(w); dropped = 0 }; goto idle     /* it is told to stop */
    :: may_fail -> d_step { crash(w); dropped = 0 }; goto idle
    fi
  };

#ifdef FAULT_CLAIM_IN_TWO_STEPS
claimed_half:
  skip;
  d_step { leases[held[w]].is_member = 1 };
  goto opening;
#endif
#ifdef FAULT_PUBLISH_IN_TWO_STEPS
published_half:
  skip;
  d_step { end_lease(held[w]); forget(w); decisions = 0; dropped = 0 };
  goto idle;
#endif

publishing:                                               /* the same publication again */
  skip;
  atomic {
    if
    :: d_step { publish(w, decisions); forget(w); decisions = 0; dropped = 0 }; goto idle
    :: may_fail -> d_step { crash(w); decisions = 0; dropped = 0 }; goto idle
    fi
  }
}

/* --- the clock, the keeper of the queues, and Redis */

/* Redis executes a BLMOVE that has come. */
inline arrive(w) {
  printf("STEP blmove worker=%d lease=%d waiting=%d\n", w, sent[w], is_waiting[w] && held[w] == sent[w]);
  blocked[w] = sent[w]; sent[w] = NO_LEASE;
  blocked_later[w] = (blocked[1 - w] != NO_LEASE -> 1 : 0); blocked_later[1 - w] = 0;
  if
  :: leases[blocked[w]].is_fenced && is_waiting[w] && held[w] == blocked[w] -> reply[w] = REFUSED;
    blocked[w] = NO_LEASE; blocked_later[w] = 0
  :: leases[blocked[w]].is_fenced && !(is_waiting[w] && held[w] == blocked[w]) ->
    blocked[w] = NO_LEASE; blocked_later[w] = 0
  :: else -> serve(w)
  fi;
  if
  :: blocked[w] != NO_LEASE && !(is_waiting[w] && held[w] == blocked[w]) ->   /* its connection is closed */
    blocked[w] = NO_LEASE; blocked_later[w] = 0
  :: else
  fi;
  end_step()
}

inline sweep() {
  printf("STEP sweep lease=%d\n", swept);
  if
#ifdef FAULT_SWEEP_OF_A_RENEWED_LEASE
  :: leases[swept].is_member ->
#else
  :: leases[swept].is_member && leases[swept].is_expired ->
#endif
    assert(leases[swept].is_expired);                     /* a renewed lease is not ended */
    number = 0;
    for (i : 0 .. JOBS - 1) { number = number + leases[swept].holds[i] };
    if
#ifndef FAULT_NO_GRACE
    :: number == 0 && leases[swept].is_blocking && !leases[swept].is_extended ->
      leases[swept].is_extended = 1; leases[swept].is_expired = 0
#endif
    :: else ->
      was_empty = leases[swept].is_blocking && number == 0;
      isolate(swept);
#if !defined(FAULT_NO_FENCE_FOR_BLMOVE) && !defined(FORMER)
      leases[swept].is_fenced = was_empty
#endif
    fi
  :: else
  fi;
  swept = NO_LEASE;
  end_step()
}

/* Whether the lease that was extended may expire again: the former version counts on the end of a wait by then. */
#if defined(FORMER)
#define may_expire(l) (!leases[l].is_extended || (blocked[0] != l && blocked[1] != l && sent[0] != l && sent[1] != l))
#elif defined(TWO_VERSIONS)
#define may_expire(l) (!leases[l].is_extended || (blocked[1] != l && sent[1] != l))
#else
#define may_expire(l) true
#endif
#define is_owned(l) (held[0] == l || held[1] == l)

inline move_due(j) {
  printf("STEP move_due job=%d\n", j);
  delayed[j]--;
  if :: was_lost[j] -> isolated[j]++ :: else -> queued[j]++ fi;
  end_step()
}

#define may_find(l) (swept == NO_LEASE && leases[l].is_member && leases[l].is_expired)

/* The worker that keeps the queues for all. Its own end is that of another keeper's beginning. */
active proctype Keeper() {
end:
  do
#ifndef FAULT_NO_SWEEP
  :: atomic { may_find(0) -> swept = 0 }
  :: atomic { may_find(1) -> swept = 1 }
  :: atomic { may_find(2) -> swept = 2 }
#if LEASES > 3
  :: atomic { may_find(3) -> swept = 3 }
#endif
  :: d_step { swept != NO_LEASE -> sweep() }
#endif
#ifndef FAULT_NO_DUE_JOBS
  :: d_step { delayed[0] > 0 -> move_due(0) }
  :: d_step { delayed[1] > 0 -> move_due(1) }
#if JOBS == 3
  :: d_step { delayed[2] > 0 -> move_due(2) }
#endif
#endif
  od
}

#define can_expire(l) (leases[l].is_member && !leases[l].is_expired && may_expire(l) && (!is_owned(l) || may_fail))

inline expire(l) {
  printf("STEP expire lease=%d\n", l);
  if :: is_owned(l) -> failed() :: else fi;
  leases[l].is_expired = 1;
  end_step()
}

/* Any lease may expire at any time: its owner may be slow, stopped or cut off. */
active proctype Clock() {
end:
  do
  :: d_step { can_expire(0) -> expire(0) }
  :: d_step { can_expire(1) -> expire(1) }
  :: d_step { can_expire(2) -> expire(2) }
#if LEASES > 3
  :: d_step { can_expire(3) -> expire(3) }
#endif
  od
}

#define is_half_open(w) (blocked[w] != NO_LEASE && !(is_waiting[w] && held[w] == blocked[w]))

#ifdef FAILOVER
#define copy_lease(target, source) \
  target.is_member = source.is_member; target.is_expired = source.is_expired; \
  target.is_blocking = source.is_blocking; target.is_extended = source.is_extended; \
  target.is_isolated = source.is_isolated; target.is_fenced = source.is_fenced; \
  for (i : 0 .. JOBS - 1) { target.holds[i] = source.holds[i] }

/* The replica receives all that was written. A submit that waited for it is confirmed. */
inline replicate() {
  is_replicated = 1; replica.cancel_mark = cancel_mark;
  for (i : 0 .. JOBS - 1) {
    is_confirmed[i] = has_record[i];
    replica.has_record[i] = has_record[i]; replica.has_letter[i] = has_letter[i];
    replica.has_history[i] = has_history[i]; replica.was_lost[i] = was_lost[i];
    replica.may_give_up[i] = may_give_up[i]; replica.ran_alone_last[i] = ran_alone_last[i];
    replica.queued[i] = queued[i]; replica.isolated[i] = isolated[i]; replica.delayed[i] = delayed[i];
    replica.outcome[i] = outcome[i]; replica.attempts[i] = attempts[i]; replica.deaths[i] = deaths[i]
  };
  for (k : 0 .. LEASES - 1) { copy_lease(replica.leases[k], leases[k]) };
  end_step()
}

/* What was written since is lost, and so is each connection. A lost outcome may be published again. */
inline fail_over() {
  is_failed_over = 1; cancel_mark = replica.cancel_mark;
  for (i : 0 .. JOBS - 1) {
    has_record[i] = replica.has_record[i]; has_letter[i] = replica.has_letter[i];
    has_history[i] = replica.has_history[i]; was_lost[i] = replica.was_lost[i];
    may_give_up[i] = replica.may_give_up[i]; ran_alone_last[i] = replica.ran_alone_last[i];
    queued[i] = replica.queued[i]; isolated[i] = replica.isolated[i]; delayed[i] = replica.delayed[i];
    outcome[i] = replica.outcome[i]; attempts[i] = replica.attempts[i]; deaths[i] = replica.deaths[i];
    published[i] = (outcome[i] != NONE -> 1 : 0);
    replica.has_record[i] = 0; replica.has_letter[i] = 0; replica.has_history[i] = 0; replica.was_lost[i] = 0;
    replica.may_give_up[i] = 0; replica.ran_alone_last[i] = 0; replica.queued[i] = 0; replica.isolated[i] = 0;
    replica.delayed[i] = 0; replica.outcome[i] = 0; replica.attempts[i] = 0; replica.deaths[i] = 0
  };
  for (k : 0 .. LEASES - 1) { copy_lease(leases[k], replica.leases[k]) };
  for (k : 0 .. LEASES - 1) {
    replica.leases[k].is_member = 0; replica.leases[k].is_expired = 0; replica.leases[k].is_blocking = 0;
    replica.leases[k].is_extended = 0; replica.leases[k].is_isolated = 0; replica.leases[k].is_fenced = 0;
    for (i : 0 .. JOBS - 1) { replica.leases[k].holds[i] = 0 }
  };
  for (k : 0 .. WORKERS - 1) {
    sent[k] = NO_LEASE; blocked[k] = NO_LEASE; blocked_later[k] = 0; reply[k] = 0;
    cancelled_early[k] = 0                                /* the cancellation may be lost */
  };
  end_step()
}
#endif

active proctype Redis() {
end:
  do
  :: d_step { sent[0] != NO_LEASE -> arrive(0) }
  :: d_step { sent[1] != NO_LEASE -> arrive(1) }
  :: d_step { is_half_open(0) -> printf("STEP unblock worker=0\n"); blocked[0] = NO_LEASE; end_step() }
  :: d_step { is_half_open(1) -> printf("STEP unblock worker=1\n"); blocked[1] = NO_LEASE; end_step() }
#ifdef FAILOVER
  :: d_step { !is_replicated -> replicate() }
  :: d_step { is_replicated && !is_failed_over -> fail_over() }
#endif
  od
}

/* --- producers and operators */

inline submit(j) {
  printf("STEP submit job=%d\n", j);
  if
#ifdef FAULT_SUBMIT_WITHOUT_RECORD
  :: true -> has_record[j] = 1; queued[j]++
#else
  :: !has_record[j] -> has_record[j] = 1; queued[j]++
#endif
  :: else
  fi;
  serve_blocked();
  end_step()
}

active proctype Producer() {
  byte j;
  bit is_repeated;
  do
  :: j < JOBS ->
    atomic {
      d_step { submit(j) };
      if
      :: j++; is_repeated = 0
      :: !is_repeated -> is_repeated = 1                  /* the reply is lost: it submits the job again */
      fi
    }
  :: else -> break
  od;
#ifdef FAILOVER
  /* A submit that did not reach the replica raised an error; the producer submits the job again. */
end:
  do
  :: d_step { is_failed_over && !has_record[0] -> submit(0); is_confirmed[0] = 1 }
  :: d_step { is_failed_over && !has_record[1] -> submit(1); is_confirmed[1] = 1 }
  od
#endif
}

inline cancel(j) {
  printf("STEP cancel job=%d\n", j);
  if
#ifdef FAULT_CANCEL_OVERWRITES
  :: has_record[j] ->
#else
  :: has_record[j] && outcome[j] == NONE ->
#endif
    outcome[j] = CANCELLED; published[j]++;
#ifndef FAULT_CANCEL_WITHOUT_MARK
    cancel_mark = 1
#endif
  :: else
  fi;
  end_step()
}

active proctype Canceller() {
  byte j;
end:
  do
  :: j < CANCELS ->
    atomic {
      if
      :: d_step { cancel(0) }
      :: d_step { cancel(1) }
      :: skip
      fi;
      j++
    }
  :: else -> break
  od
}

/* A letter is read first. The script then compares the moment at which the job failed. */
inline replay(j, death) {
  printf("STEP replay job=%d death=%d\n", j, death);
  if
#ifdef FAULT_REPLAY_UNCHECKED
  :: true ->
#else
  :: has_letter[j] && deaths[j] == death ->
#endif
    if :: was_lost[j] -> isolated[j]++ :: else -> queued[j]++ fi;
    outcome[j] = NONE; has_letter[j] = 0; published[j] = 0;
    attempts[j] = 0; may_give_up[j] = 0; has_history[j] = 1
  :: else
  fi;
  end_step()
}

active proctype Operator() {
  byte j, death, calls;
end:
  do
  :: calls < REPLAYS ->
    atomic {
      if
      :: has_letter[0] -> j = 0
      :: has_letter[1] -> j = 1
      fi;
      death = deaths[j]
    };
    d_step { replay(j, death) };
    if
    :: d_step { replay(j, death) }                        /* the first reply was lost */
    :: skip
    fi;
    d_step { calls++; death = 0; j = 0 }
  :: else -> break
  od
}

init { atomic { run Worker(0); run Worker(1) } }

#if JOBS == 3
#define check_all check(0); check(1); check(2)
#define all_ended (outcome[0] != NONE && outcome[1] != NONE && outcome[2] != NONE)
#else
#define check_all check(0); check(1)
#define all_ended (outcome[0] != NONE && outcome[1] != NONE)
#endif

#ifdef LIVE
/* Time goes on when nothing else does. With fairness, spin finds no cycle in a state without a next step. */
active proctype Time() {
  bit tick;
end:
  do
  :: tick = 1 - tick
  od
}

ltl nothing_starves { <> [] all_ended }
#else
never {
  do
  :: atomic { check_all }
  od
}
#endif
