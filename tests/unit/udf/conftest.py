"""A store with one version of the model of `tests.support.customers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.customers import add_fingerprint


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no test changes."""
    store = tmp_path_factory.mktemp("udf") / "store"
    add_fingerprint(store)
    return store


@pytest.fixture
def store(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store, as the environment names it."""
    monkeypatch.setenv("HEADRACE_MODELS", str(packaged))
    monkeypatch.setenv("HEADRACE_TRUST_PICKLE", "true")
    return packaged
