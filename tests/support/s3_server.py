"""A local S3 server for tests: moto in memory, behind a web server that handles one request at a time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "models"

#: Client options that make requests to a stopped server fail at once.
SHORT_TIMEOUTS = {"connect_timeout": 1, "read_timeout": 5, "retries": {"max_attempts": 1}}


class S3:
    """A server that can be stopped for a while, and can ignore conditional writes as some servers do."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self.port = 0
        self.conditional_writes, self.stopped = True, True
        self.start()

    @property
    def environ(self) -> dict[str, str]:
        """The environment that makes a client use this server only."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FSSPEC_S3": json.dumps({"config_kwargs": SHORT_TIMEOUTS}),
        }

    def _respond(self, environ: dict[str, Any], start_response: Any) -> Any:
        if not self.conditional_writes:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self._app(environ, start_response)

    def start(self) -> None:
        """Start, on the same port as before."""
        from werkzeug.serving import WSGIRequestHandler, make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        # moto checks a condition and then writes, without a lock: with two threads both could succeed.
        self._server = make_server(
            "127.0.0.1", self.port, self._respond, False, request_handler=WSGIRequestHandler
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.stopped = False

    def stop(self) -> None:
        """Stop; the stored objects remain."""
        self.stopped = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def empty(self) -> None:
        """Remove all objects, and create an empty bucket."""
        from moto.s3.models import s3_backends

        for account in list(s3_backends):
            s3_backends[account].reset()
        backend = s3_backends["123456789012"]["aws"]
        backend.create_bucket(BUCKET, "us-east-1")


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run a server."""
    server = S3()
    try:
        yield server
    finally:
        if not server.stopped:
            server.stop()


@pytest.fixture(scope="module")
def s3_of_module() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_of_module: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Return the server, emptied, with this process configured to use it."""
    import fsspec

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_of_module.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": SHORT_TIMEOUTS})
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    s3_of_module.empty()
    s3_of_module.conditional_writes = True
    return s3_of_module
