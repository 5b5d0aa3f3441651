"""A client's link to Redis: what it carries its plans out over, and waits for outcomes with."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import RedisError

from headrace.catalog.published import Contracts
from headrace.connection import connect
from headrace.connection.commands import Command, Early, PlanAhead, Sent, Together, ask, carry_out
from headrace.connection.pipelined import SentOver
from headrace.connection.retry import Patience
from headrace.errors import ResultTimeout
from headrace.inspection.job import JobInspector, Seen
from headrace.results.direct import Lines
from headrace.results.listener import Waiting, Watch
from headrace.settings import Settings
from headrace.submit.submitter import Submitter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace.wire.signing import JobKeys

T = TypeVar("T")

#: Seconds a Redis that is away is waited for by who has no time left.
A_MOMENT = 0.5


class Link:
    """Shared by a client and its handles; safe for threads and after fork."""

    def __init__(self, settings: Settings, *, check: bool) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        #: Where workers tell this client of outcomes (`Keys.inbox`).
        self.inbox = uuid.uuid4().hex
        self.job_keys = JobKeys.of(settings.job_keys)
        self.contracts = Contracts(self.keys, settings.contract_ttl)
        self.submitter = Submitter(
            settings, self.keys, self.contracts, self.job_keys, inbox=self.inbox, check=check
        )
        self.inspector = JobInspector(self.keys)
        self._redis = connect.connect(settings, retries=0)  # patience is ours
        self._patience = Patience(settings.command_timeout)
        self.waiting = Waiting(self._redis, self.keys, settings, self.inbox)
        self.lines = Lines(self._redis, self.keys, settings)

    def do(self, plan: PlanAhead[T], within: float | None = None) -> T:
        """Carry a plan out. While Redis is away a command is sent again, `within` seconds at the most.

        Raises BrokerUnavailable.
        """
        with connect.guarded(self.settings):
            return carry_out(partial(self._ask, within), plan)

    def _ask(self, within: float | None, asked: Command | Together | Early | Sent) -> Any:
        if isinstance(asked, Early):
            return SentOver(self._redis, asked.command)
        began, tries = time.monotonic(), 0
        while True:
            try:
                reply = asked.reply() if isinstance(asked, Sent) else ask(self._redis, asked)
            except RedisError as error:
                if isinstance(asked, Sent):
                    asked = asked.command
                tries += 1
                rest = self._patience.rest(error, tries=tries, since=time.monotonic() - began, within=within)
                if rest is None:
                    raise
                connect.drop_idle(self._redis)
                time.sleep(rest)
            else:
                self._patience.heard()
                return reply

    def outcome(self, job: str, timeout: float | None) -> Outcome:
        """Wait for the outcome of a job. Raises ResultTimeout, and BrokerUnavailable where Redis was away."""
        with self.waiting.watch([job]) as watch:
            return self.next_of(watch, job, timeout, given=timeout)

    def next_of(self, watch: Watch, job: str, timeout: float | None, *, given: float | None) -> Outcome:
        """The outcome a watch of one job brings. `given` is the time the caller spoke of."""
        arrived = watch.next(timeout)
        if arrived is not None:
            return arrived[1]
        return self.last_look(job, given or 0.0)

    def last_look(self, job: str, given: float) -> Outcome:
        """The outcome that is there when time is up, or the error that says why there is none."""
        if self.waiting.trouble is not None:
            raise self.waiting.trouble
        known = self.do(self.inspector.look(job), within=A_MOMENT)
        if known.outcome is None:
            raise out_of_time(known, given)
        return known.outcome

    def close(self) -> None:
        """End the waiting and the connections."""
        self.waiting.close()
        self.lines.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()


def some_left(waited_for: set[str], count: int, timeout: float) -> ResultTimeout:
    """The error of a wait for several jobs that took too long."""
    first = ", ".join(sorted(waited_for)[:3])
    more = ", ..." if len(waited_for) > 3 else ""
    return ResultTimeout(
        f"{len(waited_for)} of {count} jobs have no outcome after {timeout:g} s ({first}{more}); "
        "they go on: is a worker running? See `headrace queues`"
    )


def out_of_time(known: Seen, timeout: float) -> ResultTimeout:
    """The error of a wait that took too long; it says what to look at."""
    advice = {
        "unknown": "Redis knows no such job: look at the id, the Redis URL and the key prefix",
        "queued": "is a worker running? See `headrace queues`",
        "running": "a worker is at it; ask again",
    }.get(known.status, "ask again")
    return ResultTimeout(f"job {known.job} has no outcome after {timeout:g} s; it is {known.status}: {advice}")
