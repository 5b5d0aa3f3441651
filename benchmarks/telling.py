"""What it costs that Headrace tells of each job: the same worker with all of that off, with it on, and with the
full prediction log besides, one after the other and back again."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.models import STORE, TITLES
from benchmarks.peers.headrace_watched import LISTENER
from benchmarks.server import Server
from benchmarks.sizes import Sizes
from headrace import Client
from headrace_worker.local.stack import start_worker

#: Seconds between two scrapes of the metrics; Prometheus's own default is a minute.
_SCRAPE_EVERY = 5.0
#: Seconds to wait for a result.
_PATIENCE = 60.0
#: Jobs until the speed of a worker is known, and of one submit_many.
_FIRST, _PART = 2_000, 5_000


class Telling:
    """The comparison of one worker with itself."""

    def __init__(self, server: Server, folder: Path, sizes: Sizes) -> None:
        self._server, self._folder, self._sizes = server, folder, sizes
        self._rows = json.loads((folder / "rows.json").read_text())

    def run(self) -> dict[str, Any]:
        """Jobs a second of each way, medians, and what the others have of `off` in the same turn, medians too."""
        ways = {"off": _off, "on": _on, "logged": _logged}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(self._sizes.telling_turns):
            for way in ways if number % 2 == 0 else reversed(ways):
                print(f"telling of jobs: {way}", file=sys.stderr)
                rates[way].append(self._turn(ways[way]))
        return {
            "jobs_per_second": {way: statistics.median(found) for way, found in rates.items()},
            "of_off": {
                way: statistics.median(one / off for one, off in zip(rates[way], rates["off"], strict=True))
                for way in ("on", "logged")
            },
            "every_jobs_per_second": rates,
        }

    def _turn(self, way: Any) -> float:
        self._server.empty()
        with contextlib.ExitStack() as stack:
            settings = stack.enter_context(way(self._server.url, self._folder))
            worker = start_worker(
                self._server.url, self._folder / STORE, self._folder, concurrency=2, name="telling", **settings
            )
            stack.callback(worker.stop)
            client = stack.enter_context(Client(self._server.url))
            if port := settings.get("HEADRACE_METRICS_PORT"):
                stack.enter_context(_scraped(int(port)))
            count = int(self._rate(client, _FIRST) * self._sizes.seconds)
            return self._rate(client, max(_FIRST, count))

    def _rate(self, client: Client, count: int) -> float:
        """Jobs a second, from the first submit to the last result in hand."""
        rows, model = cycle(self._rows), next(iter(TITLES))
        began = time.perf_counter()
        jobs: list[Any] = []
        while len(jobs) < count:
            jobs += client.submit_many(model, islice(rows, min(_PART, count - len(jobs))))
        for job in client.as_completed(jobs, timeout=_PATIENCE):
            job.result()
        return count / (time.perf_counter() - began)


@contextlib.contextmanager
def _off(url: str, folder: Path) -> Iterator[dict[str, str]]:  # noqa: ARG001  # the signature of a way
    yield {"HEADRACE_EVENTS": "0"}


@contextlib.contextmanager
def _on(url: str, folder: Path) -> Iterator[dict[str, str]]:
    """Events that somebody hears, metrics that are scraped, health, Sentry, OpenTelemetry; no trace is sampled."""
    listener = subprocess.Popen([sys.executable, "-c", LISTENER, url], stdout=subprocess.PIPE, text=True)
    sink = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    there = f"127.0.0.1:{sink.server_port}"
    try:
        assert listener.stdout is not None
        listener.stdout.readline()
        yield {
            "HEADRACE_METRICS_PORT": str(_free_port()),
            "HEADRACE_HEALTH_FILE": str(folder / "health"),
            "SENTRY_DSN": f"http://key@{there}/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{there}",
        }
    finally:
        listener.kill()
        listener.wait()
        sink.shutdown()
        sink.server_close()


@contextlib.contextmanager
def _logged(url: str, folder: Path) -> Iterator[dict[str, str]]:
    with _on(url, folder) as settings:
        to = f"file:{folder / 'predictions'}"
        yield {**settings, "HEADRACE_PREDICTION_LOG": "full", "HEADRACE_PREDICTION_LOG_TO": to}


class _Sink(BaseHTTPRequestHandler):
    """Takes what Sentry's and OpenTelemetry's SDKs send, and throws it away."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """It is no news."""


@contextlib.contextmanager
def _scraped(port: int) -> Iterator[None]:
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_EVERY):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_EVERY) as reply:
                reply.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as probe:
        return probe.server_port
