"""A model's errors reach Sentry, each once, and no value of a job goes with them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import headrace
import hostile_models
from headrace import Client, JobFailed, JobHandle
from headrace_worker.embedded import EmbeddedRedis
from headrace_worker.models.store import Store
from headrace_worker.stack import start_worker

#: Values of instances that must not leave the worker.
WORD, NUMBER = "Rumpelstiltskin", 47118.15


class Sentry:
    """An endpoint that takes what Sentry's SDK sends, while it is up."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._port = 0
        self.start()
        self.dsn = f"http://key@127.0.0.1:{self._port}/1"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        taken = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    @property
    def events(self) -> list[dict[str, Any]]:
        return [item for body in list(self.bodies) for kind, item in _items(body) if kind == "event"]


def _items(envelope: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = envelope.split(b"\n")[1:]
    for header, payload in zip(lines[::2], lines[1::2], strict=False):
        yield json.loads(header)["type"], json.loads(payload)


@pytest.fixture(scope="module")
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    hostile_models.add(Store(folder / "models"))
    return folder


@pytest.fixture(scope="module")
def url(sentry: Sentry, folder: Path) -> Iterator[str]:
    """The Redis of a worker that reports to the endpoint."""
    with EmbeddedRedis("--appendfsync", "no") as redis:
        settings = {**hostile_models.SERVING, "SENTRY_DSN": sentry.dsn}
        worker = start_worker(redis.url, folder / "models", folder, concurrency=2, **settings)
        try:
            yield redis.url
        finally:
            worker.stop()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def fail(client: Client, do: str = "raise") -> JobHandle:
    job = client.submit("obedient", hostile_models.instance(do, secret=WORD, size=NUMBER))
    with pytest.raises(JobFailed):
        job.result(timeout=20)
    return job


def event_of(sentry: Sentry, job: JobHandle) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for event in sentry.events:
            if event["tags"].get("headrace.job") == job.id:
                return event
        time.sleep(0.02)
    raise AssertionError("nothing came")


def test_an_error_of_a_model_arrives_with_its_job_model_version_and_release(client: Client, sentry: Sentry):
    job = fail(client)
    event = event_of(sentry, job)
    tags = {name: value for name, value in event["tags"].items() if name.startswith("headrace.")}
    assert tags == {"headrace.job": job.id, "headrace.model": "obedient", "headrace.version": "1"}
    assert event["release"] == f"headrace-worker@{headrace.__version__}"
    [raised] = event["exception"]["values"]
    assert raised["type"] == "ValueError"
    assert raised["value"].startswith("no prediction for {'")
    assert any(frame["function"] == "_obey" for frame in raised["stacktrace"]["frames"])


def test_every_error_arrives_once_and_bad_input_never(client: Client, url: str, sentry: Sentry):
    sentry.bodies.clear()
    good = client.submit_many("obedient", [hostile_models.instance()] * 20)
    failed = [fail(client, do) for do in ("raise", "raise from", "exit", "eat memory", "raise")]
    with Client(url, check=False) as careless:
        for bad in ({"do": WORD}, hostile_models.instance(size=10**400), WORD, None):
            with pytest.raises(JobFailed):
                careless.predict("obedient", instances=[bad], timeout=20)
        with pytest.raises(JobFailed):
            careless.predict("obedient", hostile_models.instance(), version="9", timeout=20)
    for job in good:
        job.result(timeout=20)
    last = fail(client)  # what was sent before it has arrived when it has
    event_of(sentry, last)
    for job in failed:
        event_of(sentry, job)
    jobs = [event["tags"].get("headrace.job") for event in sentry.events]
    assert sorted(map(str, jobs)) == sorted(job.id for job in [*failed, last])


@pytest.mark.parametrize("do", ["raise", "raise from", "eat memory"])
def test_no_value_of_a_job_leaves_the_worker(client: Client, sentry: Sentry, do: str):
    event_of(sentry, fail(client, do))
    for body in sentry.bodies:
        text = body.decode()
        assert WORD not in text
        assert str(NUMBER) not in text
        assert "47118" not in text
        assert '"vars"' not in text
        assert "celery-job" not in text
        assert "breadcrumbs" not in text or '"breadcrumbs":{"values":[]}' in text


def test_a_worker_works_the_same_while_the_endpoint_is_down(client: Client, sentry: Sentry):
    sentry.stop()
    try:
        for _ in range(3):
            fail(client)
            assert client.predict("obedient", hostile_models.instance(size=2), timeout=20).prediction == 4
    finally:
        sentry.start()
    event_of(sentry, fail(client))


def test_a_dsn_that_is_none_is_one_sentence(folder: Path):
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "worker", "--store", str(folder / "models")],
        env={**os.environ, "SENTRY_DSN": "not a dsn"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("headrace: SENTRY_DSN is no DSN; copy it from the project's settings in Sentry\n")
    assert "Traceback" not in done.stderr
