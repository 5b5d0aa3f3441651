"""The in-memory client predicts with a packaged version, as a worker does."""

from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from headrace import InvalidInput, ModelError, UnknownModel
from headrace.testing import InMemoryClient, models
from headrace_worker import load_version
from tests.support.packaged_models import add_model

ROWS = [[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]]


@pytest.fixture(scope="module")
def estimator() -> LogisticRegression:
    return LogisticRegression().fit(ROWS, ["no", "no", "yes", "yes"])


@pytest.fixture(scope="module")
def store(estimator: LogisticRegression, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for _ in range(2):
        add_model(folder, estimator, ROWS)
    return folder / "store"


def test_a_version_predicts_with_its_methods_and_classes(store: Path, estimator: LogisticRegression):
    client = InMemoryClient({"model": load_version(store, "model", "1")})
    prediction = client.predict("model", instances=ROWS)
    assert (prediction.predictions, prediction.version) == (list(estimator.predict(ROWS)), "1")
    labelled = client.predict("model", ROWS[2], method="predict_proba").labelled
    assert labelled == pytest.approx(dict(zip(["no", "yes"], estimator.predict_proba(ROWS)[2], strict=True)))
    with pytest.raises(InvalidInput, match="must be a list of 2 values"):
        client.submit("model", [1.0])


def test_the_path_of_a_store_is_the_newest_version_in_it(store: Path):
    client = InMemoryClient({"model": store})
    assert client.predict("model", ROWS[0]).version == "2"
    with pytest.raises(UnknownModel):
        InMemoryClient({"other": store})


def test_a_store_without_the_worker_is_refused_with_the_package_to_install(
    store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models, "_LOADERS", "headrace.not_installed")
    with pytest.raises(ModelError, match="install headrace-worker beside your tests"):
        InMemoryClient({"model": store})
