"""The cost of telemetry: the same worker with it off, on, and on with the full prediction log, in turns."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.models import STORE, TITLES
from benchmarks.peers.headrace_watched import LISTENER
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import Sizes
from headrace import Client
from headrace_worker.local.stack import start_worker

#: Seconds between two scrapes of the metrics; Prometheus's default is 60.
_SCRAPE_SECONDS = 5.0
#: Seconds to wait for results.
_TIMEOUT = 60.0
#: Jobs that calibrate a turn, and jobs of one submit_many.
_CALIBRATION_JOBS, _CHUNK = 2_000, 5_000

#: Sets up a mode, given the Redis URL and a folder; yields the worker's settings.
Mode = Callable[[str, Path], AbstractContextManager[dict[str, str]]]


class TelemetryCost:
    """The comparison of one worker's throughput in each mode."""

    def __init__(self, server: RedisServer, folder: Path, sizes: Sizes) -> None:
        self._server, self._folder, self._sizes = server, folder, sizes
        self._rows = json.loads((folder / "rows.json").read_text())

    def run(self) -> dict[str, Any]:
        """Measure all modes: jobs per second, and the share of the rate of `off` in the same turn, as medians."""
        modes: dict[str, Mode] = {"off": _off, "on": _on, "logged": _logged}
        rates: dict[str, list[float]] = {name: [] for name in modes}
        for number in range(self._sizes.telemetry_turns):
            for name in modes if number % 2 == 0 else reversed(modes):
                print(f"telemetry: {name}", file=sys.stderr)
                rates[name].append(self._turn(modes[name]))
        return {
            "jobs_per_second": {name: statistics.median(turns) for name, turns in rates.items()},
            "share_of_off": {
                name: statistics.median(rate / off for rate, off in zip(rates[name], rates["off"], strict=True))
                for name in ("on", "logged")
            },
            "every_jobs_per_second": rates,
        }

    def _turn(self, mode: Mode) -> float:
        self._server.reset()
        with contextlib.ExitStack() as stack:
            settings = stack.enter_context(mode(self._server.url, self._folder))
            worker = start_worker(
                self._server.url, self._folder / STORE, self._folder, concurrency=2, name="telemetry", **settings
            )
            stack.callback(worker.stop)
            client = stack.enter_context(Client(self._server.url))
            if port := settings.get("HEADRACE_METRICS_PORT"):
                stack.enter_context(_scraped(int(port)))
            count = int(self._rate(client, _CALIBRATION_JOBS) * self._sizes.seconds)
            return self._rate(client, max(_CALIBRATION_JOBS, count))

    def _rate(self, client: Client, count: int) -> float:
        """Return the jobs per second from the first submission to the last result."""
        rows, model = cycle(self._rows), next(iter(TITLES))
        started = time.perf_counter()
        jobs: list[Any] = []
        while len(jobs) < count:
            jobs += client.submit_many(model, islice(rows, min(_CHUNK, count - len(jobs))))
        for job in client.as_completed(jobs, timeout=_TIMEOUT):
            job.result()
        return count / (time.perf_counter() - started)


@contextlib.contextmanager
def _off(url: str, folder: Path) -> Iterator[dict[str, str]]:  # noqa: ARG001  # the signature of a mode
    yield {"HEADRACE_EVENTS": "0"}


@contextlib.contextmanager
def _on(url: str, folder: Path) -> Iterator[dict[str, str]]:
    """Turn on events with a subscriber, scraped metrics, health, Sentry and OpenTelemetry; sample no trace."""
    listener = subprocess.Popen([sys.executable, "-c", LISTENER, url], stdout=subprocess.PIPE, text=True)
    sink = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{sink.server_port}"
    try:
        assert listener.stdout is not None
        listener.stdout.readline()
        yield {
            "HEADRACE_METRICS_PORT": str(_free_port()),
            "HEADRACE_HEALTH_FILE": str(folder / "health"),
            "SENTRY_DSN": f"http://key@{address}/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        }
    finally:
        listener.kill()
        listener.wait()
        sink.shutdown()
        sink.server_close()


@contextlib.contextmanager
def _logged(url: str, folder: Path) -> Iterator[dict[str, str]]:
    with _on(url, folder) as settings:
        target = f"file:{folder / 'predictions'}"
        yield {**settings, "HEADRACE_PREDICTION_LOG": "full", "HEADRACE_PREDICTION_LOG_TO": target}


class _Sink(BaseHTTPRequestHandler):
    """A server that accepts and drops what the SDKs of Sentry and OpenTelemetry send."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Scrape the worker's metrics at an interval while the context lasts."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(_SCRAPE_SECONDS):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_SECONDS) as reply:
                reply.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as probe:
        return probe.server_port
