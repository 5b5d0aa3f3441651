"""Real workers, and a model that does what no model should: in each case one job of 32 fails, and nothing else."""

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
from tests.support import misbehaving_models as misdeeds
from tests.support.claim_models import NOTHING, SLEEP, add_model, count_claims, running_worker
from tests.support.waiting import wait_until

#: Seconds of the model's limits: it is interrupted, and killed.
SOFT, HARD = 0.7, 1.5
#: Bytes each pool process may take, and the scratch disk.
MEMORY, SCRATCH = 1_500_000_000, 5_000_000
KEYS = Keys()


class Contained:
    """A worker, and all that is asked of it."""

    def __init__(self, client: Client, server: redis.Redis, worker: Child, folder: Path) -> None:
        self.client, self.server, self.worker, self.folder = client, server, worker, folder
        self.scratch = folder / "scratch"
        self._number = 100

    def rows(self, count: int, do: int = NOTHING, seconds: float = 0) -> list[list[float]]:
        self._number += count
        return [[number, do, seconds] for number in range(self._number, self._number + count)]

    def ends(self, rows: list[list[float]], model: str = "doubling", seconds: float = 90) -> dict[str, str]:
        """How each job ended, by its id: its prediction, or reason and error."""
        told = {}
        jobs = self.client.submit_many(model, rows)
        for job in jobs:
            try:
                told[job.id] = str(job.result(timeout=seconds).prediction)
            except JobFailed as failed:
                told[job.id] = f"{failed.reason} {failed.error}"
        assert list(told) == [job.id for job in jobs]
        return told

    def is_clean(self) -> bool:
        kept = ("predict.*", "headrace:lease:*", "headrace:isolated:*", "headrace:delayed:*")
        return not count_claims(self.server) and not any(list(self.server.scan_iter(pattern)) for pattern in kept)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for temporary files: a disk of its own, and a small one, where that can be had."""
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
def contained(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    store = tmp_path_factory.mktemp("store")
    add_model(store, "doubling", soft_time_limit=SOFT, time_limit=HARD)
    models = add_model(store, "hard", time_limit=HARD)
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        Client(own.url, check=False) as client,
        redis.Redis.from_url(own.url) as server,
        running_worker(
            url=own.url,
            models=models,
            folder=scratch,
            HEADRACE_MEMORY_LIMIT=str(MEMORY),
            HEADRACE_DRAIN="1",
            TMPDIR=str(scratch / "scratch"),
        ) as worker,
    ):
        yield Contained(client, server, worker, scratch)


@pytest.mark.parametrize(
    ("misdeed", "ends"),
    [
        pytest.param(misdeeds.loop_swallowing_exceptions, "timeout", id="loop that swallows exceptions"),
        pytest.param(misdeeds.loop, "timeout", id="loop"),
        pytest.param(misdeeds.loop_in_c, "timeout", id="loop in C"),
        pytest.param(misdeeds.kill_by_signal, "crash", id="SIGKILL"),
        pytest.param(misdeeds.segfault, "crash", id="segfault"),
        pytest.param(misdeeds.exit_with_success, "crash", id="os._exit(0)"),
        pytest.param(misdeeds.exit_with_failure, "crash", id="os._exit(3)"),
        pytest.param(misdeeds.allocate_at_once, "permanent", id="one array too large"),
        pytest.param(misdeeds.allocate_gradually, "permanent MemoryError", id="memory bit by bit"),
        pytest.param(misdeeds.recurse, "permanent RecursionError", id="recursion"),
        pytest.param(misdeeds.raise_system_exit, "permanent SystemExit", id="SystemExit"),
        pytest.param(misdeeds.raise_keyboard_interrupt, "permanent KeyboardInterrupt", id="KeyboardInterrupt"),
        pytest.param(misdeeds.raise_generator_exit, "permanent GeneratorExit", id="GeneratorExit"),
        pytest.param(misdeeds.fill_disk, "permanent OSError", id="scratch disk"),
    ],
)
def test_one_job_of_32_fails_and_nothing_else(
    contained: Contained, misdeed: Callable[[], None], ends: str
) -> None:
    if misdeed is misdeeds.fill_disk and not os.path.ismount(contained.scratch):
        pytest.skip("a small disk of its own takes a tmpfs, and that takes root")
    innocent, guilty = contained.rows(31), contained.rows(1, misdeeds.action_number(misdeed))
    expected = [str(2.0 * row[0]) for row in innocent]
    told = list(contained.ends([*innocent[:13], *guilty, *innocent[13:]]).values())
    assert told.pop(13).startswith(ends)
    assert told == expected
    next_rows = contained.rows(2)
    assert list(contained.ends(next_rows).values()) == [str(2.0 * row[0]) for row in next_rows]
    assert contained.worker.process.poll() is None
    wait_until(contained.is_clean)


def test_a_model_without_a_soft_limit_is_killed_at_its_hard_one(contained: Contained) -> None:
    innocent, guilty = contained.rows(3), contained.rows(1, SLEEP, 60)
    assert list(contained.ends([*innocent, *guilty], "hard").values())[:3] == [
        str(2.0 * row[0]) for row in innocent
    ]
    (told,) = contained.ends(contained.rows(1, SLEEP, 60), "hard").values()
    assert told.startswith("timeout")
    wait_until(contained.is_clean)


@pytest.mark.parametrize("recycle", [("--max-tasks-per-child", "2"), ("--max-memory-per-child", "1")])
def test_processes_that_are_replaced_cost_no_job(tmp_path: Path, recycle: tuple[str, ...]) -> None:
    models = add_model(tmp_path, "single", max_batch_instances=1)
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        Client(own.url, check=False) as client,
        redis.Redis.from_url(own.url) as server,
        running_worker(*recycle, url=own.url, models=models, folder=tmp_path, HEADRACE_DRAIN="1") as worker,
    ):
        place = Contained(client, server, worker, tmp_path)
        rows = place.rows(12)
        assert list(place.ends(rows, "single").values()) == [str(2.0 * row[0]) for row in rows]
        wait_until(place.is_clean)
        calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line != "1"]
        assert sorted(calls) == sorted(str(int(row[0])) for row in rows)


def test_a_model_has_its_own_limits_or_those_of_the_worker(tmp_path: Path) -> None:
    add_model(tmp_path, "free")
    add_model(tmp_path, "soft", soft_time_limit=5)
    add_model(tmp_path, "late", soft_time_limit=9)
    models = add_model(tmp_path, "both", soft_time_limit=9, time_limit=10)
    place = WorkerService(WorkerSettings(models=str(models), trust_pickle=True, time_limit=7))
    assert place.registry.preload() == {}
    limits = {model: place.limits_for(f"predict.{model}").time_limits for model in place.registry.store.models()}
    assert limits == {"free": (7, None), "soft": (7, 5), "late": (7, None), "both": (10, 9)}
    claim = Claim(lease=Lease(name="me/1", queue="predict.soft", origins=((1, 1),)), queued_messages=[b"{}"])
    assert claim_message(claim, limits["soft"])["headers"]["timelimit"] == [7, 5]
