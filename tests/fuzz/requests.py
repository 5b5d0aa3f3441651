"""Requests to the gateway: each is answered, and no answer is a fault of the gateway.

An input is a request as HTTP/1.1 writes it. The app runs in this process, on a real Redis; the jobs of a request
run between two turns of its event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
import numpy as np
import tritonclient.http as triton
from prometheus_client import CollectorRegistry

from headrace.wire.stored import DECODE_ERRORS
from headrace_gateway.app import create_app
from headrace_gateway.settings import GatewaySettings
from tests.fuzz.packed import mutate_request
from tests.fuzz.served import Served
from tests.fuzz.target import Target
from tests.support.foreign_clients import MODEL
from tests.support.tensors import output, tensor

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_RESOURCE = re.compile(rb"/[!-~]*")
#: Turns of 2 ms, after which the caller hangs up; after more, the request is stuck.
_TURNS_HUNG_UP, _TURNS_STUCK = 40, 5_000
_INSTANCES = {"instances": [[1, 0, 0], [2, 0, 0]]}


class Request(NamedTuple):
    """A request as a server hands it to the app."""

    scope: dict[str, Any]
    body: bytes


def request_target(served: Served) -> Target:
    """Return the target of all routes."""
    return Target(
        name="a request",
        inputs=_requests(),
        run=_Gateway(served).run,
        count=3_000,
        mutate=mutate_request,
        confined=True,
    )


def parse_request(data: bytes) -> Request | None:
    """Return the request in bytes, without impossible headers; None for one that the HTTP server refuses."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, _, resource = first.partition(b" ")
    if not _TOKEN.fullmatch(method) or not _RESOURCE.fullmatch(resource):
        return None
    raw_path, _, query = resource.partition(b"#")[0].partition(b"?")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and _TOKEN.fullmatch(name) and not _CONTROL.search(value):
            headers.append((name.lower(), value.strip(b" \t")))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode().upper(),
        "scheme": "http",
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [header for header in headers if header[0] != b"content-length"]
        + ([(b"content-length", str(len(body)).encode())] if body else []),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    return Request(scope, body)


class _Gateway:
    """The app of a process, started by the first request."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._loop: asyncio.AbstractEventLoop | None = None
        self._faults: list[str] = []

    def run(self, data: bytes) -> None:
        request = parse_request(data)
        if request is None:
            return
        if self._loop is None:
            self._start()
        assert self._loop is not None
        self._served.prepare()
        self._faults.clear()
        messages = self._loop.run_until_complete(self._answer(request))
        if self._faults:
            raise AssertionError(f"the gateway failed: {self._faults[0]}")
        _check(messages)

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        settings = GatewaySettings(
            redis_url=self._served.url,
            gateway_open=True,
            gateway_wait=0.05,
            gateway_wait_max=0.1,
            gateway_notify="shop",
            gateway_origins="https://shop.example.com",
            gateway_log_requests=False,
            command_timeout=20,
        )
        app = create_app(settings, registry=CollectorRegistry())
        self._loop.run_until_complete(app.router.lifespan_context(app).__aenter__())
        self._app = app
        log, faults = logging.getLogger("headrace.gateway"), self._faults

        class Recorder(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.exc_info:
                    faults.append(logging.Formatter().format(record))

        log.addHandler(Recorder(logging.ERROR))
        log.propagate = False
        log.setLevel(logging.ERROR)

    async def _answer(self, request: Request) -> list[dict[str, Any]]:
        """Send a request, run its jobs, and return the answer. A stream is cut after a while."""
        messages: list[dict[str, Any]] = []
        hung_up = asyncio.Event()
        pieces = [request.body[: len(request.body) // 2], request.body[len(request.body) // 2 :]]

        async def receive() -> dict[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        task = asyncio.ensure_future(self._app(request.scope, receive, send))
        for turn in range(_TURNS_STUCK):
            await asyncio.wait({task}, timeout=0.002)
            if task.done():
                task.result()
                return messages
            self._served.run_waiting()
            if turn == _TURNS_HUNG_UP:
                hung_up.set()
        task.cancel()
        raise AssertionError("the request is not done, and its caller has hung up")


def _check(messages: list[dict[str, Any]]) -> None:
    """Check an answer: its frame, its headers, and its document."""
    if not messages:
        return  # the caller hung up before
    head, *rest = messages
    assert head["type"] == "http.response.start", messages
    headers = dict(head["headers"])
    for name, value in head["headers"]:
        assert _TOKEN.fullmatch(name), name
        assert not _CONTROL.search(value), f"{name}: {value}"
    body = b"".join(message.get("body", b"") for message in rest)
    is_whole = bool(rest) and not rest[-1].get("more_body", False)
    kind = headers.get(b"content-type", b"").partition(b";")[0]
    if not is_whole:
        return
    if kind in {b"application/json", b"application/problem+json"} and body.strip():
        try:
            document = msgspec.json.decode(body)
        except DECODE_ERRORS as error:
            raise AssertionError(f"the answer is no JSON: {error}: {body[:200]!r}") from None
        if head["status"] >= 400:
            assert document.keys() & {"error", "ready"}, document
        if head["status"] == 500:
            assert document.get("type", "").endswith("model-failed"), document
    else:
        assert head["status"] < 500, f"{head['status']}: {body[:200]!r}"


# --- the valid requests ---------------------------------------------------------------------------------------


def _requests() -> list[bytes]:
    model = f"/v1/models/{MODEL}"
    run = {"name": "nightly", "model": MODEL, "input": "in:a.csv", "output": "out:a"}
    job = {"model": MODEL, "instances": [[1, 0, 0]], "priority": 1, "metadata": {"a": "b"}, "notify": "shop"}
    reads = (
        *("/", "/v1/models", model, f"{model}/versions/1", "/openapi.json", f"{model}/openapi.json", "/docs"),
        *("/docs/problems/invalid-input", "/v1/jobs/job-1", "/v1/jobs/job-1/timeline", "/v1/jobs/job-2?x=1"),
        *("/v2", "/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready", "/ping", "/version"),
        *("/v1/bulk", "/v1/bulk/nightly", "/v1/bulk/nightly/failures?limit=2", "/v1/jobs/none"),
    )
    events = (("/v1/jobs/job-1/events", "queued"), ("/v1/events?job=job-1&job=job-2", "1"), ("/v1/events", "f"))
    return [
        *(_write("GET", path) for path in reads),
        *(_write("GET", path, **{"Last-Event-ID": last, "Accept": "text/event-stream"}) for path, last in events),
        _write("POST", f"{model}:predict", _INSTANCES, Prefer="wait=5", **{"Idempotency-Key": '"order-1"'}),
        _write("POST", f"{model}/versions/1:predict", {"inputs": [[1, 0, 0]]}, Prefer="respond-async, wait=0"),
        _write("POST", f"{model}/jobs", job | {"expires": 60, "delay": 1}, Origin="https://shop.example.com"),
        _write("PUT", "/v1/jobs/job-9", job),
        _write("DELETE", "/v1/jobs/job-5"),
        _write("OPTIONS", model, Origin="https://shop.example.com", **{"Access-Control-Request-Method": "POST"}),
        _write("POST", f"{model}:batch", b"[1,0,0]\n[2,0,0]\n", **{"Content-Type": "application/x-ndjson"}),
        _write("POST", f"{model}:batch?format=csv", b"0,1,2\n1,0,0\n2,0,0\n", **{"Content-Type": "text/csv"}),
        _write("POST", "/v1/bulk", run),
        _write("POST", "/v1/bulk/nightly/resume", {}),
        _write("DELETE", "/v1/bulk/nightly"),
        _write("POST", "/invocations", {"dataframe_split": {"columns": ["0", "1", "2"], "data": [[1, 0, 0]]}}),
        _write("POST", "/invocations", b"1,0,0\n", **{"Content-Type": "text/csv"}),
        _write("POST", f"/v2/models/{MODEL}/infer", _infer_document()),
        *(_binary_infer(binary_output=value) for value in (True, False)),
    ]


def _infer_document() -> dict[str, Any]:
    tensor_document = {"name": "input", "shape": [1, 3], "datatype": "FP64", "data": [[1, 0, 0]]}
    return {"id": "a", "inputs": [tensor_document], "outputs": [{"name": "predict"}], "parameters": {"x": 1}}


def _binary_infer(*, binary_output: bool) -> bytes:
    body, size = triton.InferenceServerClient.generate_request_body(
        [tensor("input", np.array([[1.0, 0, 0], [2, 0, 0]]))], outputs=[output("predict", binary=binary_output)]
    )
    return _write(
        "POST", f"/v2/models/{MODEL}/infer", bytes(body), **{"Inference-Header-Content-Length": str(size)}
    )


def _write(method: str, path: str, body: Any = b"", **headers: str) -> bytes:
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
    lines = [f"{method} {path}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
