"""Submit jobs: check instances against the contract, encode the jobs, enqueue them, confirm that they are durable.

The blocking client and the asyncio client run these operations; every decision is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice, repeat
from math import ceil
from typing import Any

from redis.exceptions import RedisError

from headrace.catalog.published import ContractCache
from headrace.connection.commands import Operation, PipelinedOperation
from headrace.connection.grouped import MAX_BYTES
from headrace.errors import HeadraceError, InvalidInput
from headrace.settings import Settings
from headrace.submit import durability
from headrace.submit.enqueue import JOBS_PER_CALL, Enqueuer, encode_instances_within
from headrace.submit.options import SubmitOptions
from headrace.submit.pipeline import FindLost, SubmissionPipeline
from headrace.submit.routing import Router
from headrace.submit.tracing import trace_submit
from headrace.wire.columns import Columns
from headrace.wire.job_encoder import EncodedJob, JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.limits import JobLimits
from headrace.wire.message import new_id
from headrace.wire.names import check_job_id
from headrace.wire.signing import JobKeys

#: The most enqueuers that are kept.
_MAX_ENQUEUERS = 256


class Submitter:
    """Submits the jobs of one client.

    `contracts` are those the client has read; `reply_channel` is the client's own. `find_lost` finds those
    lost among jobs that are submitted again.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        contracts: ContractCache,
        job_keys: JobKeys | None,
        *,
        reply_channel: str,
        find_lost: FindLost,
        check: bool,
    ) -> None:
        self._find_lost = find_lost
        self._settings, self._keys, self._job_keys, self._reply_channel = settings, keys, job_keys, reply_channel
        self._limits = JobLimits(settings.max_job_bytes, settings.max_job_values)
        self._router = Router(contracts, check=check)
        #: By options, version, number of instances and reply channel.
        self._enqueuers: dict[tuple[SubmitOptions, str | None, int, str], Enqueuer] = {}

    def submit(
        self,
        options: SubmitOptions,
        instances: Sequence[Any],
        job: str | None,
        now: datetime,
        reply_channel: str | None = None,
    ) -> Operation[str]:
        """Enqueue one job and return its id; None for `job` makes a new id.

        The outcome is also announced on `reply_channel`; None is the client's own.
        """
        submitted_ms = None if job is None else _milliseconds(now)
        job = new_id() if job is None else check_job_id(job)
        version, checked = yield from self._router.route(options, job, instances, now)
        encoded = encode_instances_within(checked, self._limits)
        guarantee = (yield from self._available_guarantee()) if options.durable else None
        with trace_submit(options.model, 1, job) as trace:
            reply_to = reply_channel or self._reply_channel
            enqueuer = self._find_enqueuer(options, version, checked, reply_to, trace, now=now)
            jobs = [enqueuer.encoder.encode(job, encoded)]
            results = yield enqueuer.command(jobs, submitted_ms)
            if any(results):  # it is not simply new
                yield from self._make_pipeline(submitted_ms).accept(enqueuer, jobs, results)
        if guarantee is not None:
            yield from durability.confirm([job], guarantee, self._keys, self._settings)
        return job

    def _find_enqueuer(
        self,
        options: SubmitOptions,
        version: str | None,
        instances: Sequence[Any],
        reply_to: str,
        trace: dict[str, str] | None,
        *,
        now: datetime,
    ) -> Enqueuer:
        """Return what enqueues jobs with as many instances. One that may serve other calls too is kept."""
        is_kept = trace is None and options.is_timeless and not isinstance(instances, Columns)
        name = (options, version, len(instances), reply_to)
        if is_kept:
            if (enqueuer := self._enqueuers.get(name)) is not None:
                return enqueuer
            instances = [None] * len(instances)  # a template that is kept must not keep a caller's instances
        template = options.make_job("", version, instances, reply_to, trace)
        delay = 0 if options.eta is None else max(0, ceil((options.eta - now).total_seconds()))
        enqueuer = Enqueuer(
            self._keys,
            JobEncoder(template, options.version, self._job_keys),
            queue_limit=self._settings.queue_limit,
            listen_limit=self._settings.listen_limit,
            record_ttl=self._settings.job_ttl + delay,
        )
        if is_kept:
            if len(self._enqueuers) >= _MAX_ENQUEUERS:
                self._enqueuers.clear()
            self._enqueuers[name] = enqueuer
        return enqueuer

    def submit_many(
        self, options: SubmitOptions, instances: Iterable[Any], ids: Iterable[str] | None, now: datetime
    ) -> PipelinedOperation[list[str]]:
        """Enqueue a job for each instance and return their ids in order; None for `ids` makes new ids.

        A list is checked as a whole before anything is enqueued; an iterator is checked chunk by chunk.
        """
        chunks: Iterable[list[Any]] = _chunks(instances)
        if isinstance(instances, list):
            ids = _check_ids(ids, len(instances))
            chunks = [instances] if instances else []
        remaining_ids, submitted_ms = _iterate_ids(ids), None if ids is None else _milliseconds(now)
        submitted: list[str] = []
        pipeline = self._make_pipeline(submitted_ms)
        guarantee = (yield from self._available_guarantee()) if options.durable else None
        try:
            for chunk in chunks:
                jobs = list(islice(remaining_ids, len(chunk)))
                if len(jobs) < len(chunk):
                    raise InvalidInput("there are fewer `ids` than instances")
                groups = yield from self._router.route_many(options, jobs, chunk, len(submitted), now)
                # All are encoded before the first is sent: an instance that cannot be sent refuses the chunk.
                encoded = [
                    [encode_instances_within([instance], self._limits) for instance in group.instances]
                    for group in groups
                ]
                with trace_submit(options.model, len(chunk)) as trace:
                    for group, group_instances in zip(groups, encoded, strict=True):
                        enqueuer = self._find_enqueuer(
                            options, group.version, [None], self._reply_channel, trace, now=now
                        )
                        group_jobs = [jobs[index] for index in group.indexes]
                        for call in _calls(enqueuer.encoder, group_jobs, group_instances):
                            yield from pipeline.send(enqueuer, call)
                submitted += jobs
            yield from pipeline.finish()
            if ids is not None and next(remaining_ids, None) is not None:
                raise InvalidInput("there are more `ids` than instances")
        except (HeadraceError, RedisError) as error:
            with suppress(HeadraceError, RedisError):
                yield from pipeline.finish()
            if pipeline.accepted:
                error.add_note(f"{len(pipeline.accepted)} jobs of the same call were enqueued before")
            raise
        finally:
            pipeline.drop()
        if guarantee is not None and pipeline.accepted:
            yield from durability.confirm(pipeline.accepted, guarantee, self._keys, self._settings)
        return submitted

    def _available_guarantee(self) -> Operation[durability.DurabilityGuarantee]:
        return durability.available_guarantee(self._settings, self._keys)

    def _make_pipeline(self, submitted_ms: int | None) -> SubmissionPipeline:
        return SubmissionPipeline(self._keys, self._settings, submitted_ms, find_lost=self._find_lost)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _check_ids(ids: Iterable[str] | None, count: int) -> list[str] | None:
    if ids is None:
        return None
    jobs = list(ids)
    if len(jobs) != count:
        raise InvalidInput(f"there are {len(jobs)} `ids` for {count} instances")
    for job in jobs:
        check_job_id(job)
    return jobs


def _iterate_ids(ids: Iterable[str] | None) -> Iterator[str]:
    return (new_id() for _ in repeat(None)) if ids is None else (check_job_id(job) for job in ids)


def _chunks(instances: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(instances)
    while chunk := list(islice(iterator, JOBS_PER_CALL)):
        yield chunk


def _calls(encoder: JobEncoder, jobs: Iterable[str], instances: Iterable[bytes]) -> Iterator[list[EncodedJob]]:
    """Encode jobs and yield lists of them that are small enough for one call of the enqueue script."""
    call: list[EncodedJob] = []
    size = 0
    for job, instance in zip(jobs, instances, strict=True):
        call.append(encoder.encode(job, instance))
        size += len(call[-1].message)
        if len(call) >= JOBS_PER_CALL or size >= MAX_BYTES:
            yield call
            call, size = [], 0
    if call:
        yield call
