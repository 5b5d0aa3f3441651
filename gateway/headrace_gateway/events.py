"""Events of jobs for a browser's EventSource: `text/event-stream`, of one job or of many.

A stream closes after the last outcome. A client that connects again says in `Last-Event-ID` what it has: the
status of its job, or of many jobs those that have ended. Any replica sends it the rest, as only the state of the
jobs is needed; and answers 204 if there is none, on which an EventSource stops.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from headrace_gateway.event_streams import Event, EventStream, OpenStreams, encode_event
from headrace_gateway.job_states import find_jobs, read_states
from headrace_gateway.jobs import job_document
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import Gateway, authenticate, gateway_of

#: Most jobs of one stream.
MAX_JOBS = 1000
#: Milliseconds after which a client connects again; and a comment, which keeps a connection alive.
_RETRY, _COMMENT = b"retry: 2000\n\n", b":\n\n"
_SENT = re.compile("[0-9a-f]{1,250}")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx passes each event on at once
}

Document = dict[str, Any]
Models = Mapping[str, str | None]
Encode = Callable[[Document], bytes]


async def job_events(request: Request) -> Response:
    """Stream the status of a job: an event for each change, the last with its outcome."""
    gateway, caller = gateway_of(request), await authenticate(request)
    ((job, model),) = await find_jobs(gateway, caller, [request.path_params["job"]])
    (state,) = await read_states(gateway, [job])
    sent = request.headers.get("last-event-id")
    if state.outcome is not None and sent == state.status:
        return Response(status_code=204)

    def encode(document: Document) -> bytes:
        return encode_event(document["status"], document["status"], document)

    stream = EventStream(set() if state.outcome is not None else {job}, status=state.status)
    if sent != state.status:
        stream.put(job, state.outcome or state.status)
    return _respond(request, stream, {job: model}, encode)


async def events(request: Request) -> Response:
    """Stream the outcomes of many jobs, as they end."""
    gateway, caller = gateway_of(request), await authenticate(request)
    names = list(dict.fromkeys(request.query_params.getlist("job")))
    if not 0 < len(names) <= MAX_JOBS:
        detail = f"name 1 to {MAX_JOBS:,} jobs, each as `job=ID`; there are {len(names):,}"
        raise Problem(400, "invalid-query", detail)
    sent = parse_sent(request.headers.get("last-event-id"), len(names))
    remaining = {position: name for position, name in enumerate(names) if not sent >> position & 1}
    if not remaining:
        return Response(status_code=204)
    jobs = await find_jobs(gateway, caller, list(remaining.values()))
    models = dict(jobs)
    bits = dict.fromkeys(models, 0)
    for (job, _), position in zip(jobs, remaining, strict=True):
        bits[job] |= 1 << position

    def encode(document: Document) -> bytes:
        nonlocal sent
        sent |= bits[document["id"]]
        return encode_event("outcome", f"{sent:x}", document)

    return _respond(request, EventStream(set(models)), models, encode)


def parse_sent(last_event_id: str | None, count: int) -> int:
    """Return the jobs whose outcomes a client has, a bit for each by its position; 0 for any other id."""
    if not _SENT.fullmatch(last_event_id or ""):
        return 0
    sent = int(last_event_id or "0", 16)
    return sent if sent < 1 << count else 0


def _respond(request: Request, stream: EventStream, models: Models, encode: Encode) -> Response:
    if request.method == "HEAD":
        return Response(headers=_HEADERS, media_type="text/event-stream")
    state = request.app.state
    if not hasattr(state, "open_streams"):
        state.open_streams = OpenStreams(gateway_of(request))
    chunks = _write(gateway_of(request), state.open_streams, stream, models, encode)
    return StreamingResponse(chunks, headers=_HEADERS, media_type="text/event-stream")


async def _write(
    gateway: Gateway, streams: OpenStreams, stream: EventStream, models: Models, encode: Encode
) -> AsyncIterator[bytes]:
    """Yield what is written to a connection, until the last outcome or the end of the process."""
    yield _RETRY
    with streams.serve(stream):
        while not stream.is_over:
            event = await stream.next()
            yield _COMMENT if event is None else encode(await _describe(gateway, event, models[event.job]))


async def _describe(gateway: Gateway, event: Event, model: str | None) -> Document:
    """Return the job of an event as JSON."""
    state = event.state
    if state is None:
        (read,) = await read_states(gateway, [event.job])
        state = read.outcome or read.status
    if isinstance(state, str):
        return job_document(event.job, None, status=state, model=model)
    return job_document(event.job, state, model=model)


#: A browser's EventSource sends no header of its own: with keys, a page reads the stream with `fetch`.
routes = [
    Route("/v1/jobs/{job}/events", job_events, methods=["GET"]),
    Route("/v1/events", events, methods=["GET"]),
]
