"""The jobs of a run as they are enqueued: the record and the message."""

from __future__ import annotations

import msgspec

from headrace.wire.bulk import (
    CHUNK_PRIORITY,
    PLAN_PRIORITY,
    ChunkStep,
    FinishStep,
    Step,
    job_of_chunk,
    job_of_finish,
)
from headrace.wire.message import Job, build_template
from headrace.wire.record import Record, digest_arguments
from headrace.wire.signing import JobKeys
from headrace_worker.transport.run_script import NewJob


def make_chunk_job(model: str, step: ChunkStep, keys: JobKeys | None, *, now_ms: int) -> NewJob:
    """Return the job of a chunk of a run, signed if there are keys."""
    return _encode(_make_job(job_of_chunk(step), model, step, CHUNK_PRIORITY), step, keys, now_ms)


def make_finish_job(model: str, run: str, round_: int, keys: JobKeys | None, *, now_ms: int) -> NewJob:
    """Return the job that finishes a run, signed if there are keys."""
    step = FinishStep(run=run)
    return _encode(_make_job(job_of_finish(run, round_), model, step, PLAN_PRIORITY), step, keys, now_ms)


def digest_step(model: str, step: Step) -> bytes:
    """Return the digest in the record of the job of a step."""
    content = msgspec.json.encode(step)
    return digest_arguments(model, getattr(step, "version", None), getattr(step, "method", None), content)


def _make_job(job: str, model: str, step: ChunkStep | FinishStep, priority: int) -> Job:
    return Job(id=job, model=model, instances=[], priority=priority, step=step)


def _encode(job: Job, step: ChunkStep | FinishStep, keys: JobKeys | None, now_ms: int) -> NewJob:
    record = Record(model=job.model, submitted_ms=now_ms, is_bulk=True)
    message = build_template(job, keys).render(job.id, msgspec.json.encode(step))
    return NewJob(job.id, digest_step(job.model, step) + msgspec.json.encode(record), message)
