"""Submit jobs: check instances against the contract, encode the jobs, enqueue them, confirm that they are durable.

`Client` and `AsyncClient` run these operations; every decision is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice, repeat
from typing import Any

from redis.exceptions import RedisError

from headrace.catalog.published import Contracts
from headrace.connection.commands import Operation, PipelinedOperation
from headrace.errors import HeadraceError, InvalidInput
from headrace.settings import Settings
from headrace.submit import durability, enqueue
from headrace.submit.enqueue import EncodedJob, JobEncoder
from headrace.submit.options import SubmitOptions
from headrace.submit.pipeline import SubmissionPipeline
from headrace.submit.routing import Router
from headrace.submit.tracing import submitting
from headrace.wire.keys import Keys, check_job_id
from headrace.wire.message import new_id
from headrace.wire.signing import JobKeys

#: Bytes of messages one call of the enqueueing script takes, beside the `enqueue.CHUNK` jobs.
_CHUNK_BYTES = 1024 * 1024


class Submitter:
    """Submits the jobs of one client. `contracts` are those the client has read; `inbox` is its own."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        contracts: Contracts,
        job_keys: JobKeys | None,
        *,
        inbox: str,
        check: bool,
    ) -> None:
        self._settings, self._keys, self._job_keys, self._inbox = settings, keys, job_keys, inbox
        self._routing = Router(contracts, check=check)

    def submit(
        self, asked: SubmitOptions, instances: list[Any], job: str | None, now: datetime, inbox: str | None = None
    ) -> Operation[str]:
        """Enqueue one job; its id. Its outcome is told to an inbox, this client's unless another is named."""
        told = None if job is None else now
        job = new_id() if job is None else check_job_id(job)
        version, checked = yield from self._routing.route(asked, job, instances, now)
        encoded = enqueue.encode_instances_within(checked, self._settings.max_job_bytes)
        safety = (yield from durability.available_guarantee(self._settings)) if asked.durable else None
        with submitting(asked.model, 1, job) as trace:
            like = asked.job(job, version, checked, inbox or self._inbox, trace)
            packer = JobEncoder(like, asked.version, self._job_keys)
            yield from SubmissionPipeline(self._keys, self._settings, told).send_one(
                packer, packer.encode(job, encoded)
            )
        if safety is not None:
            yield from durability.confirm([job], safety, self._keys, self._settings)
        return job

    def submit_many(
        self, asked: SubmitOptions, instances: Iterable[Any], jobs: Iterable[str] | None, now: datetime
    ) -> PipelinedOperation[list[str]]:
        """Enqueue a job for each instance; their ids in order.

        A list is checked as a whole before anything is enqueued; of an iterator, each chunk is.
        """
        limit = self._settings.max_job_bytes
        parts: Iterable[list[Any]] = _chunks(instances)
        if isinstance(instances, list):
            jobs = _as_many(jobs, len(instances))
            parts = [instances] if instances else []
        names, told = _names(jobs), None if jobs is None else now
        called: list[str] = []
        submission = SubmissionPipeline(self._keys, self._settings, told)
        safety = (yield from durability.available_guarantee(self._settings)) if asked.durable else None
        try:
            for part in parts:
                ids = list(islice(names, len(part)))
                if len(ids) < len(part):
                    raise InvalidInput("there are fewer `ids` than instances")
                shares = yield from self._routing.route_many(asked, ids, part, len(called), now)
                encoded = [
                    [enqueue.encode_instances_within([one], limit) for one in share.instances] for share in shares
                ]
                with submitting(asked.model, len(part)) as trace:
                    for share, instances_of_it in zip(shares, encoded, strict=True):
                        like = asked.job("", share.version, [None], self._inbox, trace)
                        packer = JobEncoder(like, asked.version, self._job_keys)
                        for packed in _packed(packer, [ids[place] for place in share.indexes], instances_of_it):
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
            yield from durability.confirm(submission.accepted, safety, self._keys, self._settings)
        return called


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


def _packed(packer: JobEncoder, jobs: Iterable[str], instances: Iterable[bytes]) -> Iterator[list[EncodedJob]]:
    """Jobs in chunks small enough for one call of the script."""
    chunk: list[EncodedJob] = []
    size = 0
    for job, instance in zip(jobs, instances, strict=True):
        chunk.append(packer.encode(job, instance))
        size += len(chunk[-1].message)
        if len(chunk) >= enqueue.CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
