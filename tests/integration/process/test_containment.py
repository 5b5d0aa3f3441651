"""Real workers run a misbehaving model: of 32 jobs the failing one fails, and no other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace.errors import JobFailed
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.process.service import WorkerService
from headrace_worker.settings import WorkerSettings
from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.message import claim_message
from tests.support import misbehaving_models as actions
from tests.support.claim_models import NOTHING, SLEEP, add_model, running_worker
from tests.support.served_worker import is_clean
from tests.support.waiting import wait_until

#: Seconds of the model's soft and hard time limits.
SOFT, HARD = 0.7, 1.5
#: Bytes of memory of each pool process, and bytes of the scratch disk.
MEMORY, SCRATCH = 1_500_000_000, 5_000_000
KEYS = Keys()


class Site:
    """A worker, its Redis and a client."""

    def __init__(self, client: Client, server: redis.Redis, worker: Child, folder: Path) -> None:
        self.client, self.server, self.worker, self.folder = client, server, worker, folder
        self.scratch = folder / "scratch"
        self._number = 100

    def rows(self, count: int, action: int = NOTHING, seconds: float = 0) -> list[list[float]]:
        self._number += count
        return [[number, action, seconds] for number in range(self._number, self._number + count)]

    def run(self, rows: list[list[float]], model: str = "doubling", timeout: float = 90) -> list[str]:
        """Run a job for each row. Return each job's prediction, or the reason and error of its failure."""
        outcomes = []
        jobs = self.client.submit_many(model, rows)
        for job in jobs:
            try:
                outcomes.append(str(job.result(timeout=timeout).prediction))
            except JobFailed as failed:
                outcomes.append(f"{failed.reason} {failed.error}")
        return outcomes


def doubled(rows: list[list[float]]) -> list[str]:
    return [str(2.0 * row[0]) for row in rows]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a folder for temporary files, which is a small disk of its own if it can be mounted."""
    folder = tmp_path_factory.mktemp("contained")
    (folder / "scratch").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SCRATCH}", "tmpfs", str(folder / "scratch")]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder / "scratch")], check=True)


@pytest.fixture(scope="module")
def site(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    store = tmp_path_factory.mktemp("store")
    add_model(store, "doubling", soft_time_limit=SOFT, time_limit=HARD)
    models = add_model(store, "hard", time_limit=HARD)
    with (
        EmbeddedRedis("--appendfsync", "no") as embedded,
        Client(embedded.url, check=False) as client,
        redis.Redis.from_url(embedded.url) as server,
        running_worker(
            url=embedded.url,
            models=models,
            folder=scratch,
            HEADRACE_MEMORY_LIMIT=str(MEMORY),
            HEADRACE_DRAIN="1",
            TMPDIR=str(scratch / "scratch"),
        ) as worker,
    ):
        yield Site(client, server, worker, scratch)


@pytest.mark.parametrize(
    ("action", "expected_end"),
    [
        pytest.param(actions.loop_swallowing_exceptions, "timeout", id="loop that swallows exceptions"),
        pytest.param(actions.loop, "timeout", id="loop"),
        pytest.param(actions.loop_in_c, "timeout", id="loop in C"),
        pytest.param(actions.kill_by_signal, "crash", id="SIGKILL"),
        pytest.param(actions.segfault, "crash", id="segfault"),
        pytest.param(actions.exit_with_success, "crash", id="os._exit(0)"),
        pytest.param(actions.exit_with_failure, "crash", id="os._exit(3)"),
        pytest.param(actions.allocate_at_once, "permanent", id="one array too large"),
        pytest.param(actions.allocate_gradually, "permanent MemoryError", id="memory bit by bit"),
        pytest.param(actions.recurse, "permanent RecursionError", id="recursion"),
        pytest.param(actions.raise_system_exit, "permanent SystemExit", id="SystemExit"),
        pytest.param(actions.raise_keyboard_interrupt, "permanent KeyboardInterrupt", id="KeyboardInterrupt"),
        pytest.param(actions.raise_generator_exit, "permanent GeneratorExit", id="GeneratorExit"),
        pytest.param(actions.fill_disk, "permanent OSError", id="scratch disk"),
    ],
)
def test_one_job_of_32_fails_and_no_other(site: Site, action: Callable[[], None], expected_end: str) -> None:
    if action is actions.fill_disk and not os.path.ismount(site.scratch):
        pytest.skip("a small disk needs a tmpfs, which only root can mount")
    rows, failing = site.rows(31), site.rows(1, actions.action_number(action))
    outcomes = site.run([*rows[:13], *failing, *rows[13:]])
    assert outcomes.pop(13).startswith(expected_end)
    assert outcomes == doubled(rows)
    next_rows = site.rows(2)
    assert site.run(next_rows) == doubled(next_rows)
    assert site.worker.process.poll() is None
    wait_until(lambda: is_clean(site.server))


def test_a_model_without_a_soft_limit_is_killed_at_its_hard_one(site: Site) -> None:
    rows, slow = site.rows(3), site.rows(1, SLEEP, 60)
    assert site.run([*rows, *slow], "hard")[:3] == doubled(rows)
    (outcome,) = site.run(site.rows(1, SLEEP, 60), "hard")
    assert outcome.startswith("timeout")
    wait_until(lambda: is_clean(site.server))


@pytest.mark.parametrize("recycle", [("--max-tasks-per-child", "2"), ("--max-memory-per-child", "1")])
def test_processes_that_are_replaced_cost_no_job(tmp_path: Path, recycle: tuple[str, ...]) -> None:
    models = add_model(tmp_path, "single", max_batch_instances=1)
    with (
        EmbeddedRedis("--appendfsync", "no") as embedded,
        Client(embedded.url, check=False) as client,
        redis.Redis.from_url(embedded.url) as server,
        running_worker(*recycle, url=embedded.url, models=models, folder=tmp_path, HEADRACE_DRAIN="1") as worker,
    ):
        site = Site(client, server, worker, tmp_path)
        rows = site.rows(12)
        assert site.run(rows, "single") == doubled(rows)
        wait_until(lambda: is_clean(site.server))
        calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line != "1"]
        assert sorted(calls) == sorted(str(int(row[0])) for row in rows)


def test_a_model_has_its_own_limits_or_those_of_the_worker(tmp_path: Path) -> None:
    add_model(tmp_path, "free")
    add_model(tmp_path, "soft", soft_time_limit=5)
    add_model(tmp_path, "late", soft_time_limit=9)
    models = add_model(tmp_path, "both", soft_time_limit=9, time_limit=10)
    service = WorkerService(WorkerSettings(models=str(models), trust_pickle=True, time_limit=7))
    assert service.registry.preload() == {}
    limits = {
        model: service.limits_for(f"predict.{model}").time_limits for model in service.registry.store.models()
    }
    assert limits == {"free": (7, None), "soft": (7, 5), "late": (7, None), "both": (10, 9)}
    claim = Claim(lease=Lease(name="me/1", queue="predict.soft", origins=((1, 1),)), queued_messages=[b"{}"])
    assert claim_message(claim, limits["soft"])["headers"]["timelimit"] == [7, 5]
