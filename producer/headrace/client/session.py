"""A client's link to Redis: what it carries its plans out over, and waits for outcomes with."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import RedisError

from headrace.catalog.published import Contracts
from headrace.connection import connect
from headrace.connection.commands import (
    Command,
    PendingReply,
    Pipeline,
    Pipelined,
    PipelinedOperation,
    execute,
    run,
)
from headrace.connection.pipelined import PendingCommand
from headrace.connection.retry import RetryPolicy
from headrace.errors import ResultTimeout
from headrace.inspection.job import JobInspector, JobState
from headrace.results.direct import DirectSubscriberPool
from headrace.results.listener import OutcomeListener, Subscription
from headrace.settings import Settings
from headrace.submit.submitter import Submitter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace.wire.signing import JobKeys

T = TypeVar("T")

#: Seconds a Redis that is away is waited for by who has no time left.
FINAL_LOOKUP_TIMEOUT = 0.5


class Session:
    """Shared by a client and its handles; safe for threads and after fork."""

    def __init__(self, settings: Settings, *, check: bool) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        #: Where workers tell this client of outcomes (`Keys.inbox`).
        self.reply_channel = uuid.uuid4().hex
        self.job_keys = JobKeys.parse(settings.job_keys)
        self.contracts = Contracts(self.keys, settings.contract_ttl)
        self.submitter = Submitter(
            settings, self.keys, self.contracts, self.job_keys, inbox=self.reply_channel, check=check
        )
        self.inspector = JobInspector(self.keys)
        self._redis = connect.connect(settings, retries=0)  # patience is ours
        self._patience = RetryPolicy(settings.command_timeout)
        self.listener = OutcomeListener(self._redis, self.keys, settings, self.reply_channel)
        self.direct = DirectSubscriberPool(self._redis, self.keys, settings)

    def run(self, plan: PipelinedOperation[T], within: float | None = None) -> T:
        """Carry a plan out. While Redis is away a command is sent again, `within` seconds at the most.

        Raises BrokerUnavailable.
        """
        with connect.translate_errors(self.settings):
            return run(partial(self._ask, within), plan)

    def _ask(self, within: float | None, asked: Command | Pipeline | Pipelined | PendingReply) -> Any:
        if isinstance(asked, Pipelined):
            return PendingCommand(self._redis, asked.command)
        began, tries = time.monotonic(), 0
        while True:
            try:
                reply = asked.reply() if isinstance(asked, PendingReply) else execute(self._redis, asked)
            except RedisError as error:
                if isinstance(asked, PendingReply):
                    asked = asked.command
                tries += 1
                rest = self._patience.next_delay(
                    error, tries=tries, elapsed=time.monotonic() - began, timeout=within
                )
                if rest is None:
                    raise
                connect.close_idle(self._redis)
                time.sleep(rest)
            else:
                self._patience.succeeded()
                return reply

    def outcome(self, job: str, timeout: float | None) -> Outcome:
        """Wait for the outcome of a job. Raises ResultTimeout, and BrokerUnavailable where Redis was away."""
        with self.listener.subscribe([job]) as watch:
            return self.receive_outcome(watch, job, timeout, given=timeout)

    def receive_outcome(
        self, watch: Subscription, job: str, timeout: float | None, *, given: float | None
    ) -> Outcome:
        """The outcome a watch of one job brings. `given` is the time the caller spoke of."""
        arrived = watch.next(timeout)
        if arrived is not None:
            return arrived[1]
        return self.read_outcome(job, given or 0.0)

    def read_outcome(self, job: str, given: float) -> Outcome:
        """The outcome that is there when time is up, or the error that says why there is none."""
        if self.listener.error is not None:
            raise self.listener.error
        known = self.run(self.inspector.read_state(job), within=FINAL_LOOKUP_TIMEOUT)
        if known.outcome is None:
            raise job_timeout(known, given)
        return known.outcome

    def close(self) -> None:
        """End the waiting and the connections."""
        self.listener.close()
        self.direct.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()


def jobs_timeout(waited_for: set[str], count: int, timeout: float) -> ResultTimeout:
    """The error of a wait for several jobs that took too long."""
    first = ", ".join(sorted(waited_for)[:3])
    more = ", ..." if len(waited_for) > 3 else ""
    return ResultTimeout(
        f"{len(waited_for)} of {count} jobs have no outcome after {timeout:g} s ({first}{more}); "
        "they go on: is a worker running? See `headrace queues`"
    )


def job_timeout(known: JobState, timeout: float) -> ResultTimeout:
    """The error of a wait that took too long; it says what to look at."""
    advice = {
        "unknown": "Redis knows no such job: look at the id, the Redis URL and the key prefix",
        "queued": "is a worker running? See `headrace queues`",
        "running": "a worker is at it; ask again",
    }.get(known.status, "ask again")
    return ResultTimeout(f"job {known.job} has no outcome after {timeout:g} s; it is {known.status}: {advice}")
