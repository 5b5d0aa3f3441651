"""A Redis, a model store, and workers that read one folder and write another."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bulk.processes import cpu_seconds
from benchmarks.redis_server import RedisServer
from headrace import Client
from headrace.wire.bulk import RunProgress
from headrace_worker.local.stack import Child, start_worker

#: Seconds a run may take.
_TIMEOUT = 1800.0
#: The names of the folders in HEADRACE_LOCATIONS.
_INPUT, _OUTPUT = "in", "out"


class RunFailed(Exception):
    """A run that did not end as a success."""


class RunTimes(NamedTuple):
    """The cost of a run, in seconds."""

    progress: RunProgress
    #: From the submission to the end of the run, by the server's clock.
    seconds: float
    #: Processor time of the worker with its pool, of Redis, and of this client.
    worker: float
    redis: float
    client: float

    @property
    def cpu_seconds(self) -> float:
        """The processor time of all processes."""
        return self.worker + self.redis + self.client


class Site:
    """The server, the store and the folders `in` and `out` of a folder."""

    def __init__(self, server: RedisServer, folder: Path, store: Path) -> None:
        self.server, self.folder, self.store = server, folder, store
        self.inputs, self.outputs = folder / _INPUT, folder / _OUTPUT
        for path in (self.inputs, self.outputs):
            path.mkdir(exist_ok=True)
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def worker(self, processes: int, *, bulk_processes: int | None = None) -> Iterator[Child]:
        """Run a worker with pool processes, of which `bulk_processes` may work for runs. None: the default."""
        settings = {
            "HEADRACE_LOCATIONS": f"{_INPUT}={self.inputs}:r,{_OUTPUT}={self.outputs}:w",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if bulk_processes is not None:
            settings["HEADRACE_BULK_PROCESSES"] = str(bulk_processes)
        child = start_worker(self.server.url, self.store, self.folder, concurrency=processes, **settings)
        try:
            yield child
        finally:
            child.stop()

    def run(self, worker: Child, model: str, tables: str, **options: Any) -> tuple[RunTimes, Path]:
        """Predict a folder of `inputs` to its end; return the times and the folder of the parts."""
        name = self.next_name(model)
        redis, pool = self.server.cpu_seconds(), cpu_seconds(worker.process.pid)
        client_cpu = time.process_time()
        with Client(self.server.url) as client:
            run = client.bulk(model, f"{_INPUT}:{tables}", f"{_OUTPUT}:{name}", name=name, **options)
            run.wait(timeout=_TIMEOUT)
            progress = run.status()
        times = RunTimes(
            progress=progress,
            seconds=elapsed_seconds(progress),
            worker=cpu_seconds(worker.process.pid) - pool,
            redis=self.server.cpu_seconds() - redis,
            client=time.process_time() - client_cpu,
        )
        if progress.state != "success" or progress.rows_failed:
            raise RunFailed(
                f"{name} ended as {progress.state}, {progress.rows_failed} rows failed: {progress.error}"
            )
        return times, self.outputs / name

    def next_name(self, model: str) -> str:
        """Return a name for a run that none has had."""
        return f"{model}-{next(self._numbers)}"


def elapsed_seconds(progress: RunProgress) -> float:
    """Return the seconds from the submission of a run to its end."""
    if progress.ended_ms is None:
        raise RunFailed(f"{progress.run.name} has not ended")
    return (progress.ended_ms - progress.submitted_ms) / 1000
