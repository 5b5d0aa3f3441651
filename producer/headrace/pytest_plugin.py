"""Fixtures of pytest for the tests of programs that use Headrace. pytest finds them where `headrace` is installed.

Everything else is imported when a fixture is used, so that a test run without Headrace pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headrace.testing import AsyncInMemoryClient, InMemoryClient, Model


@pytest.fixture
def headrace_models() -> Mapping[str, Model]:
    """Return the models of the clients: none. Override it with a fixture of your own."""
    return {}


@pytest.fixture
def headrace_client(headrace_models: Mapping[str, Model]) -> InMemoryClient:
    """Return a client without Redis, whose models are those of `headrace_models`."""
    from headrace.testing import InMemoryClient

    return InMemoryClient(headrace_models)


@pytest.fixture
def headrace_async_client(headrace_client: InMemoryClient) -> AsyncInMemoryClient:
    """Return an asyncio client without Redis, with the jobs of `headrace_client`."""
    from headrace.testing import AsyncInMemoryClient

    return AsyncInMemoryClient(blocking=headrace_client)
