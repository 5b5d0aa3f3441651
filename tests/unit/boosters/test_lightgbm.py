"""Boosters of LightGBM are stored as LightGBM's text, loaded without trust, and predict as LightGBM itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, ModelError
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from tests.support.booster_models import (
    AMOUNT,
    IS_LARGE,
    NUMBERS,
    SIZES,
    TABLE,
    add_booster,
    assert_same_answers,
    load_as_worker,
)

OPTIONS: dict[str, Any] = {"n_estimators": 15, "min_child_samples": 5, "verbose": -1}


def fit_booster(data: Any, target: Any, **parameters: Any) -> lightgbm.Booster:
    options = {"verbose": -1, "min_data_in_leaf": 5, **parameters}
    return lightgbm.train(options, lightgbm.Dataset(data, target), num_boost_round=15)


CLASSIFIERS = {
    "two classes of booleans": (TABLE, IS_LARGE),
    "two classes of integers": (TABLE, IS_LARGE + 4),
    "three classes of texts": (TABLE, SIZES),
    "numbers only": (NUMBERS, SIZES),
    "an array": (NUMBERS.to_numpy(), SIZES),
}


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_a_classifier_predicts_as_lightgbm(case: str, tmp_path: Path) -> None:
    data, target = CLASSIFIERS[case]
    model = lightgbm.LGBMClassifier(**OPTIONS).fit(data, target)
    manifest = add_booster(tmp_path, model, data)
    assert (manifest.format, manifest.estimator) == ("lightgbm", "LGBMClassifier")
    assert manifest.libraries["lightgbm"] == lightgbm.__version__
    assert manifest.proof is not None
    assert manifest.proof.compared == len(data)
    expected = {"predict": model.predict(data), "predict_proba": model.predict_proba(data)}
    assert manifest.contract.methods["predict_proba"].classes == tuple(model.classes_.tolist())
    assert_same_answers(load_as_worker(tmp_path), read_table(data).instances, expected)


@pytest.mark.parametrize("objective", ["regression", "poisson", "quantile"])
def test_a_regressor_predicts_as_lightgbm(objective: str, tmp_path: Path) -> None:
    amount = np.abs(AMOUNT)
    model = lightgbm.LGBMRegressor(**OPTIONS, objective=objective).fit(TABLE, amount)
    add_booster(tmp_path, model, TABLE)
    assert_same_answers(load_as_worker(tmp_path), read_table(TABLE).instances, {"predict": model.predict(TABLE)})


@pytest.mark.parametrize(
    ("parameters", "target"),
    [
        ({"objective": "binary"}, IS_LARGE),
        ({"objective": "multiclass", "num_class": 3}, np.unique(SIZES, return_inverse=True)[1]),
        ({"objective": "multiclassova", "num_class": 3}, np.unique(SIZES, return_inverse=True)[1]),
        ({"objective": "regression", "linear_tree": True}, AMOUNT),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_booster_and_its_text_file_predict_as_the_booster(
    parameters: dict[str, Any], target: Any, as_file: bool, tmp_path: Path
) -> None:
    data = NUMBERS if "linear_tree" in parameters else TABLE
    booster = fit_booster(data, target, **parameters)
    file = tmp_path / "booster.txt"
    booster.save_model(file)
    manifest = add_booster(tmp_path, file if as_file else booster, data)
    assert manifest.format == "lightgbm"
    assert_same_answers(load_as_worker(tmp_path), read_table(data).instances, {"predict": booster.predict(data)})


def test_a_stored_booster_is_a_file_that_lightgbm_reads(tmp_path: Path) -> None:
    booster = fit_booster(TABLE, AMOUNT)
    add_booster(tmp_path, booster, TABLE)
    stored = lightgbm.Booster(model_file=tmp_path / "store" / "model" / "1" / "artifact.lightgbm")
    np.testing.assert_array_equal(stored.predict(TABLE), booster.predict(TABLE))


def test_a_file_of_an_older_lightgbm_predicts_as_it_did_there(tmp_path: Path) -> None:
    rows = pd.DataFrame({"weight": [-1.0, 0.5, 2.0, -0.5], "visits": [2, 3, 7, 8]})
    add_booster(tmp_path, Path(__file__).parent / "files" / "lightgbm-3.3.txt", rows)
    loaded = load_as_worker(tmp_path)
    predictions = loaded.predict("predict", check_instances(loaded.contract, read_table(rows).instances))
    by_lightgbm_3_3_5 = [0.7434559869383046, 1.326980885541709, 1.659669504546086, 1.0663249687757848]
    np.testing.assert_allclose(predictions, by_lightgbm_3_3_5, rtol=1e-12)


def test_texts_of_an_example_without_types_become_the_categories_the_booster_knows(tmp_path: Path) -> None:
    booster = fit_booster(TABLE, AMOUNT)
    instances = read_table(TABLE).instances
    example = tmp_path / "rows.json"
    example.write_text(pd.Series(instances).to_json(orient="values"))
    package(Store(tmp_path / "store"), booster, name="model", example=example)
    assert_same_answers(load_as_worker(tmp_path), instances, {"predict": booster.predict(TABLE)})


def test_early_stopping_keeps_the_best_iteration(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(**{**OPTIONS, "n_estimators": 300, "learning_rate": 0.9})
    model.fit(
        NUMBERS[:120], AMOUNT[:120], eval_X=(NUMBERS[120:],), eval_y=(AMOUNT[120:],),
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )  # fmt: skip
    assert model.best_iteration_ < 300
    add_booster(tmp_path, model, NUMBERS)
    assert_same_answers(
        load_as_worker(tmp_path), read_table(NUMBERS).instances, {"predict": model.predict(NUMBERS)}
    )


def test_the_fastest_runtime_of_a_booster_is_its_library(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(**OPTIONS).fit(NUMBERS, AMOUNT)
    manifest = add_booster(tmp_path, model, NUMBERS, runtime="auto")
    assert manifest.runtime == "sklearn"
    refused = {trial.runtime: trial.refused for trial in manifest.trials}
    assert refused["treelite"] == "a booster is executed by its own library"


def test_names_with_spaces_stay_as_the_table_has_them(tmp_path: Path) -> None:
    data = TABLE.rename(columns={"weight": "weight in kg"})
    model = lightgbm.LGBMRegressor(**OPTIONS).fit(data, AMOUNT)
    manifest = add_booster(tmp_path, model, data)
    assert manifest.contract.input.features[0].name == "weight in kg"  # type: ignore[union-attr]  # named
    assert_same_answers(load_as_worker(tmp_path), read_table(data).instances, {"predict": model.predict(data)})


def test_a_trusted_pickle_and_the_best_of_a_search_are_stored_as_text_too(tmp_path: Path) -> None:
    search = GridSearchCV(lightgbm.LGBMClassifier(**OPTIONS), {"num_leaves": [3, 7]}, cv=2).fit(TABLE, IS_LARGE)
    joblib.dump(search, tmp_path / "search.joblib")
    manifest = add_booster(tmp_path, tmp_path / "search.joblib", TABLE, trust_pickle=True)
    assert manifest.format == "lightgbm"
    expected = {"predict": search.predict(TABLE), "predict_proba": search.predict_proba(TABLE)}
    assert_same_answers(load_as_worker(tmp_path), read_table(TABLE).instances, expected)


def test_a_category_that_was_never_seen_is_bad_input(tmp_path: Path) -> None:
    add_booster(tmp_path, lightgbm.LGBMRegressor(**OPTIONS).fit(TABLE, AMOUNT), TABLE)
    with pytest.raises(InvalidInput, match="plan"):
        check_instances(load_as_worker(tmp_path).contract, [{"weight": 1.0, "visits": 2, "plan": "silver"}])


def test_columns_in_another_order_than_fitted_are_refused(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(**OPTIONS).fit(NUMBERS, AMOUNT)
    with pytest.raises(ModelError, match="predict differs from the model's own predictions"):
        add_booster(tmp_path, model, NUMBERS[["visits", "weight"]])


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a LGBMClassifier cannot be stored: .*fit"):
        add_booster(tmp_path, lightgbm.LGBMClassifier(), TABLE)


@pytest.mark.parametrize(
    "content", [b"tree\n", b"tree\nversion=v4\n\xff", b"tree\nnum_class=1\nfeature_infos=[0:1]\n"]
)
def test_a_damaged_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.txt"):
        add_booster(tmp_path, tmp_path / "bad.txt", NUMBERS)


def test_a_text_whose_nodes_point_outside_of_it_ends_a_child_only(tmp_path: Path) -> None:
    text = fit_booster(NUMBERS, AMOUNT).model_to_string()
    forged = text.replace("left_child=1 ", "left_child=99999999 ").replace("left_child=2 ", "left_child=99999999 ")
    assert forged != text
    (tmp_path / "forged.txt").write_text(forged)
    with pytest.raises(ModelError, match=r"in a process of its own first|cannot load"):
        add_booster(tmp_path, tmp_path / "forged.txt", NUMBERS)


def test_a_pickled_pipeline_that_ends_in_a_booster_predicts_with_one_thread_after_a_fork(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**OPTIONS, n_jobs=4)).fit(NUMBERS, IS_LARGE)
    joblib.dump(model, tmp_path / "pipeline.joblib")
    manifest = add_booster(tmp_path, tmp_path / "pipeline.joblib", NUMBERS, trust_pickle=True)
    assert manifest.format == "joblib"
    loaded = load(Store(tmp_path / "store"), "model", "1", trust_pickle=True)
    expected = {method: getattr(model, method)(NUMBERS) for method in manifest.methods}
    assert_same_answers(loaded, read_table(NUMBERS).instances, expected)


def test_without_trust_a_pipeline_that_ends_in_a_booster_is_refused_with_advice(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**OPTIONS)).fit(NUMBERS, IS_LARGE)
    with pytest.raises(ModelError, match="trust"):
        add_booster(tmp_path, model, NUMBERS)
