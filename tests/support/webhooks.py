"""A receiver of webhooks, as a person's service is one, and a notifier as a process of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook

from headrace_worker.local.stack import Child

SECRET = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
OTHER_SECRET = "whsec_YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="
#: A schedule of a test: the second attempt follows at once, the third soon.
QUICK = "0,0.05,0.1"


class Request(NamedTuple):
    """A request that arrived."""

    id: str
    path: str
    body: bytes
    headers: dict[str, str]

    @property
    def data(self) -> dict[str, Any]:
        """What the body says of the job."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data

    def verify(self, secret: str = SECRET) -> dict[str, Any]:
        """Return the body, verified by the library that a receiver uses. Raises WebhookVerificationError."""
        verified: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return verified


class Answer(NamedTuple):
    """An answer to a request: a status and headers; `cut` breaks it off, `silent` sends nothing until the end."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "whole"


OK = Answer()
CUT, SILENT = Answer(200, kind="cut"), Answer(kind="silent")


class Receiver:
    """An HTTP server for the time of the block. `answer` decides by the request and those that came before."""

    def __init__(self, answer: Callable[[Request, Sequence[Request]], Answer] = lambda _, __: OK) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._serve(self)

            def do_GET(self) -> None:
                receiver._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """Say nothing of a notifier that was killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(headers.get("webhook-id", ""), handler.path, body, headers)
        before = list(self.requests)
        self.requests.append(request)
        answer = self.answer(request, before)
        if answer.kind == "silent":
            self._closing.wait()
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", "100" if answer.kind == "cut" else "0")
        handler.end_headers()
        if answer.kind == "cut":
            handler.wfile.write(b"begun")
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True

    @property
    def ids(self) -> list[str]:
        """The ids of the requests, in their order."""
        return [request.id for request in list(self.requests)]

    def release(self) -> None:
        """End the silence of all requests that wait for an answer."""
        self._closing.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def endpoint(url: str, name: str = "orders", *, secrets: Sequence[str] = (SECRET,), **options: str) -> str:
    """Return the table of an endpoint for the notifier's file. `options` are TOML values."""
    lines = {"url": json.dumps(url), "secrets": json.dumps(list(secrets)), **options}
    return f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in lines.items())


@contextlib.contextmanager
def running_notifier(
    redis_url: str,
    folder: Path,
    endpoints: str,
    *,
    name: str = "notifier",
    command: Sequence[str] = ("headrace.cli", "notify"),
    **settings: str,
) -> Iterator[Child]:
    """Run a notifier with these endpoints, and stop it at the end. It reads them from `folder / "notify.toml"`."""
    path = folder / "notify.toml"
    path.write_text(endpoints)
    environ = {
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_NOTIFY": str(path),
        "HEADRACE_NOTIFY_SCHEDULE": QUICK,
        "HEADRACE_NOTIFY_TIMEOUT": "5",
        **settings,
    }
    child = Child(name, command, environ, folder / f"{name}.log")
    try:
        yield child
    finally:
        child.stop()
