"""Predictions for protocols whose clients know no 202: the predictions, or an error that names the job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

from starlette.requests import Request

from headrace.outcome import Prediction
from headrace.submit.options import JobOptions
from headrace_gateway.bodies import read_body
from headrace_gateway.callers import Caller
from headrace_gateway.jobs import submit_and_wait
from headrace_gateway.problems import Problem
from headrace_gateway.state import Gateway, gateway_of


class PredictedJob(NamedTuple):
    """A job and its predictions."""

    id: str
    prediction: Prediction


async def read_whole(request: Request) -> bytes:
    """Return the body of a request, within the limits of a job. Raises a Problem."""
    settings = gateway_of(request).settings
    return await read_body(request, limit=settings.max_job_bytes, seconds=settings.gateway_body_timeout)


async def predict_now(
    gateway: Gateway,
    caller: Caller,
    model: str,
    instances: Sequence[Any],
    *,
    job: str | None = None,
    **options: Unpack[JobOptions],
) -> PredictedJob:
    """Submit a job and wait for its predictions. `job` is an id that the caller chose.

    Raises HeadraceError, and a Problem if the outcome does not arrive in time: 504, or 503 if the process ends.
    The job goes on; both name it, and `Location` is where its outcome will be.
    """
    seconds = gateway.settings.gateway_wait
    handle, outcome = await submit_and_wait(
        gateway, caller, model, instances, seconds=seconds, job=job, scope="predict", **options
    )
    if outcome is not None:
        return PredictedJob(handle.id, outcome.get())
    headers = {"Location": f"/v1/jobs/{handle.id}", "Retry-After": "1", "Headrace-Job": handle.id}
    more = {"id": handle.id}
    goes_on = "the job goes on, and GET of `Location` reads its outcome"
    if gateway.is_ending.is_set():
        detail = f"the gateway is shutting down; {goes_on}"
        raise Problem(503, "shutting-down", detail, headers=headers | {"Connection": "close"}, more=more)
    detail = f"the predictions did not arrive within {gateway.settings.gateway_wait:g} s; {goes_on}"
    raise Problem(504, "wait-over", detail, headers=headers, more=more)
