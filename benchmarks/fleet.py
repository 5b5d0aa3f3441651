"""The cost of a fleet of workers to Redis, idle and for a job.

Counts are exact, and alike on every machine. Times are not: on a busy machine they are upper bounds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import redis

from benchmarks.command_counts import Counts, ScriptCounter, count_commands
from benchmarks.models import FLEET_STORE, make_fleet
from benchmarks.outages import measure_outages
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import Sizes
from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_workers

#: Workers that start at a time, and the seconds they have.
_STARTED_TOGETHER, _READY_SECONDS = 4, 120.0
#: Seconds to wait for an outcome.
_TIMEOUT = 90.0


class Fleet:
    """Fleets of several sizes, each on a Redis of its own. The models are written into `folder`."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder, self._sizes = folder, sizes
        self._models = make_fleet(folder, max(sizes.many[1], *(models for _, models in sizes.fleets)))
        self._row = json.loads((folder / "rows.json").read_text())[0]

    def run(self) -> dict[str, Any]:
        """Measure all fleets: a row for each, and the seconds to the first outcomes after an outage."""
        return {
            "fleets": [self._measure(workers, models) for workers, models in self._sizes.fleets],
            "many": self._measure_many(*self._sizes.many),
            "outage": measure_outages(self._folder, self._sizes, self._sizes.outage_seconds, self._sizes.outages),
        }

    # --- what a fleet costs -----------------------------------------------------------------------------

    def _measure(self, workers: int, models: int) -> dict[str, Any]:
        """Measure real workers, with one pool process each, that serve the same models."""
        print(f"a fleet of {workers} workers and {models} models", file=sys.stderr)
        names = self._models[:models]
        with self._server() as (redis_server, server), contextlib.ExitStack() as stack:
            for first in range(0, workers, _STARTED_TOGETHER):
                together = range(first, min(first + _STARTED_TOGETHER, workers))
                environs = {f"fleet-{number}": {"HEADRACE_SERVE": ",".join(names)} for number in together}
                for child in self._start(redis_server, environs):
                    stack.callback(child.stop)
            client = stack.enter_context(Client(redis_server.url))
            self._run_jobs(client, names, 2 * models)
            idle = self._count_idle(server)
            before = _count(server)
            round_trips = self._run_jobs(client, names, self._sizes.fleet_jobs)
            total = _count(server) - before
            scripts = self._count_scripts(redis_server.port, client, names)
        jobs, extra = self._sizes.fleet_jobs, total.beyond(idle)
        return {
            "workers": workers,
            "models": models,
            "idle": _per_second(idle),
            "jobs": jobs,
            "jobs_per_second": jobs / total.seconds,
            "round_trip_ms": {"p50": 1000 * median(round_trips), "p99": 1000 * quantiles(round_trips, n=100)[98]},
            "commands_per_job": extra.commands / jobs,
            "scripts_per_job": extra.scripts / jobs,
            "redis_ms_per_job": 1000 * extra.cpu_seconds / jobs,
            "claims_per_job": sum(
                scripts.get(name, 0.0) for name in scripts if name.startswith(("claim", "blmove"))
            ),
            "each_script_per_job": scripts,
        }

    def _count_scripts(self, port: int, client: Client, models: Sequence[str]) -> dict[str, float]:
        """Return the calls of each script for a job, beyond those of the idle fleet, and those of BLMOVE."""
        counter, jobs = ScriptCounter(port), self._sizes.fleet_jobs // 2
        time.sleep(self._sizes.settle_seconds)
        with counter.counting() as idle:
            time.sleep(self._sizes.idle_seconds)
        started = time.monotonic()
        with counter.counting() as total:
            self._run_jobs(client, models, jobs)
            seconds = time.monotonic() - started
        share = seconds / self._sizes.idle_seconds
        return {name: (calls - share * idle[name]) / jobs for name, calls in sorted(total.items())}

    def _measure_many(self, workers: int, models: int) -> dict[str, Any]:
        """Count the commands of idle workers without pool processes (`many_workers`)."""
        print(f"a fleet of {workers} idle workers and {models} models", file=sys.stderr)
        names = self._models[:models]
        with self._server() as (redis_server, server), self._many_workers(redis_server.url, workers, names):
            idle = self._count_idle(server)
        return {"workers": workers, "models": models, "idle": _per_second(idle)}

    @contextlib.contextmanager
    def _many_workers(self, url: str, count: int, models: Sequence[str]) -> Iterator[None]:
        log = self._folder / "many-workers.log"
        command = [sys.executable, "-m", "benchmarks.many_workers", str(count), ",".join(models)]
        environ = {
            "HEADRACE_REDIS_URL": url,
            "HEADRACE_MODELS": str(self._folder / FLEET_STORE),
            "HEADRACE_SERVE": ",".join(models),
        }
        with log.open("ab") as output:
            parent = subprocess.Popen(
                command,
                env={**os.environ, **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process; the other ends with its stdin
            )
        assert parent.stdin is not None
        assert parent.stdout is not None
        with parent, contextlib.closing(parent.stdin):
            if parent.stdout.readline() != b"ready\n":
                lines = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"the workers did not become ready; last lines of {log}:\n{lines}")
            yield

    # --- shared -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _server(self) -> Iterator[tuple[EmbeddedRedis, RedisServer]]:
        with EmbeddedRedis("--appendfsync", "everysec") as redis_server:
            server = RedisServer(redis_server.url)
            try:
                yield redis_server, server
            finally:
                with contextlib.suppress(redis.RedisError):
                    server.close()

    def _start(self, redis_server: EmbeddedRedis, environs: Mapping[str, Mapping[str, str]]) -> list[Child]:
        store = self._folder / FLEET_STORE
        return start_workers(
            redis_server.url, store, self._folder, environs, concurrency=1, ready_seconds=_READY_SECONDS
        )

    def _count_idle(self, server: RedisServer) -> Counts:
        time.sleep(self._sizes.settle_seconds)
        before = _count(server)
        time.sleep(self._sizes.idle_seconds)
        return _count(server) - before

    def _run_jobs(self, client: Client, models: Sequence[str], count: int) -> list[float]:
        """Run jobs one by one, of each model in turn; return the seconds of each."""
        round_trips = []
        for model in itertools.islice(itertools.cycle(models), count):
            started = time.perf_counter()
            client.predict(model, self._row, timeout=_TIMEOUT)
            round_trips.append(time.perf_counter() - started)
        return round_trips


def _count(server: RedisServer) -> Counts:
    return count_commands(server.client, server.cpu_seconds())


def _per_second(counts: Counts) -> dict[str, float]:
    return {
        "commands_per_second": counts.commands / counts.seconds,
        "scripts_per_second": counts.scripts / counts.seconds,
        "redis_percent": 100 * counts.cpu_seconds / counts.seconds,
    }
