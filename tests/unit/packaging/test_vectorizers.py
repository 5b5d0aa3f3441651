"""Vectorizers are packaged with rows that lack keys, and with lists of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace.catalog.contract import Array, Feature, Named, Tokens
from headrace.errors import ModelError
from headrace_worker.models.loader import load
from headrace_worker.notebook import PackagedVersion
from headrace_worker.notebook import package as package_table
from headrace_worker.packaging.sample_rows import generate_instances
from headrace_worker.profile import CellLocator, build_profile
from headrace_worker.store.store import Store
from tests.support.packaged_models import add_model
from tests.support.vectorizer_models import ROWS, TOKENS, fit_objects, fit_tokens


def package(folder: Path, model: Any, table: Any, **options: Any) -> PackagedVersion:
    return package_table(model, table, name="model", store=str(folder / "store"), runtime="sklearn", **options)


def predict(folder: Path, instances: list[Any], method: str = "predict_proba") -> list[Any]:
    return load(Store(folder / "store"), "model", "1", trust_pickle=True).predict(method, instances)


def test_a_feature_that_a_row_of_the_example_lacks_is_optional(tmp_path: Path) -> None:
    rows = [{"city": "Oslo", "area": 40.5}, {"area": 70}, {"area": 10, "floor": 3}] * 5
    model = make_pipeline(DictVectorizer(), LogisticRegression()).fit(rows, [0, 1, 1] * 5)
    manifest = add_model(tmp_path, model, rows)
    assert isinstance(manifest.contract.input, Named)
    assert [(feature.name, feature.optional) for feature in manifest.contract.input.features] == [
        ("city", True),
        ("area", False),
        ("floor", True),
    ]
    instances = [{"area": 5}, {"floor": 1, "area": 2.5}]
    assert predict(tmp_path, instances) == model.predict_proba(instances).tolist()


def test_a_version_is_compared_with_a_vectorizer_s_own_predictions_for_its_rows(tmp_path: Path) -> None:
    manifest = package(tmp_path, fit_objects(), ROWS).manifest
    assert manifest.proof is not None
    assert (manifest.proof.compared, manifest.proof.difference) == (20, 0)


def test_null_and_an_absent_key_differ_where_they_differ_for_the_model(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": None}, {}, {"a": 1.0}, {"a": None}, {"a": -1.0}] * 20
    model = make_pipeline(
        DictVectorizer(sparse=False), HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5)
    ).fit(rows, ["null", "absent", "one", "null", "absent"] * 20)
    manifest = package(tmp_path, model, rows).manifest
    assert manifest.contract.input == Named(
        features=(Feature(name="a", kind="number", nullable=True, optional=True),)
    )
    assert predict(tmp_path, [{"a": None}, {}], "predict") == ["null", "absent"]


def test_null_is_refused_where_the_model_refuses_it(tmp_path: Path) -> None:
    schema = package(tmp_path, fit_objects(), ROWS).manifest.contract.input
    assert isinstance(schema, Named)
    assert {feature.name: feature.nullable for feature in schema.features} == {
        "area": False,
        "city": True,
        "floor": False,
    }


def test_a_hasher_takes_objects_too(tmp_path: Path) -> None:
    model = make_pipeline(FeatureHasher(16), LogisticRegression()).fit(ROWS, [0, 1, 1, 0] * 5)
    package(tmp_path, model, ROWS)
    assert predict(tmp_path, ROWS[:4]) == model.predict_proba(ROWS[:4]).tolist()


def test_a_model_of_a_table_takes_no_rows_that_lack_keys(tmp_path: Path) -> None:
    contract = tmp_path / "contract.json"
    feature = {"name": "a", "kind": "number", "optional": True}
    contract.write_text(json.dumps({"input": {"type": "named", "features": [feature]}}))
    model = LogisticRegression().fit([[1.0], [2.0]], [0, 1])
    with pytest.raises(ModelError, match="feature 'a' is optional, and the model takes a value of each feature"):
        add_model(tmp_path, model, [{"a": 1.0}, {"a": 2.0}], contract=contract)
    with pytest.raises(ModelError, match="instance 1 of the example has other features than the first: 'a'"):
        add_model(tmp_path, model, [{"a": 1.0}, {}])


@pytest.mark.parametrize("table", [TOKENS, [["sun", "warm"], ["rain", "wind"]]], ids=["unequal", "equal"])
def test_lists_of_strings_for_a_model_that_counts_words_are_tokens(tmp_path: Path, table: Any) -> None:
    manifest = package(tmp_path, fit_tokens(), table, trust_pickle=True).manifest
    assert manifest.contract.input == Tokens()
    assert predict(tmp_path, [[], *TOKENS]) == fit_tokens().predict_proba([[], *TOKENS]).tolist()


def test_a_hasher_of_tokens_needs_no_pickle(tmp_path: Path) -> None:
    model = make_pipeline(FeatureHasher(16, input_type="string"), LogisticRegression())
    manifest = package(tmp_path, model.fit(TOKENS, [0, 1, 1, 0] * 5), TOKENS).manifest
    assert (manifest.format, manifest.contract.input) == ("skops", Tokens())


@pytest.mark.parametrize(
    "model",
    [
        OneHotEncoder(handle_unknown="ignore"),
        ColumnTransformer([("words", CountVectorizer(), 0), ("kind", OneHotEncoder(), [1])]),
    ],
    ids=["encoder", "counts the words of a column"],
)
def test_rows_of_strings_for_a_model_of_columns_stay_lists_of_one_length(tmp_path: Path, model: Any) -> None:
    rows = [["rain and wind", "b"], ["sun", "b"]]
    manifest = package(tmp_path, model.fit(np.array(rows, dtype=object)), rows).manifest
    assert isinstance(manifest.contract.input, Array)
    assert manifest.contract.input.shape == (2,)


def test_a_value_among_tokens_that_is_no_string_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"instance 1 of the example has a NoneType at \[0\]"):
        package(tmp_path, fit_tokens(), [["sun"], [None, "wind"]], trust_pickle=True)


def test_no_other_runtime_takes_tokens_or_rows_that_lack_keys(tmp_path: Path) -> None:
    for model, table in ((fit_tokens(), TOKENS), (fit_objects(), ROWS)):
        version = package_table(
            model, table, name="model", store=str(tmp_path / "store"), runtime="auto", trust_pickle=True
        )
        refused = {trial.runtime: trial.refused for trial in version.manifest.trials}
        assert version.manifest.runtime == "sklearn"
        assert "ONNX has" in refused["onnx"]


def test_generated_rows_lack_keys_and_generated_tokens_have_many_lengths() -> None:
    schema = Named(features=(Feature(name="a", kind="number", optional=True), Feature(name="b", kind="number")))
    rows = generate_instances(schema, [{"b": 1.0}, {"a": 2.0, "b": 3.0}], 200)
    assert {tuple(row) for row in rows} == {("a", "b"), ("b",)}
    assert len({len(tokens) for tokens in generate_instances(Tokens(), TOKENS, 200)}) > 20


def test_an_absent_key_counts_as_missing_and_tokens_by_their_number(tmp_path: Path) -> None:
    contract = package(tmp_path, fit_objects(), ROWS).manifest.contract
    profile = build_profile(contract, ROWS, ["wet"] * 20)
    assert {column.name: column.rows[-1] for column in profile.features} == {"area": 10, "city": 10, "floor": 15}
    assert len(list(CellLocator(profile, contract).locate_instance({}))) == 3
    tokens = package(tmp_path, fit_tokens(), TOKENS, trust_pickle=True).manifest.contract
    (length,) = build_profile(tokens, TOKENS, ["wet"] * 20).features
    assert (length.name, sum(length.rows)) == ("length", 20)


def test_a_contract_is_described_for_people(tmp_path: Path) -> None:
    objects, tokens = (
        package(tmp_path, fit_objects(), ROWS),
        package(tmp_path, fit_tokens(), TOKENS, trust_pickle=True),
    )
    assert "may be left out" in repr(objects)
    assert "<td>may be left out</td>" in objects._repr_html_()
    assert "input: lists of strings, of any length" in repr(tokens)
    assert "<td>tokens</td>" in tokens._repr_html_()
