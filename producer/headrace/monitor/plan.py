"""The workers that each model has, and the workers it needs for a wait, from what was measured or is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from headrace.catalog.pauses import Pause
from headrace.catalog.workers import WorkerStatus, decode_loaded, read_loaded
from headrace.connection.commands import Operation, Pipeline
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import ModelActivity
from headrace.monitor.capacity import count_needed_processes
from headrace.monitor.overview import Overview
from headrace.wire.keys import Keys


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """Values that a person gives in place of measured ones. None is measured."""

    #: Seconds that a job may wait.
    wait: float
    #: Jobs that come in a second, and jobs that one pool process runs in a second.
    arrivals_per_second: float | None = None
    rate_per_process: float | None = None
    #: Pool processes of a worker.
    processes_per_worker: int | None = None


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that a model has and needs. None is not measured."""

    model: str
    #: The jobs that want a worker now.
    backlog: int
    #: Jobs that came in a second, those that run again included.
    arrivals_per_second: float | None
    #: Jobs that one pool process ran in a second of its time.
    rate_per_process: float | None
    #: The workers that have the model in memory, and the pool processes of one, on average.
    workers: int
    processes_per_worker: float | None
    processes_needed: int | None
    workers_needed: int | None
    paused: Pause | None = None


def read_workers(keys: Keys, models: Sequence[str]) -> Operation[dict[str, list[WorkerStatus]]]:
    """Read the workers that have each model in memory."""
    reads = [read_loaded(keys, model) for model in models]
    time_reply, *replies = yield Pipeline((READ_SERVER_TIME, *reads))
    for reply in (time_reply, *replies):
        if isinstance(reply, Exception):
            raise reply
    now_ms = decode_server_time(time_reply)
    return {
        model: [status for status in decode_loaded(model, reply, now_ms).values() if status.versions]
        for model, reply in zip(models, replies, strict=True)
    }


def plan_models(
    before: Overview, after: Overview, workers: Mapping[str, Sequence[WorkerStatus]], assumptions: Assumptions
) -> list[ModelPlan]:
    """Return the plan of each model of `workers`, from two overviews and the events counted between them.

    Raises InvalidInput if the numbers lead to more processes than anybody has.
    """
    seconds = after.unix_seconds - before.unix_seconds
    earlier = {depth.model: depth for depth in before.queues if not depth.is_bulk}
    activities = None if after.models is None else {activity.model: activity for activity in after.models}
    plans = []
    for depth in after.queues:
        if depth.model not in workers or depth.is_bulk:
            continue
        arrivals = rate = None
        if activities is not None:
            activity = activities.get(depth.model)
            arrivals = estimate_arrivals(earlier.get(depth.model), depth, activity, seconds)
            rate = estimate_rate(activity)
        plans.append(_plan_model(depth, arrivals, rate, workers[depth.model], assumptions))
    return plans


def estimate_arrivals(
    before: QueueDepth | None, after: QueueDepth, activity: ModelActivity | None, seconds: float
) -> float | None:
    """Return the jobs that came in a second: those that left the queue, and those by which it grew.

    None if no time has passed. A job that is retried comes again.
    """
    if before is None or seconds <= 0:
        return None
    left = 0.0
    if activity is not None:
        left = activity.succeeded_per_second + activity.failed_per_second
        left += activity.retried_per_second + activity.revoked_per_second
    return max(0.0, left + (_count_present(after) - _count_present(before)) / seconds)


def _count_present(depth: QueueDepth) -> int:
    """Return the jobs of a queue that are not delayed; other than in the backlog, a pause makes no difference."""
    return msgspec.structs.replace(depth, paused=None).backlog


def estimate_rate(activity: ModelActivity | None) -> float | None:
    """Return the jobs that a pool process ran in a second of its time; None if none ran."""
    if activity is None or not activity.busy_processes:
        return None
    return (activity.succeeded_per_second + activity.failed_per_second) / activity.busy_processes or None


def _plan_model(
    depth: QueueDepth,
    arrivals: float | None,
    rate: float | None,
    workers: Sequence[WorkerStatus],
    assumptions: Assumptions,
) -> ModelPlan:
    if assumptions.arrivals_per_second is not None:
        arrivals = assumptions.arrivals_per_second
    if assumptions.rate_per_process is not None:
        rate = assumptions.rate_per_process
    per_worker: float | None = assumptions.processes_per_worker
    if per_worker is None and (counts := [status.processes for status in workers if status.processes]):
        per_worker = sum(counts) / len(counts)
    processes = None
    if arrivals is not None and rate is not None:
        processes = count_needed_processes(
            backlog=depth.backlog, arrivals=arrivals, rate=rate, wait=assumptions.wait
        )
    elif arrivals == 0 and not depth.backlog:
        processes = 0  # at any rate
    return ModelPlan(
        model=depth.model,
        backlog=depth.backlog,
        arrivals_per_second=arrivals,
        rate_per_process=rate,
        workers=len(workers),
        processes_per_worker=per_worker,
        processes_needed=processes,
        workers_needed=None if processes is None or not per_worker else math.ceil(processes / per_worker),
        paused=depth.paused,
    )
