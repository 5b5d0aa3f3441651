"""Runtimes are tried on a model: parity first, then speed; a trial that fails has a reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text
from headrace.catalog.validation import check_instances
from headrace.errors import ModelError
from headrace_worker.manifest import Trial
from headrace_worker.models.loader import load
from headrace_worker.packaging.infer import infer
from headrace_worker.packaging.package import package
from headrace_worker.packaging.sample_rows import generate_instances
from headrace_worker.packaging.trials import Reference, build_reference, choose_fastest, measure, run_trial
from headrace_worker.parity import TOLERANCE, compare_predictions
from headrace_worker.store.store import Store

X, Y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)


def _contract(input_schema: Named | Array | Text) -> Contract:
    return Contract(model="m", version="0", input=input_schema, methods={"predict": Output(shape=())})


NAMED = Named(
    features=(
        Feature(name="age", kind="number", nullable=True),
        Feature(name="count", kind="integer"),
        Feature(name="gone", kind="boolean"),
        Feature(name="plan", kind="string"),
        Feature(name="sex", kind="category", categories=("f", "m", 3)),
    )
)
EXAMPLE = [
    {"age": 20.0, "count": 1, "gone": True, "plan": "gold", "sex": "f"},
    {"age": None, "count": 9, "gone": False, "plan": "basic", "sex": 3},
]


@pytest.mark.parametrize(
    ("input_schema", "example"),
    [
        (NAMED, EXAMPLE),
        (Array(shape=(2, 2)), [[[1.0, 2.0], [3.0, 4.0]]]),
        (Array(shape=(3,), nullable=True), [[1.0, None, 3.0]]),
        (Text(), ["some words", ""]),
    ],
)
def test_generated_instances_fit_the_contract_and_are_always_the_same(input_schema: Any, example: Any) -> None:
    instances = generate_instances(input_schema, example, 300)
    assert check_instances(_contract(input_schema), instances) == instances
    assert instances == generate_instances(input_schema, example, 300)


def test_generated_instances_go_slightly_beyond_the_example_and_have_unseen_texts() -> None:
    rows = generate_instances(NAMED, [*EXAMPLE, EXAMPLE[0] | {"age": 30.5}], 1_000)
    ages = [row["age"] for row in rows if row["age"] is not None]
    assert 18.9 < min(ages) < 20
    assert 30.5 < max(ages) < 31.6
    assert 50 < sum(row["age"] is None for row in rows) < 200
    assert {row["plan"] for row in rows} - {"gold", "basic"}
    assert {row["sex"] for row in rows} == {"f", "m", 3}


def test_classes_must_be_equal_and_numbers_close() -> None:
    assert compare_predictions(["a", "b"], ["a", "b"]).mismatches == ()
    assert compare_predictions(["a", "b"], ["a", "c"]).mismatches == (1,)
    assert compare_predictions([1, 0], [1.0, 0]).mismatches == (0,)
    assert compare_predictions([True], [1]).mismatches == (0,)
    assert compare_predictions([[0.5, 0.5]], [[0.5, 0.5 + 0.4 * TOLERANCE]]).mismatches == ()
    assert compare_predictions([[0.5, 0.5]], [[0.5, 0.5 + 0.6 * TOLERANCE]]).mismatches == (0,)
    assert compare_predictions([[0.5, None]], [[0.5, None]]).mismatches == ()
    assert compare_predictions([[0.5, None]], [[0.5, 0.1]]).mismatches == (0,)
    assert compare_predictions([[0.5]], [[0.5, 0.5]]).mismatches == (0,)
    assert compare_predictions([1.0, 2.0], [1.0]).mismatches == (1,)
    assert compare_predictions([], [1.0]).mismatches == (0,)


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda number: number == 0 or abs(number) > 1e-30), min_size=1))
@settings(max_examples=50)
def test_numbers_rounded_to_32_bits_are_close(numbers: list[float]) -> None:
    assert compare_predictions(numbers, np.float32(numbers).astype(float).tolist()).mismatches == ()


def _reference(rows: int = 3) -> Reference:
    return Reference([[float(row)] for row in range(rows)], {"predict": list(range(rows))}, "predict")


def test_a_runtime_that_differs_or_fails_is_refused_with_the_reason() -> None:
    def wrong(method: str, instances: Sequence[Any]) -> list[Any]:
        return [0 for _ in instances]

    def failing(method: str, instances: Sequence[Any]) -> list[Any]:
        raise ValueError("a value of an instance")

    assert run_trial("odd", wrong, _reference()).refused == "predict differs from scikit-learn's for 2 of 3 rows"
    assert run_trial("odd", failing, _reference()).refused == "predict fails: ValueError"


def test_the_reason_names_missing_values_if_only_they_differ() -> None:
    reference = Reference([[None], [1.0]], {"predict": [1, 1]}, "predict")
    trial = run_trial("odd", lambda method, rows: [0 if row == [None] else 1 for row in rows], reference)
    assert trial.refused.endswith("for 1 of 2 rows, all with missing values, which the contract allows")


def test_a_call_is_measured_at_three_sizes_until_it_is_slow() -> None:
    sizes: list[int] = []
    seconds = [0.0]

    def predict(method: str, instances: Sequence[Any]) -> list[Any]:
        sizes.append(len(instances))
        seconds[0] += 0.02 * len(instances)
        return []

    assert measure(predict, _reference(), lambda: seconds[0]) == {1: pytest.approx(20), 64: pytest.approx(1_280)}
    assert set(sizes) == {1, 64}


def _trial(name: str, *milliseconds: float, refused: str = "") -> Trial:
    return Trial(runtime=name, milliseconds=dict(zip((1, 64, 1024), milliseconds, strict=False)), refused=refused)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], "sklearn"),
        ([_trial("fast", 0.1, 1, 8)], "fast"),
        ([_trial("fast", 0.95, 1.9, 9)], "sklearn"),
        ([_trial("few", 0.1, 3, 10), _trial("many", 0.9, 1.9, 2)], "few"),
        ([_trial("fast", 0.1, 1, 8, refused="differs")], "sklearn"),
    ],
)
def test_the_fastest_runtime_that_passed_is_chosen_if_it_is_fast_enough(others: list[Trial], chosen: str) -> None:
    trial = choose_fastest([_trial("sklearn", 1, 2, 10), *others])
    assert trial is not None
    assert trial.runtime == chosen


def test_instances_that_scikit_learn_refuses_are_not_compared() -> None:
    class Picky(LogisticRegression):
        def predict(self, data: Any) -> Any:
            if (np.asarray(data)[:, 0] > 1).any():
                raise ValueError("too large")
            return super().predict(data)

    estimator = Picky().fit(X, Y)
    small = [row for row in X.tolist() if row[0] <= 1]
    contract = infer(estimator, small, model="m", input_schema=Array(shape=(6,)))
    reference = build_reference(estimator, contract, small)
    assert len(reference.instances) > len(small) + 100
    assert max(row[0] for row in reference.instances) <= 1


def _add(folder: Path, estimator: Any, runtime: str, example: Any = None, **options: Any) -> Any:
    file, rows = folder / "model.skops", folder / "example.json"
    skops.io.dump(estimator, file)
    rows.write_text(json.dumps(X[:40].tolist() if example is None else example))
    return package(Store(folder / "store"), file, name="model", example=rows, runtime=runtime, **options)


def test_auto_chooses_a_runtime_with_equal_predictions_and_records_its_trials(tmp_path: Path) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=30).fit(X, Y)
    manifest = _add(tmp_path, estimator, "auto")
    trials = {trial.runtime: trial for trial in manifest.trials}
    assert set(trials) >= {"sklearn", "treelite", "onnx"}
    assert not trials["treelite"].refused
    assert trials["treelite"].compared > 40 + 32  # the smallest number on a slow machine
    assert set(trials["sklearn"].milliseconds) == {1, 64, 1024}
    assert not trials[manifest.runtime].refused
    loaded = load(Store(tmp_path / "store"), "model", "1")
    assert loaded.predict("predict", X.tolist()) == estimator.predict(X).tolist()


@pytest.mark.parametrize("runtime", ["treelite", "onnx"])
def test_the_requested_runtime_serves(runtime: str, tmp_path: Path) -> None:
    table, values = make_regression(100, 6, random_state=0)
    estimator = GradientBoostingRegressor(n_estimators=10).fit(table, values)
    manifest = _add(tmp_path, estimator, runtime, table[:20].tolist())
    assert manifest.runtime == runtime
    assert manifest.compiled is not None
    assert (tmp_path / f"store/model/1/compiled.{runtime}").stat().st_size == manifest.compiled.size
    loaded = load(Store(tmp_path / "store"), "model", "1")
    predictions = loaded.predict("predict", table.tolist())
    assert np.allclose(predictions, estimator.predict(table), 1e-5, 1e-3)
    assert manifest.libraries[runtime.replace("onnx", "onnxruntime")]


@pytest.mark.parametrize("runtime", ["treelite", "onnx"])
def test_methods_that_a_runtime_does_not_have_are_run_by_scikit_learn(runtime: str, tmp_path: Path) -> None:
    estimator = (
        LogisticRegression().fit(X, Y)
        if runtime == "onnx"
        else RandomForestClassifier(5, random_state=0).fit(X, Y)
    )
    manifest = _add(tmp_path, estimator, runtime)
    loaded = load(Store(tmp_path / "store"), "model", "1")
    for method in manifest.methods:
        with np.errstate(divide="ignore"):
            expected = getattr(estimator, method)(X)
        actual = np.array(loaded.predict(method, X.tolist()), dtype=float)
        assert np.allclose(actual[np.isfinite(expected)], expected[np.isfinite(expected)], 1e-9)


def test_a_requested_runtime_that_cannot_run_the_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the runtime treelite cannot run the model: .*LogisticRegression"):
        _add(tmp_path, LogisticRegression().fit(X, Y), "treelite")
    with pytest.raises(ModelError, match="there is no runtime 'tensorrt' here; there are onnx, "):
        _add(tmp_path, LogisticRegression().fit(X, Y), "tensorrt")
    assert Store(tmp_path / "store").models() == []


def test_the_default_runtime_makes_no_trials(tmp_path: Path) -> None:
    manifest = _add(tmp_path, RandomForestClassifier(5).fit(X, Y), "sklearn")
    assert (manifest.runtime, manifest.trials, manifest.compiled) == ("sklearn", (), None)


def test_a_compiled_artifact_is_verified_before_it_is_read(tmp_path: Path) -> None:
    _add(tmp_path, RandomForestClassifier(5, random_state=0).fit(X, Y), "treelite")
    file = tmp_path / "store/model/1/compiled.treelite"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="digest"):
        load(Store(tmp_path / "store"), "model", "1")
    with pytest.raises(ModelError, match="HEADRACE_MAX_MODEL_BYTES"):
        load(Store(tmp_path / "store"), "model", "1", max_bytes=file.stat().st_size - 1)


def test_the_error_for_a_missing_library_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, library in (("treelite", "treelite"), ("onnx", "onnxruntime")):
        monkeypatch.delitem(sys.modules, f"headrace_worker.runtimes.{module}", raising=False)
        monkeypatch.setitem(sys.modules, library, None)
    estimator = RandomForestClassifier(5, random_state=0).fit(X, Y)
    manifest = _add(tmp_path, estimator, "auto")
    assert manifest.runtime == "sklearn"
    refused = {trial.runtime: trial.refused for trial in manifest.trials}
    assert "pip install 'headrace-worker[treelite]'" in refused["treelite"]
    assert "pip install 'headrace-worker[onnx]'" in refused["onnx"]
    assert load(Store(tmp_path / "store"), "model", "1").predict("predict", X.tolist())
    with pytest.raises(ModelError, match=r"headrace-worker\[treelite\]"):
        _add(tmp_path, estimator, "treelite")
