"""Which models a worker serves, and when: what it starts with, what is added, what is broken."""

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
import skops.io
from celery import Celery
from sklearn.dummy import DummyRegressor

from headrace import Client, JobFailed
from headrace.errors import UnknownModel
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.packaging.package import package
from headrace_worker.process.service import WorkerService
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.waiting import wait_until

#: Seconds within which what was added to the store is served, on a busy machine.
SOON = 20.0


class Running(NamedTuple):
    """A worker that began with an empty store."""

    url: str
    store: Store
    worker: Child


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stack")
    with EmbeddedRedis("--appendfsync", "no") as redis:
        models = folder / "models"
        worker = start_worker(redis.url, models, folder, concurrency=2, **hostile_models.SERVING)
        try:
            yield Running(redis.url, Store(models), worker)
        finally:
            worker.stop()


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """A client that does not look at contracts: the worker decides."""
    with Client(running.url, check=False) as client:
        yield client


def add(store: Store, name: str, constant: float) -> None:
    """The next version of a model that always answers the same."""
    folder = store.path.parent
    file, example = folder / f"{name}.skops", folder / f"{name}.json"
    skops.io.dump(DummyRegressor(strategy="constant", constant=constant).fit([[0.0]], [constant]), file)
    example.write_text("[[1.0], [2.0]]")
    package(store, file, name=name, example=example)


def put(store: Store, name: str, constant: float, change: Callable[[Path], None], aside: Path) -> None:
    """The next version of a model, changed on disk before any worker can see it."""
    copy = Store(aside / "models")
    shutil.copytree(store.path / name, copy.path / name)
    add(copy, name, constant)
    version = copy.latest(name)
    change(copy.path / name / version)
    arriving = store.path / name / ".arriving"
    shutil.copytree(copy.path / name / version, arriving)
    arriving.rename(store.path / name / version)


def spoil(version: Path) -> None:
    path = version / "artifact.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def expect_another(version: Path) -> None:
    path = version / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["example"]["expected"]["predict"][0] += 1
    path.write_text(json.dumps(manifest))


def answer(client: Client, model: str, **options: Any) -> Any:
    return client.predict(model, [7.0], timeout=SOON, **options).prediction


def test_a_model_added_while_the_worker_runs_is_served(running: Running, client: Client):
    job = client.submit("added", [7.0])  # waits for a worker that knows the model
    assert job.status() == "queued"
    add(running.store, "added", 1.5)
    assert job.result(timeout=SOON).prediction == 1.5
    with Client(running.url) as checking:
        wait_until(lambda: "added" in checking.models())
        assert checking.contract("added").version == "1"


def test_a_version_added_while_the_worker_runs_is_served_and_the_former_one_on_demand(
    running: Running, client: Client
):
    add(running.store, "grown", 1.0)
    assert answer(client, "grown") == 1.0
    add(running.store, "grown", 2.0)
    wait_until(lambda: answer(client, "grown") == 2.0)
    assert answer(client, "grown", version="1") == 1.0
    assert answer(client, "grown", version="2") == 2.0
    assert client.predict("grown", [7.0], timeout=SOON).version == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [(spoil, "has another digest than its manifest says"), (expect_another, "gives other predictions")],
)
def test_a_broken_version_never_serves_and_the_former_one_serves_on(
    running: Running, client: Client, tmp_path: Path, change: Callable[[Path], None], said: str
):
    name = f"broken-by-{change.__name__}".replace("_", "-")
    add(running.store, name, 1.0)
    assert answer(client, name) == 1.0
    put(running.store, name, 2.0, change, tmp_path)
    # Asked for by its number it is refused, in words; by then the worker has seen it.
    with pytest.raises(JobFailed, match=f"{name}@2 {said}") as failed:
        answer(client, name, version="2")
    assert failed.value.reason == "permanent"
    wait_until(lambda: f"{name}@2 {said}" in running.worker.log.read_text())
    assert {answer(client, name) for _ in range(10)} == {1.0}
    with Client(running.url) as checking:
        wait_until(lambda: name in checking.models())
        assert checking.contract(name).version == "1"
        with pytest.raises(UnknownModel):
            checking.contract(name, "2")
    add(running.store, name, 3.0)
    wait_until(lambda: answer(client, name) == 3.0)


def test_a_job_in_the_queue_of_another_model_says_so(running: Running, client: Client):
    add(running.store, "queue-of", 1.0)
    assert answer(client, "queue-of") == 1.0
    shutil.rmtree(running.store.path / "queue-of")
    with pytest.raises(JobFailed, match=r"has no version '9'|no model 'queue-of'") as failed:
        answer(client, "queue-of", version="9")
    assert failed.value.reason == "unknown model"
    # What is in memory serves on while its files are away.
    assert answer(client, "queue-of") == 1.0


def test_a_job_of_a_model_nobody_serves_waits(client: Client):
    job = client.submit("nobody", [7.0])
    assert answer_of_others(client)
    assert job.status() == "queued"
    assert job.cancel()


def answer_of_others(client: Client) -> bool:
    """Whether the worker looked at its queues meanwhile: it answers a job of another model."""
    others = [name for name in client.models() if name.startswith(("added", "grown"))]
    return not others or bool(answer(client, others[0]))


def test_a_pool_process_computes_in_one_thread_and_shares_the_memory_of_models(running: Running, tmp_path: Path):
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
            pids |= children(worker.process.pid)
            assert len(pids) >= 2
            private = [private_bytes(pid) for pid in pids]
        finally:
            worker.stop()
    assert max(private) < ballast / 2, private


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def private_bytes(pid: int) -> int:
    """What the process has for itself alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_a_worker_of_some_models_or_queues_leaves_the_others_alone(tmp_path: Path):
    store = Store(tmp_path / "models")
    for constant, name in enumerate(["by-name", "by-queue", "left"]):
        add(store, name, float(constant))
    with EmbeddedRedis("--appendfsync", "no") as redis, Client(redis.url, check=False) as client:

        def start(name: str, *how: str) -> Child:
            return Child(
                name,
                ["headrace.cli", "worker", "--url", redis.url, "--store", str(store.path), "-c", "1", *how],
                {"HEADRACE_READY_FILE": str(tmp_path / f"{name}.ready")},
                tmp_path / f"{name}.log",
            )

        workers = [start("one", "--models", "by-name"), start("two", "-Q", "predict.by-queue")]
        try:
            left = client.submit("left", [7.0])
            wait_until(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
            add(store, "later", 3.0)
            later = client.submit("later", [7.0])
            deadline = time.monotonic() + 2.5  # two looks at the store, were they looking
            while time.monotonic() < deadline:
                assert answer(client, "by-name") == 0.0
                assert answer(client, "by-queue") == 1.0
            assert (left.status(), later.status()) == ("queued", "queued")
            assert client.models() == ["by-name", "by-queue"]
        finally:
            for worker in workers:
                worker.stop()


def test_a_worker_whose_only_model_is_broken_ends_with_a_sentence(tmp_path: Path):
    store = Store(tmp_path / "models")
    add(store, "churn", 1.0)
    spoil(store.path / "churn" / "1")
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


@pytest.mark.parametrize("listens", [True, False], ids=["silent", "away"])
def test_a_pool_process_is_ready_soon_whatever_redis_does(listens: bool, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()  # and nobody answers
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        child = WorkerService(WorkerSettings(redis_url=url, models=str(tmp_path))).pool_child
        started_at = time.monotonic()
        child.warm_up(Celery(), "w1")
        assert time.monotonic() - started_at < 3  # of the 4 s that Celery gives a process to start
        runner = child.runner(Celery(), "w1")
        child.warm_up(Celery(), "w1")
        assert child.runner(Celery(), "w1") is runner
