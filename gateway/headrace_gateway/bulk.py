"""Bulk runs over HTTP: workers read and write tables themselves, named by references to their locations.

A run of a caller is named `<caller>.<name>`: no name of one caller is another's, and a POST that is repeated with
its name is the same run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.bulk.operations import is_over, list_runs
from headrace.client.aio.run import AsyncRunHandle
from headrace.clock import from_unix_ms
from headrace.errors import ResultTimeout, RunConflict, RunFailed, UnknownRun
from headrace.wire.bulk import RunProgress
from headrace_gateway.bodies import check_content_type, decode_body, read_body
from headrace_gateway.callers import Caller
from headrace_gateway.ownership import own_run, run_prefix, unknown_run
from headrace_gateway.prefer import parse_prefer
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import Gateway, authenticate, gateway_of

#: The most bytes of a body: two references, and a list of columns.
_MAX_BODY_BYTES = 1024 * 1024
#: The runs of a list: by default, and at most.
_RUNS, _MAX_RUNS = 20, 1000


class RunBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a new run."""

    #: The model, such as `churn` or `churn@7`.
    model: str
    #: References: a location of the workers' settings, a colon and a path below it, such as `in:2026-11/*.parquet`
    #: and `out:scores/2026-11`.
    input: str
    output: str
    #: A name of your own, under which the call may be repeated. Without one, each call is another run.
    name: str | None = None
    version: str | None = None
    method: str | None = None
    #: The column that identifies a row in the errors.
    key: str | None = None
    #: The columns of the input that the output has too; all of them otherwise.
    keep: list[str] | None = None
    #: The failed rows that end the run: a number, or a share such as "1%".
    max_failed: float | str | None = None


_BODY = msgspec.json.Decoder(RunBody)
_FIELDS = {"": RunBody.__struct_fields__}


async def post_run(request: Request) -> Response:
    """Submit a run: 202 with its Location, or 200 if it has ended before or within `Prefer: wait=N`.

    A name that was used for a run with other arguments is a 409.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    check_content_type(request)
    content = await read_body(request, limit=_MAX_BODY_BYTES, seconds=gateway.settings.gateway_body_timeout)
    body = decode_body(content, _BODY, _FIELDS)
    caller.check("bulk", body.model.partition("@")[0])
    options = msgspec.structs.asdict(body)
    options["name"] = own_run(caller, secrets.token_hex(12) if body.name is None else body.name)
    try:
        run = await gateway.client.bulk(**options, owner=caller.name or None)
    except RunConflict:
        detail = "the name belongs to a bulk run with other arguments; choose another name for this run"
        raise Problem(409, "run-conflict", detail, more={"name": options["name"]}) from None
    return await _answer(request, gateway, run, unfinished=202)


async def get_run(request: Request) -> Response:
    """Return a run. `Prefer: wait=N` waits for its end, N seconds at most."""
    gateway, caller = gateway_of(request), await authenticate(request)
    return await _answer(request, gateway, await _find_run(gateway, caller, request), unfinished=200)


async def delete_run(request: Request) -> Response:
    """Cancel a run: 200 when it is cancelled, 409 if it has ended otherwise. Its finished parts stay."""
    gateway, caller = gateway_of(request), await authenticate(request)
    run = await _find_run(gateway, caller, request)
    with _not_found():
        if await run.cancel():
            return await _answer(request, gateway, run, unfinished=200)
        state = (await run.status()).state
    raise Problem(409, "run-ended", f"the run cannot be cancelled: its state is {state}", more={"name": run.name})


async def resume_run(request: Request) -> Response:
    """Continue a run that was cancelled or failed: 202, or 200 if it has succeeded already."""
    gateway, caller = gateway_of(request), await authenticate(request)
    run = await _find_run(gateway, caller, request)
    with _not_found():
        await run.resume()
    return await _answer(request, gateway, run, unfinished=202)


async def get_failures(request: Request) -> Response:
    """Return why rows of a run failed, by reason, and which chunks failed as a whole."""
    gateway, caller = gateway_of(request), await authenticate(request)
    run = await _find_run(gateway, caller, request)
    with _not_found():
        return _json(await run.failures(), 200)


async def get_runs(request: Request) -> Response:
    """Return the caller's newest runs, `?limit=` of them, of all models or of `?model=`."""
    gateway, caller = gateway_of(request), await authenticate(request)
    caller.check("bulk")
    limit = request.query_params.get("limit", str(_RUNS))
    if not (limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= _MAX_RUNS):
        raise Problem(400, "invalid-query", f"`limit` is a number from 1 to {_MAX_RUNS:,}")
    model = request.query_params.get("model")
    runs = await gateway.run(
        list_runs(
            gateway.keys,
            model=model,
            prefix=run_prefix(caller),
            is_listed=lambda run: caller.may_see(run.owner),
            limit=int(limit),
        )
    )
    return _json({"runs": [to_document(run) for run in runs]}, 200)


def to_document(progress: RunProgress) -> dict[str, Any]:
    """Return what is known of a run as JSON: the fields of `headrace bulk status --json`, and times as text."""
    run = progress.run
    times = {
        name.removesuffix("_ms"): None if moment is None else from_unix_ms(moment).isoformat()
        for name in ("submitted_ms", "started_ms", "ended_ms")
        for moment in [getattr(progress, name)]
    }
    counts = ("chunks", "chunks_done", "chunks_failed", "rows", "rows_done", "rows_failed")
    return {
        "name": run.name,
        "state": progress.state,
        "model": run.model,
        "version": progress.version or run.version,
        **{name: getattr(run, name) for name in ("input", "output", "method", "key", "keep", "max_failed")},
        **{name: getattr(progress, name) for name in counts},
        **times,
        "error": progress.error,
    }


async def _answer(request: Request, gateway: Gateway, run: AsyncRunHandle, *, unfinished: int) -> Response:
    """Wait as long as the request prefers, and return the run: `unfinished` is the status while it goes on."""
    preference, longest = parse_prefer(request.headers), gateway.settings.gateway_wait_max
    seconds = preference.seconds(0, longest)
    with _not_found():
        if seconds:
            with suppress(ResultTimeout, RunFailed, TimeoutError):  # the last one: the process ends
                async with gateway.wait():
                    await run.wait(seconds)
        progress = await run.status()
    headers = {"Location": f"/v1/bulk/{run.name}"}
    if preference.wait is not None:
        headers["Preference-Applied"] = preference.applied(longest) or ""
    if not is_over(progress):
        headers["Retry-After"] = "2"
    return _json(to_document(progress), 200 if is_over(progress) else unfinished, headers)


async def _find_run(gateway: Gateway, caller: Caller, request: Request) -> AsyncRunHandle:
    """Return the run of a caller by its name, or by the name that the caller gave it. Raises a Problem: 404."""
    caller.check("bulk")
    run = gateway.client.bulk_run(own_run(caller, request.path_params["run"]))
    with _not_found():
        if caller.name and not caller.may_see((await run.status()).run.owner):
            raise unknown_run()
    return run


@contextmanager
def _not_found() -> Iterator[None]:
    try:
        yield
    except UnknownRun:
        raise unknown_run() from None


def _json(document: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers=headers, media_type="application/json")


routes = [
    Route("/v1/bulk", post_run, methods=["POST"]),
    Route("/v1/bulk", get_runs, methods=["GET"]),
    Route("/v1/bulk/{run}", get_run, methods=["GET"]),
    Route("/v1/bulk/{run}", delete_run, methods=["DELETE"]),
    Route("/v1/bulk/{run}/resume", resume_run, methods=["POST"]),
    Route("/v1/bulk/{run}/failures", get_failures, methods=["GET"]),
]
