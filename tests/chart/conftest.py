"""The engine of the tests that play pods."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest

from tests.chart import engine
from tests.chart.release import prepare
from tests.deploy.stack import Stack


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[None]:
    """Need a running engine, and leave nothing of these tests on it."""
    if not engine.is_running():
        pytest.skip("these tests need a running Docker engine")
    try:
        yield
    finally:
        engine.remove_all()


@pytest.fixture(scope="session")
def prepared(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Make the secrets, the models and the image of the drills, in one process of the tests at a time."""
    with (tmp_path_factory.getbasetemp().parent / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return prepare(tmp_path_factory.mktemp("clone"))
