"""What a producer does, as plans: check against the contract, enqueue, look, cancel.

`Client` and `AsyncClient` carry these plans out; everything that is decided is decided here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice, repeat
from typing import Any

import msgspec
from redis.exceptions import RedisError, ResponseError

from headrace.catalog import published
from headrace.catalog.aliases import is_version
from headrace.catalog.contract import Contract
from headrace.catalog.published import Contracts
from headrace.connection.commands import Command, Plan, PlanAhead, Script, Together
from headrace.errors import HeadraceError, InvalidInput, ResultTimeout
from headrace.inspection import queues
from headrace.inspection.locate import Whereabouts, may_not_look
from headrace.inspection.queues import QueueDepth
from headrace.inspection.timeline import Known, Timeline, timeline
from headrace.results import publish
from headrace.settings import Settings
from headrace.submit import durability, enqueue
from headrace.submit.enqueue import Packed, Packer
from headrace.submit.options import Asked
from headrace.submit.pipeline import Submission
from headrace.submit.routing import Routing
from headrace.submit.tracing import submitting
from headrace.wire import dead_letter, execution, outcome
from headrace.wire.execution import Ended
from headrace.wire.keys import Keys, check_job_id
from headrace.wire.message import new_id
from headrace.wire.outcome import Cancelled, Outcome, Status, status_of
from headrace.wire.signing import JobKeys

#: Bytes of messages one call of the enqueueing script takes, beside the `enqueue.CHUNK` jobs.
_CHUNK_BYTES = 1024 * 1024

#: Seconds after a cancellation in which workers look for jobs cancelled while they waited.
_LOOKED_FOR = 86_400

_PUBLISH = Script(publish.SCRIPT)
_LOOK = Script("return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis knows of a job at one moment."""

    job: str
    model: str | None
    status: Status
    outcome: Outcome | None


class Producer:
    """The plans of one client: its settings, and the contracts it has read."""

    def __init__(self, settings: Settings, *, check: bool) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        #: Where workers tell this client of outcomes (`Keys.inbox`).
        self.inbox = uuid.uuid4().hex
        self.job_keys = JobKeys.of(settings.job_keys)
        self._contracts = Contracts(self.keys, settings.contract_ttl)
        self._routing = Routing(self._contracts, check=check)

    def submit(
        self, asked: Asked, instances: list[Any], job: str | None, now: datetime, inbox: str | None = None
    ) -> Plan[str]:
        """Enqueue one job; its id. Its outcome is told to an inbox, this client's unless another is named."""
        told = None if job is None else now
        job = new_id() if job is None else check_job_id(job)
        version, checked = yield from self._routing.one(asked, job, instances, now)
        encoded = enqueue.encoded(checked, self.settings.max_job_bytes)
        safety = (yield from durability.offered(self.settings)) if asked.durable else None
        with submitting(asked.model, 1, job) as trace:
            like = asked.job(job, version, checked, inbox or self.inbox, trace)
            packer = Packer(like, asked.version, self.job_keys)
            yield from Submission(self.keys, self.settings, told).one(packer, packer.pack(job, encoded))
        if safety is not None:
            yield from durability.confirm([job], safety, self.keys, self.settings)
        return job

    def submit_many(
        self, asked: Asked, instances: Iterable[Any], jobs: Iterable[str] | None, now: datetime
    ) -> PlanAhead[list[str]]:
        """Enqueue a job for each instance; their ids in order.

        A list is checked as a whole before anything is enqueued; of an iterator, each chunk is.
        """
        limit = self.settings.max_job_bytes
        parts: Iterable[list[Any]] = _chunks(instances)
        if isinstance(instances, list):
            jobs = _as_many(jobs, len(instances))
            parts = [instances] if instances else []
        names, told = _names(jobs), None if jobs is None else now
        called: list[str] = []
        submission = Submission(self.keys, self.settings, told)
        safety = (yield from durability.offered(self.settings)) if asked.durable else None
        try:
            for part in parts:
                ids = list(islice(names, len(part)))
                if len(ids) < len(part):
                    raise InvalidInput("there are fewer `ids` than instances")
                shares = yield from self._routing.many(asked, ids, part, len(called), now)
                encoded = [[enqueue.encoded([one], limit) for one in share.instances] for share in shares]
                with submitting(asked.model, len(part)) as trace:
                    for share, instances_of_it in zip(shares, encoded, strict=True):
                        like = asked.job("", share.version, [None], self.inbox, trace)
                        packer = Packer(like, asked.version, self.job_keys)
                        for packed in _packed(packer, [ids[place] for place in share.places], instances_of_it):
                            yield from submission.send(packer, packed)
                called += ids
            yield from submission.settle()
            if jobs is not None and next(names, None) is not None:
                raise InvalidInput("there are more `ids` than instances")
        except (HeadraceError, RedisError) as error:
            with suppress(HeadraceError, RedisError):
                yield from submission.settle()
            if submission.accepted:
                error.add_note(f"{len(submission.accepted)} jobs of the same call were enqueued before")
            raise
        finally:
            submission.drop()
        if safety is not None and submission.accepted:
            yield from durability.confirm(submission.accepted, safety, self.keys, self.settings)
        return called

    def look(self, job: str) -> Plan[Seen]:
        """What is known of a job."""
        stored, record = yield _LOOK([self.keys.result(job), self.keys.job(job)])
        return seen(job, stored, enqueue.record_of(record).m if record else None)

    def explain(self, job: str) -> Plan[Timeline]:
        """What became of a job."""
        known = yield from self._known(job)
        if known.outcome is not None or known.letter is not None:
            return timeline(known)
        models = [known.record.m] if known.record else (yield from self.models())
        earliest = known.record.e if known.record else None
        try:
            place = yield from Whereabouts(self.keys, job, known.submitted_ms, earliest).find(models)
        except ResponseError as error:
            if not may_not_look(error):
                raise
            return timeline(msgspec.structs.replace(known, looked=False))
        if place is None:  # it may have ended while it was looked for
            known = yield from self._known(job)
        return timeline(msgspec.structs.replace(known, place=place))

    def _known(self, job: str) -> Plan[Known]:
        keys = self.keys
        commands = (
            ("GET", keys.result(job)),
            ("GET", keys.job(job)),
            ("HGET", keys.dead, job),
            ("ZSCORE", keys.died, job),
        )
        # What this user may not read is not told.
        stored, record, line, died = (
            None if isinstance(reply, RedisError) else reply for reply in (yield Together(commands))
        )
        return Known(
            job=job,
            record=enqueue.record_of(record) if record else None,
            outcome=outcome.read(job, stored) if stored else None,
            ended=execution.ended(stored) if stored else Ended(),
            letter=dead_letter.read(job, line, int(float(died))) if line and died else None,
        )

    def cancel(self, job: str, now: datetime) -> Plan[bool]:
        """Cancel a job unless it has an outcome; whether it is cancelled now."""
        # First, so that a worker which claims the job from now on looks whether it has an outcome.
        yield Command(("SET", self.keys.cancelled, 1, "EX", _LOOKED_FOR))
        names, values = publish.call(self.keys, [Cancelled(job=job)], ttl=self.settings.result_ttl, now=now)
        replies = yield _PUBLISH(names, values)
        if replies[0]:
            return True
        # Cancelled before, perhaps by this very call, whose reply was lost.
        known = yield from self.look(job)
        return known.status == "cancelled"

    def contract(self, model: str, version: str | None, now: datetime) -> Plan[Contract]:
        """The contract of a version, by its number or an alias, or of the newest."""
        if version is not None and not is_version(version):
            alias = (yield from self._contracts.aliases(model, now.timestamp())).by_name.get(version)
            version = version if alias is None else alias.version
        return (yield from self._contracts.get(model, version, now.timestamp(), again=True))

    def models(self) -> Plan[list[str]]:
        """The models that have a contract."""
        return published.listed((yield published.every(self.keys)))

    def queues(self) -> Plan[list[QueueDepth]]:
        """What waits and what is under way of every model that has a contract."""
        models = yield from self.models()
        if not models:
            return []
        measured = yield queues.lengths(self.keys, models)
        leases = yield from queues.held(self.keys)
        return queues.depths(models, measured, leases)


def seen(job: str, stored: bytes | None, model: str | None) -> Seen:
    """A job by its result key and the model in its record, None where there is none."""
    ended = outcome.read(job, stored) if stored else None
    status: Status = "unknown"
    if ended is not None:
        status = status_of(ended)
    elif stored is not None and b"STARTED" in stored[:64]:
        status = "running"
    elif stored is not None or model is not None:
        status = "queued"
    return Seen(job=job, model=model, status=status, outcome=ended)


def out_of_time(known: Seen, timeout: float) -> ResultTimeout:
    """The error of a wait that took too long; it says what to look at."""
    advice = {
        "unknown": "Redis knows no such job: look at the id, the Redis URL and the key prefix",
        "queued": "is a worker running? See `headrace queues`",
        "running": "a worker is at it; ask again",
    }.get(known.status, "ask again")
    return ResultTimeout(f"job {known.job} has no outcome after {timeout:g} s; it is {known.status}: {advice}")


def _as_many(jobs: Iterable[str] | None, count: int) -> list[str] | None:
    if jobs is None:
        return None
    names = list(jobs)
    if len(names) != count:
        raise InvalidInput(f"there are {len(names)} `ids` for {count} instances")
    for name in names:
        check_job_id(name)
    return names


def _names(jobs: Iterable[str] | None) -> Iterator[str]:
    return (new_id() for _ in repeat(None)) if jobs is None else (check_job_id(job) for job in jobs)


def _chunks(instances: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(instances)
    while part := list(islice(iterator, enqueue.CHUNK)):
        yield part


def _packed(packer: Packer, jobs: Iterable[str], instances: Iterable[bytes]) -> Iterator[list[Packed]]:
    """Jobs in chunks small enough for one call of the script."""
    chunk: list[Packed] = []
    size = 0
    for job, instance in zip(jobs, instances, strict=True):
        chunk.append(packer.pack(job, instance))
        size += len(chunk[-1].message)
        if len(chunk) >= enqueue.CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
