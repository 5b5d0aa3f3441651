"""Loading and serving: digest, libraries and example decide; the newest version that passes serves."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import skops.io
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from headrace.errors import ModelError, UnknownModel
from headrace_worker.models.loader import load, same
from headrace_worker.models.package import package
from headrace_worker.models.registry import LOOK_EVERY, Registry
from headrace_worker.models.store import Store
from headrace_worker.settings import WorkerSettings

X, Y = make_classification(50, 5, random_state=0)
ROWS = X[:5].tolist()


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def _add(store: Store, estimator: Any = None, name: str = "churn") -> None:
    folder = store.path.parent
    skops.io.dump(estimator or LogisticRegression().fit(X, Y), folder / "model.skops")
    (folder / "example.json").write_text(json.dumps(ROWS))
    package(store, folder / "model.skops", name=name, example=folder / "example.json")


def _edit(store: Store, version: str, change: Any) -> None:
    """Change the manifest of a version on disk."""
    path = store.path / "churn" / version / "manifest.json"
    read = msgspec.json.decode(path.read_bytes())
    change(read)
    path.write_bytes(msgspec.json.encode(read))


def _spoil(store: Store, version: str) -> None:
    path = store.path / "churn" / version / "artifact.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_version_with_one_bit_changed_never_serves(store: Store) -> None:
    _add(store)
    _spoil(store, "1")
    with pytest.raises(ModelError, match="churn@1 has another digest than its manifest says"):
        load(store, "churn", "1")


def test_a_version_that_predicts_otherwise_than_its_example_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda read: read["example"]["expected"]["predict_proba"][0].reverse())
    with pytest.raises(ModelError, match=r"churn@1 gives other predictions for its example.*: predict_proba"):
        load(store, "churn", "1")


def test_a_version_that_fails_on_its_example_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda read: read["example"].update(instances=[[1.0]]))
    with pytest.raises(ModelError, match="churn@1 fails on its own example: predict: ValueError"):
        load(store, "churn", "1")


def test_a_version_with_a_method_the_estimator_lacks_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda read: read["contract"]["methods"].update(shout={"shape": []}))
    with pytest.raises(ModelError, match="churn@1 fails on its own example: shout: AttributeError"):
        load(store, "churn", "1")


def test_a_version_packaged_with_a_newer_scikit_learn_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda read: read["libraries"].update({"scikit-learn": "99.0.0"}))
    with pytest.raises(ModelError, match=r"churn@1 was packaged with scikit-learn 99.0.0, newer than the"):
        load(store, "churn", "1")


def test_a_version_over_the_size_cap_is_not_read(store: Store) -> None:
    _add(store)
    registry = Registry(store, WorkerSettings(max_model_bytes=100))
    with pytest.raises(ModelError, match="more than the 100 of HEADRACE_MAX_MODEL_BYTES"):
        registry.get("churn")


def test_predictions_compare_exactly_but_for_rounding() -> None:
    assert same([["a", 1, 0.5, None]], [["a", 1, 0.5 + 1e-9, None]])
    assert same([1.0], [1])
    for expected, got in [("a", "b"), (1, True), (0.5, 0.50001), (None, 0.0), ([1.0], [1.0, 2.0]), ([1.0], 1.0)]:
        assert not same(expected, got)


def test_the_newest_version_serves_and_older_ones_can_be_asked_for(store: Store) -> None:
    _add(store)
    _add(store, DummyClassifier().fit(X, Y))
    registry = Registry(store)
    assert registry.get("churn").manifest.version == "2"
    assert registry.get("churn", "1").manifest.estimator == "LogisticRegression"
    assert registry.get("churn", "1") is registry.get("churn", "1")


def test_unknown_models_and_versions_are_told(store: Store) -> None:
    _add(store)
    registry = Registry(store)
    with pytest.raises(UnknownModel, match="did you mean 'churn'"):
        registry.get("churm")
    with pytest.raises(UnknownModel, match="churn has no version '9'; it has 1"):
        registry.get("churn", "9")


def test_a_version_added_later_is_noticed_within_a_second(store: Store, clock: _Clock) -> None:
    _add(store)
    registry = Registry(store, clock=clock)
    assert registry.get("churn").manifest.version == "1"
    _add(store)
    assert registry.get("churn").manifest.version == "1"
    clock.now += LOOK_EVERY
    assert registry.get("churn").manifest.version == "2"


def test_a_model_added_later_is_served_at_once(store: Store) -> None:
    registry = Registry(store)
    with pytest.raises(UnknownModel):
        registry.get("churn")
    _add(store)
    assert registry.get("churn").manifest.version == "1"


def test_a_bad_newest_version_is_logged_once_and_the_former_serves_on(
    store: Store, clock: _Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _add(store)
    registry = Registry(store, clock=clock)
    assert registry.get("churn").manifest.version == "1"
    _add(store)
    _spoil(store, "2")
    with caplog.at_level(logging.ERROR, logger="headrace.models"):
        for _ in range(5):
            clock.now += LOOK_EVERY
            assert registry.get("churn").manifest.version == "1"
    assert [record.getMessage().split(" has ")[0] for record in caplog.records] == ["churn@2"]
    with pytest.raises(ModelError, match="churn@2 has another digest"):
        registry.get("churn", "2")
    assert [contract.version for contract in registry.contracts()] == ["1"]


def test_a_store_that_goes_away_does_not_stop_what_serves(store: Store, clock: _Clock) -> None:
    _add(store)
    registry = Registry(store, clock=clock)
    served = registry.get("churn")
    store.path.rename(store.path.with_name("elsewhere"))
    clock.now += LOOK_EVERY
    assert registry.get("churn") is served


def test_preload_loads_what_can_and_tells_what_cannot(store: Store) -> None:
    _add(store)
    _add(store, name="penguins")
    _spoil(store, "1")
    registry = Registry(store)
    failures = registry.preload()
    assert list(failures) == ["churn"]
    assert [contract.model for contract in registry.contracts()] == ["penguins"]
    assert "nothing" in registry.preload(["nothing"])


def test_many_threads_load_a_version_once(store: Store) -> None:
    _add(store)
    registry = Registry(store)
    served: list[int] = []
    threads = [threading.Thread(target=lambda: served.append(id(registry.get("churn")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(served) == 8
    assert len(set(served)) == 1
