"""A claim loop on a connection whose replies the test makes up."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from headrace.wire.keys import Keys
from headrace_worker.transport.claim_loop import ClaimLoop
from headrace_worker.transport.claim_states import State
from headrace_worker.transport.claims import Claim, ClaimLimits, choose_isolated_turn
from headrace_worker.transport.notifications import QueueNotifications
from headrace_worker.transport.watch import Watch
from tests.support.fake_clock import FakeClock

QUEUE = "predict.churn"
CLIENT_ID = 7
#: CLAIM's reply when nothing waits, and when the offered lease is parked.
NOTHING, PARKED = [0, [], 0], [0, [], 1]
#: The names of the commands of a claim: the script, and the messages under the lease.
CLAIM = ["FCALL", "LRANGE"]
#: The names of a script's call with the function, without it, and with the source.
_CALLS = {"FCALL", "EVALSHA", "EVAL"}


class Harness:
    """A claim loop on a connection, whose replies the test makes up."""

    def __init__(self, *, shared: bool = False) -> None:
        self.clock = FakeClock()
        self.limits = [ClaimLimits(queue=QUEUE)]
        self.held: Counter[str] = Counter()
        self.wakes_after: list[float] = []
        self.orphans: list[str] = []
        #: The pool processes, and those that run isolated jobs.
        self.processes, self.isolated = 4, 0
        numbers = itertools.count(1)
        self.workers = 1
        self.watch = Watch(Keys(), "host/1/x", lambda: self.workers, self.clock)
        if not shared:
            self.watch.refuse(None)
        self.loop = ClaimLoop(
            Keys(),
            lease_seconds=10,
            queue_limits=lambda: self.limits,
            count_held=self.held.__getitem__,
            isolated_turn=lambda follows_isolated: choose_isolated_turn(
                processes=self.processes, isolated=self.isolated, follows_isolated=follows_isolated
            ),
            next_name=lambda: f"host/1/x/{next(numbers)}",
            wake_after=self.wakes_after.append,
            adopt_orphan=self.orphans.append,
            watch=self.watch,
            clock=self.clock,
        )
        self.connect()

    def connect(self) -> None:
        self.loop.connected(QueueNotifications(CLIENT_ID, 8))
        self.loop.watch([QUEUE])

    def answer(self, reply: Any) -> Claim | None:
        """Answer the pending claim; the third item of its reply are the messages under the lease.

        All commands before it succeed, and a look finds nothing.
        """
        messages = reply[2] if isinstance(reply, list) and reply[0] else []
        return self.loop.receive([0] * (self.loop.pending_replies - 2) + [reply, messages])

    def claim(self, reply: Any) -> Claim | None:
        """Send a claim and answer it."""
        assert names_of(self.loop.next_commands())[-2] in _CALLS
        assert self.loop.state is State.SENT
        return self.answer(reply)

    def look(self, waiting: int = 0) -> list[str]:
        """Send a look without a claim, and answer it. Returns the names of its commands."""
        names = names_of(self.loop.next_commands())
        assert names[-2:] == ["PERSIST", "EXISTS"]
        assert self.loop.receive([0] * (self.loop.pending_replies - 1) + [waiting]) is None
        return names

    def claim_job(self) -> Claim:
        """Claim one job of the first list of the queue."""
        claim = self.claim([1, [1, 1], [b"job"], 0, 1_700_000_000_000, 0])
        assert claim is not None
        return claim

    def park(self) -> None:
        """Claim two jobs, then nothing, until a lease is parked and the loop sleeps."""
        self.claim_job()
        self.claim_job()
        self.claim(NOTHING)
        self.claim(PARKED)


def names_of(commands: list[Any]) -> list[str]:
    """Return the first word of each command."""
    return [str(command[0]) for command in commands]


def sleeping(*models: str) -> Harness:
    """Return a harness whose loop has found nothing and sleeps."""
    harness = Harness()
    harness.limits = [ClaimLimits(queue=f"predict.{model}", jobs=8, bytes=999) for model in models or ("churn",)]
    harness.loop.watch([limit.queue for limit in harness.limits])
    harness.claim(NOTHING)
    harness.look()
    assert harness.loop.next_commands() == []
    return harness


def queues_of(command: Any) -> list[str]:
    """Return the queues of a claim."""
    return list(command[3 + int(command[2]) + 8 :: 5])
