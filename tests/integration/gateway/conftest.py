"""A worker and an open gateway that all tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace_worker.local.demo_models import add_demo_models
from headrace_worker.store.store import Store
from tests.support.claim_models import add_model
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.gateway_callers import KEYED
from tests.support.served_worker import Site, shared

__all__ = ["shared"]  # a fixture


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The path of a model store that all modules share, and the demo models in it. Tests must not change it."""
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "doubling")
    add_model(folder, "single", max_batch_instances=1)
    add_model(folder, "hasty", max_attempts=1, retry_delay=0)
    add_model(folder, "brief", time_limit=1.0)
    return folder / "models", add_demo_models(Store(folder / "models"))


@pytest.fixture(scope="module")
def gateway(shared: Site) -> Iterator[RunningGateway]:
    """An open gateway of the shared site."""
    with running_gateway(shared.url, shared.folder) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def keyed(shared: Site) -> Iterator[RunningGateway]:
    """A gateway of the shared site that asks for keys."""
    with running_gateway(shared.url, shared.folder, name="keyed-gateway", **KEYED) as gateway:
        yield gateway


@pytest.fixture
def http(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """An HTTP client of the gateway."""
    with gateway.client(timeout=30) as client:
        yield client
