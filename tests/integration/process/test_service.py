"""A worker serves the models of its store: those at its start and those added later, but no corrupt version."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from celery.concurrency.asynpool import PROC_ALIVE_TIMEOUT

from headrace import Client, JobFailed, Settings
from headrace.errors import UnknownModel
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.process import pool_child
from headrace_worker.process.service import WorkerService
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.constant_models import add_constant
from tests.support.processes import child_pids, private_bytes
from tests.support.waiting import wait_until

#: Seconds in which an added version is served, on a busy machine.
FOLLOW_SECONDS = 20.0


class Stack(NamedTuple):
    """A worker that started with an empty store."""

    url: str
    store: Store
    worker: Child


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with EmbeddedRedis("--appendfsync", "no") as redis:
        models = folder / "models"
        worker = start_worker(redis.url, models, folder, concurrency=2, **hostile_models.SERVING)
        try:
            yield Stack(redis.url, Store(models), worker)
        finally:
            worker.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """A client that leaves the check of instances to the worker."""
    with Client(stack.url, check=False) as client:
        yield client


def add(store: Store, name: str, constant: float) -> None:
    """Add the next version of a constant model."""
    add_constant(store, store.path.parent, name, constant)


def add_changed(store: Store, name: str, constant: float, change: Callable[[Path], None], folder: Path) -> None:
    """Add the next version of a constant model, changed on disk before any worker can see it."""
    copy = Store(folder / "models")
    shutil.copytree(store.path / name, copy.path / name)
    add(copy, name, constant)
    version = copy.latest(name)
    change(copy.path / name / version)
    arriving = store.path / name / ".arriving"
    shutil.copytree(copy.path / name / version, arriving)
    arriving.rename(store.path / name / version)


def corrupt_artifact(version: Path) -> None:
    path = version / "artifact.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_expected(version: Path) -> None:
    path = version / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["example"]["expected"]["predict"][0] += 1
    path.write_text(json.dumps(manifest))


def predict(client: Client, model: str, **options: Any) -> Any:
    return client.predict(model, [7.0], timeout=FOLLOW_SECONDS, **options).prediction


def test_a_model_added_while_the_worker_runs_is_served(stack: Stack, client: Client):
    job = client.submit("added", [7.0])  # waits for a worker that serves the model
    assert job.status() == "waiting"
    add(stack.store, "added", 1.5)
    assert job.result(timeout=FOLLOW_SECONDS).prediction == 1.5
    with Client(stack.url) as checking_client:
        wait_until(lambda: "added" in checking_client.models())
        assert checking_client.contract("added").version == "1"


def test_a_version_added_while_the_worker_runs_is_served_and_the_former_one_on_demand(
    stack: Stack, client: Client
):
    add(stack.store, "grown", 1.0)
    assert predict(client, "grown") == 1.0
    add(stack.store, "grown", 2.0)
    wait_until(lambda: predict(client, "grown") == 2.0)
    assert predict(client, "grown", version="1") == 1.0
    assert predict(client, "grown", version="2") == 2.0
    # Each pool process follows for itself.
    wait_until(lambda: client.predict("grown", [7.0], timeout=FOLLOW_SECONDS).version == "2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (corrupt_artifact, "has another digest than its manifest says"),
        (change_expected, "gives other predictions"),
    ],
)
def test_a_corrupt_version_never_serves_and_the_former_one_goes_on(
    stack: Stack, client: Client, tmp_path: Path, change: Callable[[Path], None], reason: str
):
    name = f"broken-by-{change.__name__}".replace("_", "-")
    add(stack.store, name, 1.0)
    assert predict(client, name) == 1.0
    add_changed(stack.store, name, 2.0, change, tmp_path)
    # A job that names the version fails with the reason. After that, the worker has seen the version.
    with pytest.raises(JobFailed, match=f"{name}@2 {reason}") as failed:
        predict(client, name, version="2")
    assert failed.value.reason == "permanent"
    wait_until(lambda: f"{name}@2 {reason}" in stack.worker.log.read_text())
    assert {predict(client, name) for _ in range(10)} == {1.0}
    with Client(stack.url) as checking_client:
        wait_until(lambda: name in checking_client.models())
        assert checking_client.contract(name).version == "1"
        with pytest.raises(UnknownModel):
            checking_client.contract(name, "2")
    add(stack.store, name, 3.0)
    wait_until(lambda: predict(client, name) == 3.0)


def test_a_job_for_a_missing_version_fails_and_a_loaded_version_serves_without_its_files(
    stack: Stack, client: Client
):
    add(stack.store, "queue-of", 1.0)
    assert predict(client, "queue-of") == 1.0
    shutil.rmtree(stack.store.path / "queue-of")
    with pytest.raises(JobFailed, match=r"has no version '9'|no model 'queue-of'") as failed:
        predict(client, "queue-of", version="9")
    assert failed.value.reason == "unknown model"
    assert predict(client, "queue-of") == 1.0


def test_a_job_of_a_model_that_no_worker_serves_waits(client: Client):
    job = client.submit("missing", [7.0])
    assert worker_has_polled(client)
    assert job.status() == "waiting"
    assert job.cancel()


def worker_has_polled(client: Client) -> bool:
    """Wait until the worker has polled its queues: it runs a job of another model, if it has one."""
    others = [name for name in client.models() if name.startswith(("added", "grown"))]
    return not others or bool(predict(client, others[0]))


def test_a_pool_process_computes_in_one_thread_and_shares_the_memory_of_models(stack: Stack, tmp_path: Path):
    folder = tmp_path
    ballast = 160 * 1024**2
    hostile_models.add(Store(folder / "models"), ballast=ballast)
    with EmbeddedRedis("--appendfsync", "no") as redis, Client(redis.url) as client:
        worker = start_worker(redis.url, folder / "models", folder, concurrency=2, **hostile_models.SERVING)
        try:
            assert (
                client.predict("obedient", hostile_models.instance("report threads"), timeout=20).prediction == 1
            )
            jobs = client.submit_many("obedient", [hostile_models.instance("report process")] * 500)
            pids = {int(job.result(timeout=20).prediction) for job in jobs}
            pids |= child_pids(worker.process.pid)
            assert len(pids) >= 2
            private = [private_bytes(pid) for pid in pids]
        finally:
            worker.stop()
    assert max(private) < ballast / 2, private


def test_a_worker_of_certain_models_or_queues_serves_no_others(tmp_path: Path):
    store = Store(tmp_path / "models")
    for constant, name in enumerate(["by-name", "by-queue", "unserved"]):
        add(store, name, float(constant))
    with EmbeddedRedis("--appendfsync", "no") as redis, Client(redis.url, check=False) as client:

        def start(name: str, *options: str) -> Child:
            return Child(
                name,
                ["headrace.cli", "worker", "--url", redis.url, "--store", str(store.path), "-c", "1", *options],
                {"HEADRACE_READY_FILE": str(tmp_path / f"{name}.ready")},
                tmp_path / f"{name}.log",
            )

        workers = [start("one", "--models", "by-name"), start("two", "-Q", "predict.by-queue")]
        try:
            unserved = client.submit("unserved", [7.0])
            wait_until(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
            add(store, "added", 3.0)
            added = client.submit("added", [7.0])
            deadline = time.monotonic() + 2.5  # twice as long as a worker takes to notice a change of its store
            while time.monotonic() < deadline:
                assert predict(client, "by-name") == 0.0
                assert predict(client, "by-queue") == 1.0
            assert (unserved.status(), added.status()) == ("waiting", "waiting")
            assert client.models() == ["by-name", "by-queue"]
        finally:
            for worker in workers:
                worker.stop()


def test_a_worker_whose_only_model_is_corrupt_exits_with_the_reason(tmp_path: Path):
    store = Store(tmp_path / "models")
    add(store, "churn", 1.0)
    corrupt_artifact(store.path / "churn" / "1")
    with EmbeddedRedis("--appendfsync", "no") as redis:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", "worker", "--url", redis.url, "--store", str(store.path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        with Client(redis.url) as client:
            assert client.models() == []
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "headrace: none of the worker's models can be served: churn@1 has another digest than its manifest"
    )
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("listens", [True, False], ids=["silent", "unreachable"])
def test_a_pool_process_is_ready_soon_whatever_redis_does(listens: bool, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()  # and never answers
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        child = WorkerService(WorkerSettings(redis_url=url, models=str(tmp_path))).pool_child
        started_at = time.monotonic()
        child.warm_up(Celery(), "w1")
        # One try: with the timeout of a command, the process would not be ready in time.
        assert time.monotonic() - started_at < Settings().command_timeout
        assert pool_child._WARM_UP_TIMEOUT < PROC_ALIVE_TIMEOUT / 2
        server.setblocking(False)
        if listens:
            server.accept()[0].close()
            with pytest.raises(BlockingIOError):
                server.accept()
        runner = child.get_runner(Celery(), "w1")
        child.warm_up(Celery(), "w1")
        assert child.get_runner(Celery(), "w1") is runner
