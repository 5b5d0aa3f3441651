"""Servers as they are started, asked and stopped: the gateway with its worker and Redis, and the others."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bulk.processes import cpu_seconds
from benchmarks.environments import EnvironmentFailed, interpreter
from benchmarks.http.models import BATCH, BATCH_SECONDS, METHOD, TITLES, UNBATCHED, Models
from benchmarks.redis_server import RedisServer
from headrace_worker.local.stack import start_gateway, start_worker

_ROOT = Path(__file__).parents[2]
#: Seconds until a server must answer.
_READY_SECONDS = 60.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class WayFailed(Exception):
    """The reason why a server has no numbers."""


class Server(NamedTuple):
    """A server that runs."""

    port: int
    #: The path of a model, with its name for `{model}`.
    path: str
    #: Returns the body of a request for a row.
    body: Callable[[list[float]], Any]
    #: Returns the prediction in an answer; None where the answer has none.
    prediction: Callable[[Any], Any] | None
    #: Returns the processor seconds so far, by part.
    cpu: Callable[[], Mapping[str, float]]
    #: The end of a model's name for one connection.
    single: str = ""

    def path_of(self, model: str, connections: int) -> str:
        """Return the path to request over this many connections."""
        return self.path.format(model=model + self.single if connections == 1 else model)

    def bodies(self, rows: Sequence[list[float]]) -> list[str]:
        """Return the bodies of requests, one for each row."""
        return [json.dumps(self.body(row)) for row in rows]

    def ask(self, model: str, row: list[float]) -> Any:
        """Return the answer to one request. Raises WayFailed for another status than 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", self.path.format(model=model), json.dumps(self.body(row)), headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise WayFailed(f"it answered {answer.status} to a prediction: {text[:200]!r}")
        return json.loads(text)


class Way(NamedTuple):
    """A server by its title, and how it is started. `settings` describes it for the page."""

    title: str
    start: Callable[[Site], contextlib.AbstractContextManager[Server]]
    settings: str


class Site:
    """The Redis and the models of the suite; `interpreters` are those to use, by name of the environment."""

    def __init__(self, server: RedisServer, folder: Path, models: Models, interpreters: Mapping[str, str]) -> None:
        self.server, self.folder, self.models, self._interpreters = server, folder, models, interpreters

    @contextlib.contextmanager
    def gateway(self) -> Iterator[Server]:
        """Run a worker with one pool process, and a gateway of one process."""
        url, port = self.server.url, _free_port()
        worker = start_worker(url, self.models.store, self.folder, concurrency=1, **_ONE_THREAD)
        try:
            gateway = start_gateway(url, self.folder, port=port, HEADRACE_GATEWAY_LOG_REQUESTS="false")
            try:
                yield Server(
                    port=port,
                    path="/v1/models/{model}:predict",
                    body=lambda row: {"instances": [row], "parameters": {"method": METHOD}},
                    prediction=lambda answer: answer["predictions"][0],
                    cpu=lambda: {
                        "gateway": cpu_seconds(gateway.process.pid),
                        "worker": cpu_seconds(worker.process.pid),
                        "redis": self.server.cpu_seconds(),
                    },
                    single=UNBATCHED,
                )
            finally:
                gateway.stop()
        finally:
            worker.stop()

    @contextlib.contextmanager
    def fastapi(self, processes: int) -> Iterator[Server]:
        """Run FastAPI with the models in its processes."""
        module = "benchmarks.http.servers.fastapi_in_process"
        port = _free_port()
        with self._program(
            [sys.executable, "-m", module, str(port), str(self.models.folder), str(processes)], "fastapi"
        ) as cpu:
            yield Server(
                port=port,
                path="/models/{model}",
                body=lambda row: {"instances": [row]},
                prediction=lambda answer: answer["predictions"][0],
                cpu=cpu,
            )

    @contextlib.contextmanager
    def fixed(self) -> Iterator[Server]:
        """Run the framework of the gateway with a fixed answer."""
        port = _free_port()
        module = "benchmarks.http.servers.fixed_answer"
        with self._program([sys.executable, "-m", module, str(port)], "fixed") as cpu:
            yield Server(
                port=port,
                path="/models/{model}",
                body=lambda row: {"instances": [row], "parameters": {"method": METHOD}},
                prediction=None,
                cpu=cpu,
            )

    @contextlib.contextmanager
    def mlserver(self, workers: int) -> Iterator[Server]:
        """Run MLServer with adaptive batching; `workers` are its inference processes, 0 for none but itself."""
        try:
            python = self._interpreters.get("mlserver") or interpreter("mlserver")
        except EnvironmentFailed as error:
            raise WayFailed(str(error)) from None
        command = Path(python).parent / "mlserver"
        if not command.exists():
            raise WayFailed(f"there is no {command}")
        ports = [_free_port() for _ in range(3)]
        folder = _write_mlserver(self.folder / f"mlserver-{workers}", self.models, workers, ports)
        with self._program([str(command), "start", str(folder)], f"mlserver-{workers}") as cpu:
            yield Server(
                port=ports[0],
                path="/v2/models/{model}/infer",
                body=lambda row: {
                    "inputs": [{"name": "predict", "shape": [1, len(row)], "datatype": "FP64", "data": row}],
                    "outputs": [{"name": METHOD}],
                },
                prediction=lambda answer: answer["outputs"][0]["data"],
                cpu=cpu,
            )

    @contextlib.contextmanager
    def _program(self, command: list[str], name: str) -> Iterator[Callable[[], dict[str, float]]]:
        """Run a program until the block ends; yield a function that returns its processor seconds."""
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield lambda: {"server": _cpu_of(process, log)}
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cpu_of(process: subprocess.Popen[bytes], log: Path) -> float:
    """Return the processor seconds of a program. Raises WayFailed if it has ended."""
    if process.poll() is not None:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise WayFailed(f"it ended with {process.returncode}: {lines[-1] if lines else 'no output'}")
    return cpu_seconds(process.pid)


def wait_until_it_predicts(site: Site, server: Server) -> None:
    """Wait until a server predicts with each model as the estimator does in process. Raises WayFailed."""
    rows = site.models.rows.tolist()
    deadline = time.monotonic() + _READY_SECONDS
    for model in TITLES:
        while True:
            server.cpu()
            try:
                answer = server.ask(model, rows[3])
                break
            except (OSError, WayFailed) as error:
                if time.monotonic() > deadline:
                    raise WayFailed(f"it did not answer within {_READY_SECONDS:.0f} s: {error}") from None
                time.sleep(0.1)
        if server.prediction is not None:
            site.models.check(model, 3, server.prediction(answer))


def _write_mlserver(folder: Path, models: Models, workers: int, ports: Sequence[int]) -> Path:
    folder.mkdir(exist_ok=True)
    http_port, grpc_port, metrics_port = ports
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "parallel_workers": workers,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for model in TITLES:
        (folder / model).mkdir(exist_ok=True)
        model_settings = {
            "name": model,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(models.folder / f"{model}.joblib"), "version": "1"},
            "max_batch_size": BATCH,
            "max_batch_time": BATCH_SECONDS,
        }
        (folder / model / "model-settings.json").write_text(json.dumps(model_settings))
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_BATCHING = f"adaptive batching, max_batch_size {BATCH}, max_batch_time {BATCH_SECONDS:g} s"
_WAITING = f"--max-batch-instances {BATCH} --max-batch-wait {BATCH_SECONDS:g}; neither with one connection"

HEADRACE, FASTAPI, FIXED = "headrace", "fastapi", "fixed"
#: MLServer in two configurations; it is compared by the better one.
MLSERVERS = ("mlserver", "mlserver-inline")
WAYS: dict[str, Way] = {
    HEADRACE: Way(
        "Headrace gateway", Site.gateway, f"one gateway process, one worker with one pool process; {_WAITING}"
    ),
    FASTAPI: Way("FastAPI, model in process", lambda site: site.fastapi(1), "one process, `async def`"),
    "fastapi-2": Way("FastAPI, two processes", lambda site: site.fastapi(2), "the same with `--workers 2`"),
    MLSERVERS[0]: Way(
        "MLServer, a process for inference", lambda site: site.mlserver(1), f"{_BATCHING}, parallel_workers 1"
    ),
    MLSERVERS[1]: Way(
        "MLServer, inference in its process", lambda site: site.mlserver(0), f"{_BATCHING}, parallel_workers 0"
    ),
    FIXED: Way("a fixed answer of Starlette", Site.fixed, "reads the body, predicts nothing"),
}
