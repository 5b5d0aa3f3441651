"""Replay a trace of the model on a real Redis, with the worker's own scripts, and compare each state.

The model leaves the order of a list open. So before a claim, the jobs that the model claims are put in front.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import msgspec
import redis
from redis.connection import AbstractConnection

from headrace import Client
from headrace.connection.commands import execute, run
from headrace.dead_letters.replay import PreparedReplay
from headrace.dead_letters.scripts import replay_command
from headrace.results.cancellation import cancel
from headrace.wire.attempts import (
    REPLAY,
    Attempt,
    decode_queued_message,
    encode_delayed,
    encode_queued_message,
    select_source,
)
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage, attach_message, decode_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import (
    Failure,
    Prediction,
    Success,
    encode_outcome,
)
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed
from headrace_worker.transport.leases import Leases
from tests.model_check.redis_state import QUEUE, RedisState, is_of, job_name, list_jobs
from tests.model_check.traces import JobState, Step

_MODEL, _PRIORITY = "churn", 0
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ERROR = {"reason": "permanent", "error": "ValueError", "module": "builtins", "message": "no"}
#: Milliseconds of a lease, and of the delay of a retry: longer than a test. Both end when a step says so.
_LONG_MS = 3_600_000
#: Seconds in which Redis executes a BLMOVE that was sent.
_MAX_SECONDS = 20.0


class Difference(AssertionError):
    """A state of Redis that is not the state of the model."""


class Replay:
    """A Redis that follows the steps of the model. `url` is the Redis, which must be empty."""

    def __init__(self, url: str, workers: int = 2) -> None:
        self._client, self._keys = Client(url, check=False), Keys()
        self._db = redis.Redis.from_url(url)
        self._leases, self._state = Leases(self._db, self._keys), RedisState(self._db, self._keys)
        self._connections: list[AbstractConnection] = []
        for _ in range(workers):
            self._connections.append(self._connect())
        self._numbers = iter(range(1_000_000))
        #: By their number in the model: the leases, the parked lease of a worker, the message of a job.
        self._named: dict[int, Lease] = {}
        self._parked: dict[int, int] = {}
        self._messages: dict[int, bytes] = {}
        self._letters: dict[tuple[int, int], DeadLetterWithMessage] = {}

    def _connect(self) -> AbstractConnection:
        connection = self._db.connection_pool.make_connection()
        connection.connect()
        connection.send_command("CLIENT", "ID")
        connection.client_id = int(connection.read_response())
        return connection

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.disconnect()
        self._client.close()
        self._db.close()

    def follow(self, steps: Sequence[Step]) -> None:
        """Carry the steps out. Raises Difference at the first state that is another."""
        for position, step in enumerate(steps, start=1):
            operation: Callable[..., None] = getattr(self, f"_{step.name}")
            operation(**step.arguments)
            self._remember_letters(len(step.jobs))
            jobs = tuple(self._read_job(job) for job in range(len(step.jobs)))
            leases = tuple(self._state.read_lease(self._named.get(k), len(jobs)) for k in range(len(step.leases)))
            expected = tuple(
                # The attempts stand in the message: without one, nothing tells them.
                job if step.has_message(number) else msgspec.structs.replace(job, attempts=jobs[number].attempts)
                for number, job in enumerate(step.jobs)
            )
            if (jobs, leases) != (expected, step.leases):
                raise Difference(
                    f"step {position}, {step}: the model has {expected} {step.leases}, Redis {jobs} {leases}"
                )

    # --- producers and operators

    def _submit(self, job: int) -> None:
        self._client.submit(_MODEL, {"x": job}, id=job_name(job))

    def _cancel(self, job: int) -> None:
        run(partial(execute, self._db), cancel(self._keys, job_name(job), ttl=1000, now=_NOW))

    def _replay(self, job: int, death: int) -> None:
        letter = self._letters[job, death]
        history = [*letter.attempts, Attempt(cause=REPLAY, owner="a person", at_ms=1, claim_size=0)]
        prepared = PreparedReplay(
            letter=letter,
            source=select_source(history, _PRIORITY),
            queued_message=encode_queued_message(history, letter.payload),
            record=b"",
        )
        execute(self._db, replay_command(self._keys, [prepared], record_ttl=1000))

    # --- workers

    def _next_name(self) -> str:
        return f"owner/{next(self._numbers)}"

    def _claim(self, worker: int, lease: int, jobs: int, isolated: int, parked: int) -> None:
        claimed_jobs = list_jobs(jobs)
        first = self._put_in_front(claimed_jobs)
        limits = [ClaimLimits(queue=QUEUE, jobs=len(claimed_jobs), bytes=1 << 20)]
        claim = self._leases.claim(
            self._next_name(),
            limits,
            lease_ms=_LONG_MS,
            isolated="first" if isolated else "never",
            retried_first=first in self._keys.retried(QUEUE),
            parked=self._named.get(parked) if worker in self._parked else None,
        )
        if not isinstance(claim, Claim):
            raise Difference(f"a claim of jobs {claimed_jobs} found nothing")
        self._parked.pop(worker, None)
        self._named[lease] = claim.lease

    def _put_in_front(self, jobs: Sequence[int]) -> str:
        """Put these jobs where a claim takes from first. Return the list of the first one."""
        lists = [*self._keys.sources(QUEUE)]
        first = ""
        for job in reversed(jobs):
            for key in lists:
                for message in self._db.lrange(key, 0, -1):
                    if is_of(message, job):
                        self._db.lrem(key, 1, message)
                        self._db.rpush(key, message)
                        first = key
        return first

    def _park(self, worker: int, lease: int) -> None:
        if self._parked.get(worker) != lease:
            self._parked[worker] = lease
            name = self._next_name()
            self._named[lease] = Lease(name=name, queue=QUEUE, origins=((1, 1),), blocking=True)
        result = self._leases.claim(
            self._next_name(), [ClaimLimits(queue=QUEUE)], lease_ms=_LONG_MS, parked=self._named[lease]
        )
        if result != NothingClaimed((), parked=True):
            raise Difference(f"a lease was to be parked, and Redis replied {result}")

    def _blmove(self, worker: int, lease: int, waiting: int) -> None:
        """Send a BLMOVE, and wait until Redis has executed it. Unless `waiting`, its connection is closed."""
        connection = self._connections[worker]
        source, destination = self._keys.lists(QUEUE)[0], self._keys.lease(self._named[lease].name)
        connection.send_command("BLMOVE", source, destination, "RIGHT", "LEFT", 0)
        deadline = time.monotonic() + _MAX_SECONDS
        while not connection.can_read(0.002) and not self._is_blocked(connection):
            if time.monotonic() > deadline:
                raise Difference("Redis did not execute a BLMOVE")
        if not waiting:
            self._unblock(worker)

    def _is_blocked(self, connection: AbstractConnection) -> bool:
        (client,) = self._db.client_list(client_id=[str(connection.client_id)])
        return "b" in client["flags"]

    def _unblock(self, worker: int) -> None:
        """End the wait of a worker on a connection that it uses no more."""
        self._leases.unblock(self._connections[worker].client_id)
        self._connections[worker].disconnect()
        self._connections[worker] = self._connect()

    def _renew(self, worker: int, lease: int) -> None:
        self._leases.renew([self._named[lease]], lease_ms=_LONG_MS)

    def _publish(self, worker: int, lease: int, jobs: int, decisions: int) -> None:
        outcomes: dict[str, bytes] = {}
        letters: list[tuple[DeadLetter, bytes]] = []
        delayed: list[tuple[int, bytes]] = []
        for job in list_jobs(jobs):
            name = job_name(job)
            attempts, message = decode_queued_message(self._messages[job])
            match (decisions >> (2 * job)) & 3:
                case 1:
                    prediction = Prediction(model=_MODEL, version="1", predictions=[worker])
                    outcomes[name] = encode_outcome(Success(job=name, prediction=prediction), _NOW)
                case 2:
                    outcomes[name] = encode_outcome(Failure(job=name, **_ERROR), _NOW)
                    letter = DeadLetter(id=name, queue=QUEUE, worker=f"{worker}", attempts=attempts, **_ERROR)
                    letters.append((letter, message))
                case 3:
                    size = len(list_jobs(jobs))
                    history = [*attempts, Attempt(cause="error:OSError", owner="me", at_ms=1, claim_size=size)]
                    member = encode_delayed(
                        select_source(history, _PRIORITY), encode_queued_message(history, message)
                    )
                    delayed.append((_LONG_MS, member))
        self._leases.publish(self._named[lease], outcomes, ttl=1000, dead_letters=letters, delayed=delayed)
        self._parked.pop(worker, None)

    def _requeue(self, worker: int, lease: int) -> None:
        self._leases.requeue(self._named[lease])
        self._parked.pop(worker, None)

    def _isolate(self, worker: int, lease: int) -> None:
        self._leases.requeue_isolated(self._named[lease], "crash", owner="me")
        self._parked.pop(worker, None)

    def _crash(self, worker: int) -> None:
        self._parked.pop(worker, None)  # its connection is half open: Redis goes on as if nothing had happened

    # --- the clock and the keeper of the queues

    def _expire(self, lease: int) -> None:
        member, grace = self._named[lease].member, self._keys.grace(self._named[lease].name)
        extended_to = self._db.get(grace)
        moment = 2  # in the past, and no extension
        if extended_to and float(extended_to) == self._db.zscore(self._keys.leases, member):
            moment = 1
            self._db.set(grace, moment)
        self._db.zadd(self._keys.leases, {member: moment}, xx=True)

    def _sweep(self, lease: int) -> None:
        self._leases.requeue_isolated(self._named[lease], "lease_expired", owner="another", only_if_expired=True)

    def _move_due(self, job: int) -> None:
        delayed = self._keys.delayed(QUEUE)
        for member in self._db.zrange(delayed, 0, -1):
            if is_of(member, job):
                self._db.zadd(delayed, {member: 1})
        self._leases.move_due(QUEUE)

    # --- the state

    def _remember_letters(self, jobs: int) -> None:
        """Read new dead letters, as an operator does who replays them later."""
        for job in range(jobs):
            died_ms = self._db.zscore(self._keys.dead_times, job_name(job))
            deaths = [letter.died_ms for (number, _), letter in self._letters.items() if number == job]
            if died_ms is None or int(died_ms) in deaths:
                continue
            line = self._db.hget(self._keys.dead, job_name(job))
            letter = decode_letter(job_name(job), line, int(died_ms))
            payload = self._db.hget(self._keys.dead_messages, job_name(job))
            self._letters[job, len(deaths) + 1] = attach_message(letter, payload)
            time.sleep(0.002)  # the next death has another moment

    def _read_job(self, job: int) -> JobState:
        state, message = self._state.read_job(job)
        if message is not None:
            self._messages[job] = message
        return state
