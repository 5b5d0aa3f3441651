"""Tests of a batch with a real table and worker: the predictions equal the estimator's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.command import headrace

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
CATEGORIES = ["island", "sex"]


@pytest.fixture(scope="module")
def penguins() -> pd.DataFrame:
    """Read 344 penguins: seven columns besides the species, with missing values."""
    (table,) = (file for file in files("palmerpenguins") or [] if file.name == "penguins.csv")
    return pd.read_csv(str(table.locate()))


@pytest.fixture(scope="module")
def estimator(penguins: pd.DataFrame) -> Any:
    columns = make_column_transformer(
        (SimpleImputer(), NUMBERS),
        (
            make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
            CATEGORIES,
        ),
    )
    model = make_pipeline(columns, RandomForestClassifier(n_estimators=20, random_state=1))
    return model.fit(penguins[NUMBERS + CATEGORIES], penguins["species"])


@pytest.fixture(scope="module")
def url(estimator: Any, penguins: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis and a worker that serves the model; return the URL."""
    folder: Path = tmp_path_factory.mktemp("penguins")
    skops.io.dump(estimator, folder / "model.skops")
    penguins[NUMBERS + CATEGORIES].to_csv(folder / "example.csv", index=False)
    package(Store(folder / "models"), folder / "model.skops", name="penguins", example=folder / "example.csv")
    with EmbeddedRedis("--appendfsync", "no") as redis:
        worker = start_worker(redis.url, folder / "models", folder, concurrency=1)
        try:
            yield redis.url
        finally:
            worker.stop()


def test_the_species_of_every_penguin_equals_the_estimators_prediction(url, estimator, penguins, tmp_path):
    source, target = tmp_path / "penguins.csv", tmp_path / "predicted.csv"
    penguins.to_csv(source, index=False)
    result = headrace("batch", "penguins", str(source), "-o", str(target), "--url", url, "--rows-per-job", "50")
    assert result.returncode == 0, result.stderr
    predicted = pd.read_csv(target)
    assert list(predicted.columns) == [*penguins.columns, "prediction", "error"]
    assert predicted["prediction"].tolist() == estimator.predict(penguins[NUMBERS + CATEGORIES]).tolist()
    pd.testing.assert_frame_equal(predicted[penguins.columns], penguins)


def test_probabilities_are_equal_to_the_last_digit(url, estimator, penguins):
    result = headrace(
        *("batch", "penguins", "-", "-o", "-", "--format", "csv", "--method", "predict_proba", "--url", url),
        stdin=penguins.to_csv(index=False, na_rep="NA"),
    )
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    names = [f"prediction_{species}" for species in estimator.classes_]
    expected = estimator.predict_proba(penguins[NUMBERS + CATEGORIES]).tolist()
    assert [[float(row[name]) for name in names] for row in rows] == expected


def test_a_penguin_with_a_bad_value_fails_alone(url, penguins):
    table = penguins.head(5).to_csv(index=False).replace("39.1", "long")
    result = headrace("batch", "penguins", "-", "-o", "-", "--format", "csv", "--url", url, stdin=table)
    assert result.returncode == 3
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [bool(row["error"]) for row in rows] == [True, False, False, False, False]
    assert rows[0]["error"] == "line 2: feature 'bill_length_mm' must be a number, got a string"
