"""A version is loaded if its digest, libraries and example are right; the newest such version serves."""

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

from headrace.catalog.aliases import Alias, Aliases
from headrace.errors import ModelError, UnknownModel
from headrace_worker.models.loader import is_same_prediction, load
from headrace_worker.models.registry import NotLoadedYet, Registry, TooManyVersions
from headrace_worker.packaging.package import package
from headrace_worker.route import Route
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

X, Y = make_classification(50, 5, random_state=0)
ROWS = X[:5].tolist()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def _add(store: Store, estimator: Any = None, name: str = "churn") -> None:
    folder = store.path.parent
    skops.io.dump(estimator or LogisticRegression().fit(X, Y), folder / "model.skops")
    (folder / "example.json").write_text(json.dumps(ROWS))
    package(store, folder / "model.skops", name=name, example=folder / "example.json")


def _edit(store: Store, version: str, change: Any) -> None:
    """Change the manifest of a version on disk."""
    path = store.path / "churn" / version / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes())
    change(manifest)
    path.write_bytes(msgspec.json.encode(manifest))


def _damage(store: Store, version: str) -> None:
    path = store.path / "churn" / version / "artifact.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_version_with_one_bit_changed_never_serves(store: Store) -> None:
    _add(store)
    _damage(store, "1")
    with pytest.raises(ModelError, match="churn@1 has another digest than its manifest says"):
        load(store, "churn", "1")


def test_a_version_with_other_predictions_for_its_example_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda manifest: manifest["example"]["expected"]["predict_proba"][0].reverse())
    with pytest.raises(ModelError, match=r"churn@1 gives other predictions for its example.*: predict_proba"):
        load(store, "churn", "1")


def test_a_version_that_fails_on_its_example_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda manifest: manifest["example"].update(instances=[[1.0]]))
    with pytest.raises(ModelError, match="churn@1 fails on its own example: predict: ValueError"):
        load(store, "churn", "1")


def test_a_version_with_a_method_the_estimator_lacks_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda manifest: manifest["contract"]["methods"].update(unknown={"shape": []}))
    with pytest.raises(ModelError, match="churn@1 names the method 'unknown', which predicts nothing"):
        load(store, "churn", "1")


def test_a_version_packaged_with_a_newer_scikit_learn_never_serves(store: Store) -> None:
    _add(store)
    _edit(store, "1", lambda manifest: manifest["libraries"].update({"scikit-learn": "99.0.0"}))
    with pytest.raises(ModelError, match=r"churn@1 was packaged with scikit-learn 99.0.0, newer than the"):
        load(store, "churn", "1")


def test_a_version_over_the_size_limit_is_not_read(store: Store) -> None:
    _add(store)
    registry = Registry(store, WorkerSettings(max_model_bytes=100))
    with pytest.raises(ModelError, match="more than the 100 of HEADRACE_MAX_MODEL_BYTES"):
        registry.get("churn")


def test_predictions_are_compared_exactly_except_for_rounding() -> None:
    assert is_same_prediction([["a", 1, 0.5, None]], [["a", 1, 0.5 + 1e-9, None]])
    assert is_same_prediction([1.0], [1])
    for expected, actual in [
        ("a", "b"),
        (1, True),
        (0.5, 0.50001),
        (None, 0.0),
        ([1.0], [1.0, 2.0]),
        ([1.0], 1.0),
    ]:
        assert not is_same_prediction(expected, actual)


def test_the_newest_version_serves_and_jobs_may_name_older_ones(store: Store) -> None:
    _add(store)
    _add(store, DummyClassifier().fit(X, Y))
    registry = Registry(store)
    assert registry.get("churn").manifest.version == "2"
    assert registry.get("churn", "1").manifest.estimator == "LogisticRegression"
    assert registry.get("churn", "1") is registry.get("churn", "1")


def test_unknown_models_and_versions_are_reported(store: Store) -> None:
    _add(store)
    registry = Registry(store)
    with pytest.raises(UnknownModel, match="did you mean 'churn'"):
        registry.get("churm")
    with pytest.raises(UnknownModel, match="churn has no version '9'; it has 1"):
        registry.get("churn", "9")


def test_a_version_added_later_serves_after_the_next_sync(store: Store) -> None:
    _add(store)
    registry = Registry(store)
    assert registry.get("churn").manifest.version == "1"
    _add(store)
    assert registry.get("churn").manifest.version == "1"
    assert registry.serve(Aliases("churn")).newest == "2"
    assert registry.get("churn").manifest.version == "2"


def test_a_model_added_later_is_served_at_once(store: Store) -> None:
    registry = Registry(store)
    with pytest.raises(UnknownModel):
        registry.get("churn")
    _add(store)
    assert registry.get("churn").manifest.version == "1"


def test_a_bad_newest_version_is_logged_once_and_the_former_version_serves(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    _add(store)
    registry = Registry(store)
    assert registry.get("churn").manifest.version == "1"
    _add(store)
    _damage(store, "2")
    with caplog.at_level(logging.ERROR, logger="headrace.models"):
        for _ in range(5):
            registry.serve(Aliases("churn"))
            assert registry.get("churn").manifest.version == "1"
    assert [record.getMessage().split(" has ")[0] for record in caplog.records] == ["churn@2"]
    assert "another digest" in registry.refused("churn")["2"]
    with pytest.raises(ModelError, match="churn@2 has another digest"):
        registry.get("churn", "2")
    assert [contract.version for contract in registry.contracts()] == ["1"]


def test_a_version_in_memory_serves_without_the_store(store: Store) -> None:
    _add(store)
    registry = Registry(store)
    served = registry.get("churn")
    store.path.rename(store.path.with_name("elsewhere"))
    assert registry.serve(Aliases("churn")).newest == "1"
    assert registry.get("churn") is served


def _aliases(**versions: str) -> Aliases:
    return Aliases(
        "churn",
        {
            name: Alias(version=version, share=0.5 if name == "canary" else None)
            for name, version in versions.items()
        },
    )


@pytest.fixture
def three(store: Store) -> Store:
    """Return a store with three versions of a model."""
    for _ in range(3):
        _add(store, DummyClassifier().fit(X, Y))
    return store


def test_jobs_run_on_the_versions_that_aliases_name_and_not_on_the_newest(three: Store) -> None:
    registry = Registry(three)
    route = registry.serve(_aliases(production="1", tested="2"))
    assert route.versions == {"1", "2"}
    assert registry.loaded_versions("churn") == ("1", "2")  # the newest is not loaded
    assert registry.get("churn").manifest.version == "1"
    assert registry.get("churn", "tested").manifest.version == "2"
    assert registry.get("churn", "3").manifest.version == "3"
    with pytest.raises(UnknownModel, match="has no alias 'stable'; it has production, tested"):
        registry.get("churn", "stable")


def test_the_canary_gets_its_share_of_jobs_by_their_ids(three: Store) -> None:
    registry = Registry(three)
    registry.serve(_aliases(production="1", canary="2"))
    versions = {registry.get("churn", None, f"job-{number}").manifest.version for number in range(40)}
    assert versions == {"1", "2"}
    assert registry.get("churn", None, "job-1") is registry.get("churn", None, "job-1")


def test_an_alias_moved_to_a_bad_version_keeps_its_former_version(three: Store) -> None:
    _damage(three, "3")
    registry = Registry(three)
    registry.serve(_aliases(production="2", canary="2"))
    route = registry.serve(_aliases(production="3", canary="3"))
    assert {name: alias.version for name, alias in route.aliases.items()} == {"production": "2"}
    assert list(registry.refused("churn")) == ["3"]


def test_a_worker_that_starts_with_a_bad_version_in_production_serves_the_former_one(three: Store) -> None:
    _damage(three, "3")
    registry = Registry(three)
    assert registry.serve(_aliases(production="3"), {"production": "1"}.get).default == "1"
    assert (
        Registry(three).serve(_aliases(production="3")).default == "2"
    )  # without a former version, the newest that loads


def test_a_dropped_version_is_loaded_again_for_a_job_that_names_it(three: Store) -> None:
    registry = Registry(three)
    registry.serve(_aliases(production="2", tested="1"))
    registry.serve(_aliases(production="2"))
    registry.drop("churn", "1")
    assert registry.loaded_versions("churn") == ("2",)
    assert registry.get("churn", "1").manifest.version == "1"


def test_a_pool_process_applies_a_route_if_it_has_the_versions(three: Store) -> None:
    process = Registry(three)
    process.serve(_aliases(production="1", tested="2"))
    process.apply_route(Route(model="churn", aliases={"production": Alias(version="2")}, ready=("1", "2")))
    assert process.get("churn").manifest.version == "2"
    process.apply_route(Route(model="churn", aliases={"production": Alias(version="3")}, ready=("2", "3")))
    assert process.get("churn").manifest.version == "2"  # until the process is replaced
    with pytest.raises(NotLoadedYet, match="churn@3 is not in the memory of this process yet"):
        process.get("churn", "3")


def test_a_pool_process_without_the_model_does_not_load_an_announced_version(store: Store) -> None:
    process = Registry(store)
    process.apply_route(Route(model="churn", newest="1", ready=("1",)))
    with pytest.raises(NotLoadedYet):
        process.get("churn")


def test_a_refused_version_is_runnable_elsewhere_if_another_worker_has_it(three: Store) -> None:
    _damage(three, "3")
    registry = Registry(three)
    registry.serve(_aliases(production="2"))
    with pytest.raises(ModelError):
        registry.get("churn", "3")
    assert not registry.is_runnable_elsewhere("churn", "3")
    registry.other_workers = lambda _model: [("2",)]
    assert not registry.is_runnable_elsewhere("churn", "3")
    assert registry.is_runnable_elsewhere("churn", "9")  # not in this store, but perhaps in another worker's
    registry.other_workers = lambda _model: [("2",), ("2", "3")]
    assert registry.is_runnable_elsewhere("churn", "3")


def test_preload_serves_models_and_returns_errors(store: Store) -> None:
    _add(store)
    _add(store, name="penguins")
    _damage(store, "1")
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


# --- versions that jobs name ---


def test_versions_that_jobs_name_are_dropped_when_jobs_name_others(store: Store) -> None:
    for _ in range(6):
        _add(store)
    registry = Registry(store, WorkerSettings(versions_of_jobs=2))
    registry.serve(Aliases("churn", {"production": Alias(version="1"), "tested": Alias(version="2")}))
    for version in ("3", "4", "1", "2", "3", "5"):
        assert registry.get("churn", version).manifest.version == version
    assert registry.loaded_versions("churn") == ("1", "2", "3", "5")  # 4 was not used since 3 was
    registry.get("churn", "6")
    registry.get("churn", "1")
    registry.get("churn", "2")
    assert registry.loaded_versions("churn") == ("1", "2", "5", "6")


def test_a_version_that_an_alias_names_since_is_not_dropped(store: Store) -> None:
    for _ in range(4):
        _add(store)
    registry = Registry(store, WorkerSettings(versions_of_jobs=1))
    registry.serve(Aliases("churn", {"production": Alias(version="1")}))
    registry.get("churn", "2")
    registry.serve(Aliases("churn", {"production": Alias(version="2")}))
    registry.get("churn", "3")
    registry.get("churn", "4")
    assert registry.loaded_versions("churn") == ("1", "2", "4")


def test_a_claim_may_name_as_many_versions_as_fit_in_memory_besides_those_that_serve(store: Store) -> None:
    for _ in range(2):
        _add(store)
    registry = Registry(store, WorkerSettings(versions_of_jobs=2))
    registry.serve(Aliases("churn", {"production": Alias(version="1"), "tested": Alias(version="2")}))
    registry.check_versions("churn", {"1", "2", "3", "4"})
    with pytest.raises(TooManyVersions, match="HEADRACE_VERSIONS_OF_JOBS"):
        registry.check_versions("churn", {"1", "3", "4", "5"})
