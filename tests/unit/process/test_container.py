"""A worker takes the cores and the memory of its container or service, not those of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import pytest

from headrace_worker.container import count_cores, read_memory_limit
from headrace_worker.process.startup import describe_memory

NONE_V1 = "9223372036854771712"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)


class Groups:
    """Control groups in files, as the kernel shows them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.membership = folder / "cgroup", folder / "membership"
        self.root.mkdir()

    def write(self, **files: str) -> None:
        """Write files: `/` is `__` in their names, `.` is `_0_`."""
        for name, text in files.items():
            path = self.root / name.replace("__", "/").replace("_0_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    def join(self, text: str) -> None:
        self.membership.write_text(text)

    @property
    def cores(self) -> int:
        return count_cores(self.root, self.membership)

    @property
    def memory(self) -> int | None:
        return read_memory_limit(self.root, self.membership)


@pytest.fixture
def groups(tmp_path: Path, machine: None) -> Groups:
    return Groups(tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("50000", 1), ("100000", 1), ("150000", 2), ("200000", 2), ("201000", 3), ("max", 64), ("6400000000", 64)],
)
def test_a_quota_of_cgroup_v2_is_rounded_up(groups: Groups, quota: str, cores: int) -> None:
    groups.write(cpu_0_max=f"{quota} 100000")
    groups.join("0::/\n")
    assert groups.cores == cores


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("150000", 2), ("-1", 64)])
def test_a_quota_of_cgroup_v1_is_rounded_up(groups: Groups, quota: str, cores: int) -> None:
    groups.write(cpu__cpu_0_cfs_quota_us=quota, cpu__cpu_0_cfs_period_us="100000")
    groups.join("3:cpu,cpuacct:/docker/0123\n")  # the path on the host, which the container does not see
    assert groups.cores == cores


def test_the_smallest_limit_of_a_service_and_the_slices_above_it_holds(groups: Groups) -> None:
    groups.write(
        system_0_slice__worker_0_service__cpu_0_max="300000 100000",
        system_0_slice__cpu_0_max="200000 100000",
        system_0_slice__worker_0_service__memory_0_max="2000000000",
        system_0_slice__memory_0_max="max",
    )
    groups.join("0::/system.slice/worker.service\n")
    assert (groups.cores, groups.memory) == (2, 2_000_000_000)


@pytest.mark.parametrize(("limit", "memory"), [("1000000000", 1_000_000_000), (NONE_V1, None)])
def test_a_memory_limit_of_cgroup_v1(groups: Groups, limit: str, memory: int | None) -> None:
    groups.write(memory__memory_0_limit_in_bytes=limit)
    groups.join("4:memory:/kubepods/pod1\n1:name=systemd:/\n")
    assert groups.memory == memory


def test_nothing_is_limited_where_there_are_no_groups(groups: Groups) -> None:
    assert (groups.cores, groups.memory) == (64, None)


def test_this_machine_has_at_least_one_core_and_at_most_those_of_its_affinity() -> None:
    assert 1 <= count_cores() <= len(os.sched_getaffinity(0))


def test_limits_that_exceed_the_container_are_a_warning() -> None:
    warning, text = describe_memory(container=4_000_000_000, processes=4, limit=2_000_000_000, used=500_000_000)
    assert warning
    assert text == (
        "4 pool processes of HEADRACE_MEMORY_LIMIT=2000000000 exceed the 4000000000 bytes of this container or "
        "service: it may be ended with all its jobs. Set HEADRACE_MEMORY_LIMIT=900000000, or lower --concurrency"
    )


def test_models_that_leave_no_memory_for_jobs_are_a_warning() -> None:
    warning, text = describe_memory(
        container=4_000_000_000, processes=4, limit=0, used=500_000_000, copied=1_000_000_000
    )
    assert warning
    assert "4 pool processes need at least 4500000000 bytes with their models" in text
    assert "lower --concurrency" in text


def test_without_a_limit_the_start_names_a_fitting_one() -> None:
    warning, text = describe_memory(container=4_000_000_000, processes=4, limit=0, used=500_000_000)
    assert not warning
    assert "Set HEADRACE_MEMORY_LIMIT=900000000" in text


def test_limits_that_fit_are_not_mentioned() -> None:
    assert describe_memory(container=4_000_000_000, processes=4, limit=900_000_000, used=500_000_000) == (
        False,
        "",
    )
