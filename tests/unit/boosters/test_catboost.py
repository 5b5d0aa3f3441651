"""Boosters of CatBoost are stored as CatBoost's files, loaded without trust, and predict as CatBoost itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest

from headrace.errors import ModelError
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

OPTIONS: dict[str, Any] = {"iterations": 10, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
#: CatBoost takes no missing categories. Integers and texts are categories here, with gaps among the numbers.
TEXTS = TABLE.assign(plan=TABLE["plan"].astype("str").fillna("none"))
CATEGORIES = TEXTS.astype({"plan": "category"})
COLUMNS = ["visits", "plan"]
WORDS = TEXTS.assign(plan=["a good plan" if is_large else "no plan today" for is_large in IS_LARGE])


@pytest.mark.parametrize(
    ("data", "target", "options"),
    [
        (TEXTS, SIZES, {"cat_features": COLUMNS, "thread_count": 4}),
        (CATEGORIES, IS_LARGE, {"cat_features": COLUMNS}),
        (WORDS, IS_LARGE + 4, {"cat_features": ["visits"], "text_features": ["plan"]}),
        (NUMBERS.to_numpy(), SIZES, {}),
        (NUMBERS, np.column_stack([IS_LARGE, ~IS_LARGE]).astype(int), {"loss_function": "MultiLogloss"}),
    ],
    ids=["texts", "categories", "text features", "an array", "several labels"],
)
def test_a_classifier_and_its_file_predict_as_catboost(
    data: Any, target: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    model = catboost.CatBoostClassifier(**{**OPTIONS, **options}).fit(data, target)
    file = tmp_path / "model.cbm"
    model.save_model(str(file))
    labels = model.predict(data)
    expected = {
        "predict": labels[:, 0] if labels.shape[1:] == (1,) else labels,
        "predict_proba": model.predict_proba(data),
    }
    for folder, source in ((tmp_path / "object", model), (tmp_path / "file", file)):
        manifest = add_booster(folder, source, data)
        assert manifest.format == "catboost"
        assert manifest.libraries["catboost"] == catboost.__version__
        assert manifest.contract.methods["predict_proba"].classes == tuple(model.classes_.tolist())
        assert_same_answers(load_as_worker(folder), read_table(data).instances, expected)
        if source is model:
            assert manifest.estimator == "CatBoostClassifier"
            assert manifest.proof is not None
            assert manifest.proof.compared == len(data)


@pytest.mark.parametrize("loss", ["RMSE", "Poisson", "RMSEWithUncertainty", "ranker"])
def test_regressors_and_rankers_predict_as_catboost(loss: str, tmp_path: Path) -> None:
    if loss == "ranker":
        pool = catboost.Pool(NUMBERS, np.abs(AMOUNT), group_id=np.repeat(np.arange(30), 8))
        model = catboost.CatBoostRanker(**OPTIONS).fit(pool)
    else:
        model = catboost.CatBoostRegressor(**OPTIONS, loss_function=loss).fit(NUMBERS, np.abs(AMOUNT))
    add_booster(tmp_path, model, NUMBERS)
    assert_same_answers(
        load_as_worker(tmp_path), read_table(NUMBERS).instances, {"predict": model.predict(NUMBERS)}
    )


def test_a_model_of_the_base_class_becomes_the_estimator_of_its_loss(tmp_path: Path) -> None:
    model = catboost.CatBoost({**OPTIONS, "loss_function": "Logloss"}).fit(NUMBERS, IS_LARGE.astype(int))
    manifest = add_booster(tmp_path, model, NUMBERS)
    expected = {
        "predict": model.predict(NUMBERS, prediction_type="Class").astype(int),
        "predict_proba": model.predict(NUMBERS, prediction_type="Probability"),
    }
    assert manifest.estimator == "CatBoost"
    assert_same_answers(load_as_worker(tmp_path), read_table(NUMBERS).instances, expected)
    counts = catboost.CatBoost({**OPTIONS, "loss_function": "Tweedie:variance_power=1.5"})
    counts.fit(NUMBERS, np.abs(AMOUNT))
    add_booster(tmp_path / "counts", counts, NUMBERS)
    expected = {"predict": counts.predict(NUMBERS, prediction_type="Exponent")}
    assert_same_answers(load_as_worker(tmp_path / "counts"), read_table(NUMBERS).instances, expected)


def test_early_stopping_keeps_the_best_iteration(tmp_path: Path) -> None:
    model = catboost.CatBoostRegressor(**{**OPTIONS, "iterations": 300, "learning_rate": 0.9})
    model.fit(NUMBERS[:120], AMOUNT[:120], eval_set=(NUMBERS[120:], AMOUNT[120:]), early_stopping_rounds=5)
    assert model.tree_count_ == model.best_iteration_ + 1 < 300
    add_booster(tmp_path, model, NUMBERS)
    assert_same_answers(
        load_as_worker(tmp_path), read_table(NUMBERS).instances, {"predict": model.predict(NUMBERS)}
    )


def test_rows_of_json_have_the_types_that_the_model_was_fitted_on(tmp_path: Path) -> None:
    model = catboost.CatBoostRegressor(**OPTIONS, cat_features=COLUMNS).fit(TEXTS, AMOUNT)
    instances = read_table(TEXTS).instances
    (tmp_path / "rows.json").write_text(json.dumps(instances))
    package(Store(tmp_path / "store"), model, name="model", example=tmp_path / "rows.json")
    assert_same_answers(load_as_worker(tmp_path), instances, {"predict": model.predict(TEXTS)})


def test_a_model_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a CatBoostClassifier cannot be stored: it is not fitted"):
        add_booster(tmp_path, catboost.CatBoostClassifier(), NUMBERS)


def test_catboosts_json_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    catboost.CatBoostRegressor(**OPTIONS).fit(NUMBERS, AMOUNT).save_model(str(file), format="json")
    with pytest.raises(ModelError, match=r"model\.json is CatBoost's JSON, .*model\.cbm"):
        add_booster(tmp_path, file, NUMBERS)


def test_a_truncated_or_forged_file_ends_a_child_only(tmp_path: Path) -> None:
    file = tmp_path / "model.cbm"
    catboost.CatBoostRegressor(**OPTIONS, cat_features=COLUMNS).fit(TEXTS, AMOUNT).save_model(str(file))
    data = file.read_bytes()
    forged = {
        "start.cbm": data[:40],
        "half.cbm": data[: len(data) // 2],
        "size.cbm": data[:4] + b"\xff\xff\xff\x7f" + data[8:],
        "holes.cbm": data[:100] + b"\xff" * 400 + data[500:],
    }
    for name, content in forged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name} was read in a process of its own first|cannot load {name}"):
            add_booster(tmp_path, tmp_path / name, TEXTS)
