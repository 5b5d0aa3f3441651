"""The jobs of all faces: submit one, wait for it, read it.

A face translates: its body into `submit_job`'s arguments, an outcome into its answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Unpack

from headrace.catalog.callers import Scope
from headrace.client.aio.job import AsyncJobHandle
from headrace.errors import BrokerUnavailable, NotDurable, QueueFull
from headrace.outcome import Cancelled, Expired, Failure, Outcome, Success
from headrace.results.reply_channel import single_wait_seconds
from headrace.submit.options import JobOptions
from headrace.wire.message import new_id
from headrace.wire.outcome import outcome_status
from headrace_gateway.callers import Caller
from headrace_gateway.ownership import find_job, own_id
from headrace_gateway.problems import Problem, problem_of
from headrace_gateway.state import Gateway

__all__ = ["find_job", "job_document", "own_id", "submit_and_wait", "submit_job", "wait_for_outcome"]


async def submit_job(
    gateway: Gateway,
    caller: Caller,
    model: str,
    instances: Sequence[Any],
    *,
    job: str | None = None,
    scope: Scope = "jobs",
    **options: Unpack[JobOptions],
) -> AsyncJobHandle:
    """Submit a job of a caller, who needs this scope. Raises a Problem for what it may not, and HeadraceError.

    The id is made here, before the submit: a Problem, 503, tells it, so that the call can be repeated as a PUT.
    """
    permitted = caller.permit(scope, model, len(instances), options)
    check_endpoint(gateway, permitted.get("notify"))
    await gateway.limits.rates.admit(caller)
    job = job or own_id(caller, new_id())
    try:
        return await gateway.client.submit(model, instances=instances, id=job, **permitted)
    except QueueFull as error:
        wait = gateway.rates.retry_after(model.partition("@")[0], gateway.settings.queue_limit)
        raise problem_of(error, job=job, retry_after=wait) from error
    except (NotDurable, BrokerUnavailable) as error:
        raise problem_of(error, job=job) from error


async def submit_and_wait(
    gateway: Gateway,
    caller: Caller,
    model: str,
    instances: Sequence[Any],
    *,
    seconds: float,
    job: str | None = None,
    scope: Scope = "jobs",
    **options: Unpack[JobOptions],
) -> tuple[AsyncJobHandle, Outcome | None]:
    """Submit a job as `submit_job`, and wait for its outcome as `wait_for_outcome`; 0 seconds do not wait.

    A new job is expected before it is submitted: its outcome cannot be stored already, so it is not looked up.
    """
    if job is not None or not seconds:
        handle = await submit_job(gateway, caller, model, instances, job=job, scope=scope, **options)
        return handle, await wait_for_outcome(gateway, handle, seconds) if seconds else None
    job, until, outcome = own_id(caller, new_id()), time.monotonic() + seconds, None
    listener = gateway.session.listener
    with listener.expect(job) as expected:
        is_ready = expected.is_ready or await expected.ready(gateway.settings.connect_timeout)
        handle = await submit_job(gateway, caller, model, instances, job=job, scope=scope, **options)
        if is_ready:
            with suppress(TimeoutError, BrokerUnavailable):
                async with gateway.wait():
                    outcome = await expected.outcome(min(seconds, single_wait_seconds(listener.waiting)))
    if outcome is None:
        return handle, await wait_for_outcome(gateway, handle, max(0.0, until - time.monotonic()))
    handle.set_outcome(outcome)
    _count(gateway, outcome)
    return handle, outcome


def check_endpoint(gateway: Gateway, endpoint: str | None) -> None:
    """Raise a Problem unless the endpoint for the notice of a job is one of the operator's. None is no notice."""
    if endpoint is not None and endpoint not in gateway.settings.endpoints:
        detail = "`notify` names no endpoint; ask the operator for the names (HEADRACE_GATEWAY_NOTIFY)"
        raise Problem(422, "unknown-endpoint", detail, errors=[{"pointer": "/notify", "detail": "is no endpoint"}])


async def wait_for_outcome(gateway: Gateway, handle: AsyncJobHandle, seconds: float) -> Outcome | None:
    """Wait for the outcome of a job; None when the time is over, or when the process ends.

    If Redis cannot be reached the job goes on, so this is None too.
    """
    try:
        async with gateway.wait():
            outcome = await handle.outcome(seconds)
    except (TimeoutError, BrokerUnavailable):
        return None
    _count(gateway, outcome)
    return outcome


def _count(gateway: Gateway, outcome: Outcome) -> None:
    if isinstance(outcome, Success):
        gateway.rates.record(outcome.prediction.model)


def job_document(
    job: str, outcome: Outcome | None, *, status: str = "waiting", model: str | None = None
) -> dict[str, Any]:
    """Return a job as JSON: its status, and what its outcome holds."""
    document: dict[str, Any] = {"id": job, "status": status if outcome is None else outcome_status(outcome)}
    if model is not None:
        document["model"] = model
    match outcome:
        case Success(prediction=prediction):
            document |= {
                "model": prediction.model,
                "version": prediction.version,
                "predictions": prediction.predictions,
            }
            if prediction.classes is not None:
                document["classes"] = prediction.classes
        case Failure():
            document |= {"reason": outcome.reason, "error": outcome.error, "message": outcome.message}
        case Cancelled() | Expired() | None:
            pass
    return document
