"""`:batch`: a file is streamed in, and streamed out with its predictions, in the order of its rows.

The rows are predicted while the file still arrives, and the answer begins when all of it has (`BatchRun.first`).
What goes wrong before is a problem. What goes wrong after cuts the answer: its last chunk is missing, which every
HTTP client reports, and NDJSON lacks its last line, `{"done": n, "failed": k}`.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.batch.forms import choose_form
from headrace.batch.stream import StreamOptions
from headrace.catalog.validation import check_method
from headrace.text import did_you_mean
from headrace.wire.names import split_version
from headrace_gateway.batch_body import (
    MEDIA_TYPES,
    check_length,
    choose_format,
    guess_format,
    read_pieces,
)
from headrace_gateway.batch_run import BatchRun, BatchRuns
from headrace_gateway.problem_types import TYPES
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import authenticate, gateway_of
from headrace_gateway.unpacking import choose_unpacker

log = logging.getLogger("headrace.gateway")

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class BatchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The query parameters, those of `headrace batch`. `column` may be repeated."""

    version: str | None = None
    method: str | None = None
    column: tuple[str, ...] = ()
    delimiter: str | None = None

    @staticmethod
    def parse(request: Request) -> BatchQuery:
        """Return the query of a request. Raises a Problem, 400, for a name that is unknown or repeated."""
        values: dict[str, object] = {}
        for name in request.query_params:
            texts = request.query_params.getlist(name)
            if name not in BatchQuery.__struct_fields__:
                names = BatchQuery.__struct_fields__
                hint = did_you_mean(name[:64], names) or f"; known: {', '.join(names)}"
                raise Problem(400, "invalid-query", f"there is an unknown query parameter{hint}")
            if name != "column" and len(texts) > 1:
                raise Problem(400, "invalid-query", f"the query parameter `{name}` stands there more than once")
            values[name] = tuple(texts) if name == "column" else texts[0]
        query = msgspec.convert(values, BatchQuery)
        if query.delimiter is not None and (len(query.delimiter) != 1 or query.delimiter in '"\r\n\0 '):
            raise Problem(400, "invalid-query", "`delimiter` is one character, such as `;` or `%09`, a tab")
        return query


async def batch(request: Request) -> Response:
    """Predict the rows of a CSV or of NDJSON."""
    gateway, caller = gateway_of(request), await authenticate(request)
    query = BatchQuery.parse(request)
    model, version = split_version(request.path_params["model"], query.version)
    caller.check("batch", model)
    file_format = choose_format(request.headers.get("content-type"))
    unpacker = choose_unpacker(request)
    limit = gateway.settings.gateway_batch_bytes
    check_length(request, limit)
    contract = await gateway.client.contract(model, version)
    check_method(contract, query.method)
    form = choose_form(contract, await gateway.client.accepted_columns(contract.model))
    seconds = gateway.settings.gateway_stream_timeout
    pieces = read_pieces(request, limit=limit, seconds=seconds, unpacker=unpacker)
    start = await anext(pieces, b"")
    options = StreamOptions(
        file_format=file_format or guess_format(start),
        form=form,
        method=query.method,
        delimiter=query.delimiter,
        columns=query.column,
        rows_per_job=caller.max_rows or None,
        owner=caller.name or None,
    )
    run = BatchRun(gateway, caller, contract, options)
    _runs_of(request).start(run)
    try:
        run.feed(request, start, pieces)
        first = await run.first()
    except BaseException:
        await run.close()
        raise
    headers = _HEADERS | {
        "Content-Type": MEDIA_TYPES[options.file_format],
        "Headrace-Model": f"{contract.model}@{contract.version}",
    }
    return _BatchAnswer(run, first, headers, seconds)


def _runs_of(request: Request) -> BatchRuns:
    state = request.app.state
    if not hasattr(state, "batch_runs"):
        state.batch_runs = BatchRuns()
    runs: BatchRuns = state.batch_runs
    return runs


class _BatchAnswer(Response):
    """The answer of a run, from its first bytes on. `seconds` is the longest time without any progress."""

    def __init__(self, run: BatchRun, first: bytes, headers: dict[str, str], seconds: float) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._run, self._first, self._seconds = run, first, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # the run receives
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            piece = self._first
            while piece and await self._send(send, piece, has_more=True):
                piece = await self._run.next()
            if piece:
                log.warning("the caller of :batch took nothing for %g s; the answer was cut", self._seconds)
            elif self._run.error is None:
                await self._send(send, b"", has_more=False)
            else:
                await self._cut(send)
        finally:
            await self._run.close()

    async def _send(self, send: Send, piece: bytes, *, has_more: bool) -> bool:
        """Send a piece. Return False if the caller takes nothing, though all that he sends has arrived."""
        message = {"type": "http.response.body", "body": piece, "more_body": has_more}
        sending = asyncio.ensure_future(send(message))
        try:
            while not (await asyncio.wait({sending}, timeout=self._seconds))[0]:
                if self._run.has_arrived.is_set():
                    return False
        finally:
            sending.cancel()
        await sending
        return True

    async def _cut(self, send: Send) -> None:
        """Leave the answer without its end. NDJSON tells the problem in a line before."""
        try:
            problem = self._run.problem()
        except ClientDisconnect:
            return
        log.warning("the answer of :batch was cut: %s", problem.kind)
        if self.headers["content-type"] == MEDIA_TYPES["jsonl"]:
            line = {"problem": {"type": TYPES + problem.kind, "status": problem.status, "detail": problem.detail}}
            await self._send(send, msgspec.json.encode(line) + b"\n", has_more=True)
        await self._run.linger()


#: `curl -T` sends a PUT.
routes = [Route("/v1/models/{model}:batch", batch, methods=["POST", "PUT"])]
