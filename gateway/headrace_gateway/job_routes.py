"""Jobs with an id: write one, read it, wait for it, cancel it, and see its history."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.client.aio.job import AsyncJobHandle
from headrace.outcome import Cancelled, Outcome
from headrace.submit.options import JobOptions
from headrace_gateway.bodies import decode_body
from headrace_gateway.jobs import find_job, job_document, own_id, submit_job, wait_for_outcome
from headrace_gateway.keyed import key_of, refusing_reuse
from headrace_gateway.predict import FIELDS, Parameters, accepted, model_of, read_json
from headrace_gateway.prefer import Preference, parse_prefer
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import Gateway, authenticate, gateway_of


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a new job."""

    #: Each in the form that the model's contract describes.
    instances: list[Any]
    parameters: Parameters = Parameters()
    #: Your own notes about the job, text to text. They travel with it; not for secrets.
    metadata: dict[str, str] | None = None
    #: Seconds before which the job is not started.
    delay: float | None = None
    #: Answer only when neither a restart of Redis nor a failover can lose the job.
    durable: bool = False
    #: The name of the endpoint that is notified of the outcome.
    notify: str | None = None

    @property
    def options(self) -> JobOptions:
        """The options of the job."""
        parameters = self.parameters
        return JobOptions(
            method=parameters.method,
            version=parameters.version,
            priority=parameters.priority,
            expires=parameters.expires,
            metadata=self.metadata,
            delay=self.delay,
            durable=self.durable,
            notify=self.notify,
        )


class NamedJobBody(JobBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a job that is put under an id: it names the model too, such as `churn` or `churn@7`."""

    model: str


_BODY, _NAMED_BODY = msgspec.json.Decoder(JobBody), msgspec.json.Decoder(NamedJobBody)
_FIELDS = FIELDS | {"": JobBody.__struct_fields__}
_NAMED_FIELDS = FIELDS | {"": NamedJobBody.__struct_fields__}


async def post_job(request: Request) -> Response:
    """Submit a job: 202 with its Location, or 200 with its outcome if `Prefer: wait=N` was long enough.

    With an `Idempotency-Key` the call may be repeated: one key is one job.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    body = decode_body(await read_json(request, gateway.settings), _BODY, _FIELDS)
    key = key_of(request, caller)
    with refusing_reuse(key):
        handle = await submit_job(gateway, caller, model_of(request), body.instances, job=key, **body.options)
    return await _answer(gateway, handle, parse_prefer(request.headers), finished=200, unfinished=202)


async def put_job(request: Request) -> Response:
    """Submit a job under an id of the caller's; repeat the call at will, the same id and input is the same job.

    201 for a new job, 202 for a known one without an outcome, 200 with the outcome; 409 if the id belongs to a job
    with another input.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    body = decode_body(await read_json(request, gateway.settings), _NAMED_BODY, _NAMED_FIELDS)
    job = own_id(caller, request.path_params["job"])
    is_new = await gateway.client.job(job).status() == "unknown"
    handle = await submit_job(gateway, caller, body.model, body.instances, job=job, **body.options)
    if not is_new:
        handle, _ = await find_job(gateway, caller, job)
    preference = parse_prefer(request.headers)
    return await _answer(
        gateway, handle, preference, finished=201 if is_new else 200, unfinished=201 if is_new else 202
    )


async def get_job(request: Request) -> Response:
    """Return a job: its status, and what its outcome holds.

    `Prefer: wait=N` waits for the outcome, N seconds at most. The ETag is the status, so a poll with
    `If-None-Match` is 304 while nothing has changed.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    handle, status = await find_job(gateway, caller, request.path_params["job"])
    preference, maximum = parse_prefer(request.headers), gateway.settings.gateway_wait_max
    if not handle.has_outcome and preference.seconds(0, maximum):
        await wait_for_outcome(gateway, handle, preference.seconds(0, maximum))
        status = await handle.status()
    etag = f'"{status}"'
    headers = {"ETag": etag, "Headrace-Job": handle.id}
    if preference.wait is not None:
        headers["Preference-Applied"] = preference.applied(maximum) or ""
    if not handle.has_outcome:
        headers["Retry-After"] = "1"
    if etag in _etags(request):
        return Response(status_code=304, headers=headers)
    outcome = await handle.outcome() if handle.has_outcome else None
    return _job(handle, outcome, 200, headers, status=status)


async def delete_job(request: Request) -> Response:
    """Cancel a job: 200 when it is cancelled, 409 if it has another outcome.

    A running job is not interrupted, but its prediction is discarded. 202 if the workers are asked to cancel it
    and none has answered yet; the job does not run then.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    caller.check("jobs")
    handle, status = await find_job(gateway, caller, request.path_params["job"])
    if not handle.has_outcome:
        with suppress(TimeoutError):  # the process ends; the request to cancel the job stays
            async with gateway.wait():
                await handle.cancel()
        status = await handle.status()
    if not handle.has_outcome:
        headers = {"Location": f"/v1/jobs/{handle.id}", "Retry-After": "1", "Headrace-Job": handle.id}
        return _job(handle, None, 202, headers, status=status)
    outcome = await handle.outcome()
    if not isinstance(outcome, Cancelled):
        raise Problem(
            409,
            "already-ended",
            f"job {handle.id} cannot be cancelled: its outcome is {status}",
            more={"id": handle.id, "outcome": status},
        )
    return _job(handle, outcome, 200, {"ETag": f'"{status}"', "Headrace-Job": handle.id}, status=status)


async def get_timeline(request: Request) -> Response:
    """Return the history of a job: submitted, claimed, predicted, retried, finished; or where it waits."""
    gateway, caller = gateway_of(request), await authenticate(request)
    handle, _ = await find_job(gateway, caller, request.path_params["job"])
    timeline = await handle.explain()
    return Response(
        msgspec.json.encode(timeline), headers={"Headrace-Job": handle.id}, media_type="application/json"
    )


async def _answer(
    gateway: Gateway, handle: AsyncJobHandle, preference: Preference, *, finished: int, unfinished: int
) -> Response:
    """Wait as long as the request prefers, and return the job: `finished` and `unfinished` are the statuses."""
    maximum = gateway.settings.gateway_wait_max
    seconds = preference.seconds(0, maximum)
    if seconds and not handle.has_outcome:
        await wait_for_outcome(gateway, handle, seconds)
    if not handle.has_outcome:
        return accepted(handle, handle.model, preference, maximum, status=unfinished)
    outcome = await handle.outcome()
    headers = {"Location": f"/v1/jobs/{handle.id}", "Headrace-Job": handle.id}
    if preference.wait is not None:
        headers["Preference-Applied"] = preference.applied(maximum) or ""
    return _job(handle, outcome, finished, headers)


def _job(
    handle: AsyncJobHandle,
    outcome: Outcome | None,
    status_code: int,
    headers: dict[str, str],
    *,
    status: str = "waiting",
) -> Response:
    document = job_document(handle.id, outcome, status=status, model=handle.model)
    return Response(msgspec.json.encode(document), status_code, headers=headers, media_type="application/json")


def _etags(request: Request) -> set[str]:
    """Return the tags in If-None-Match, weak ones as strong ones."""
    tags = request.headers.get("if-none-match", "").split(",")
    return {tag.strip().removeprefix("W/") for tag in tags}


#: A 405 names the methods of all routes of a path (`app`).
routes = [
    Route("/v1/models/{model}/jobs", post_job, methods=["POST"]),
    Route("/v1/jobs/{job}", get_job, methods=["GET"]),
    Route("/v1/jobs/{job}", put_job, methods=["PUT"]),
    Route("/v1/jobs/{job}", delete_job, methods=["DELETE"]),
    Route("/v1/jobs/{job}/timeline", get_timeline, methods=["GET"]),
]
