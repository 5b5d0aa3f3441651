"""Decide how many pool processes a model needs, and how long a job will wait. No I/O.

The pool processes that serve a model are the servers of one queue. `rate` is the jobs that one of them runs in
a second, `arrivals` the jobs that come in a second, `backlog` the jobs that want a worker now
(`QueueDepth.backlog`).
"""

from __future__ import annotations

import math

from headrace.errors import InvalidInput
from headrace.inspection.queues import QueueDepth

#: Beyond it, the number that was given or measured is wrong; the search below takes a step for each.
_MAX_PROCESSES = 1_000_000


def count_needed_processes(*, backlog: int, arrivals: float, rate: float, wait: float) -> int:
    """Return the fewest pool processes with which a job waits at most `wait` seconds, in expectation.

    Two things must hold, so the result is the larger of two numbers:

    - The jobs that are here are started in time. A job that comes now is started after the backlog, which `c`
      processes run at `c rate`: `backlog / (c rate) <= wait`. This is the fluid approximation of a queue (G. F.
      Newell, *Applications of Queueing Theory*, 1971, chapter 2).
    - The queue stays short once they are done. If arrivals are random and service times exponential, it is an
      M/M/c queue: the mean wait by Erlang's C formula is at most `wait`, which implies `arrivals < c rate`
      (L. Kleinrock, *Queueing Systems* vol. 1, 1975, section 3.5). Then the backlog shrinks too, so no later job
      waits longer.

    Batches make a process faster the more jobs wait, so a rate measured under a light load is on the safe side.
    Raises InvalidInput if more than 1,000,000 would be needed.
    """
    busy = arrivals / rate
    to_drain = backlog / rate / wait
    if max(busy, to_drain) > _MAX_PROCESSES:
        raise InvalidInput(
            f"more than {_MAX_PROCESSES:,} pool processes would be needed at {rate:g} jobs a second of each"
        )
    return max(math.ceil(to_drain), _count_for_arrivals(arrivals, rate, wait))


def _count_for_arrivals(arrivals: float, rate: float, wait: float) -> int:
    """Return the fewest processes whose mean wait by Erlang's C formula is at most `wait`; 0 if no job comes."""
    busy = arrivals / rate
    if busy == 0:
        return 0
    processes, blocked = 0, 1.0
    while processes <= busy or _erlang_c(processes, busy, blocked) / ((processes - busy) * rate) > wait:
        processes += 1
        blocked = busy * blocked / (processes + busy * blocked)
    return processes


def mean_wait(*, processes: int, arrivals: float, rate: float) -> float:
    """Return the mean seconds that a job waits by Erlang's C formula; infinite if the queue grows without end."""
    busy = arrivals / rate
    if busy == 0:
        return 0.0
    if processes <= busy:
        return math.inf
    blocked = 1.0
    for number in range(1, processes + 1):
        blocked = busy * blocked / (number + busy * blocked)
    return _erlang_c(processes, busy, blocked) / ((processes - busy) * rate)


def _erlang_c(processes: int, busy: float, blocked: float) -> float:
    """Return the probability that a job finds all processes busy, from that of Erlang's B formula (`blocked`)."""
    utilisation = busy / processes
    return blocked / (1 - utilisation * (1 - blocked))


def predict_wait(depth: QueueDepth, jobs_per_second: float) -> float | None:
    """Return the seconds that a job submitted now would wait, if jobs go on to finish at this rate.

    It is 0 if no job waits, and None if jobs wait and none finishes, or while the model is paused.
    """
    if depth.paused is not None:
        return None
    if not depth.waiting and not depth.due:
        return 0.0
    return depth.backlog / jobs_per_second if jobs_per_second else None
