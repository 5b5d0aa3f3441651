"""Boosters of XGBoost are stored as XGBoost's files, loaded without trust, and predict as XGBoost itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost
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
    ROWS,
    SIZES,
    TABLE,
    add_booster,
    assert_same_answers,
    load_as_worker,
)

FILES = Path(__file__).parent / "files"
OPTIONS: dict[str, Any] = {"n_jobs": 1, "n_estimators": 10, "enable_categorical": True, "max_cat_to_onehot": 1}
CLASSES = np.unique(SIZES, return_inverse=True)[1]
#: The probabilities that XGBoost 2.1.1 gave, with the model of these files.
OLD_PROBABILITIES = [0.2664371430873871, 0.11981986463069916, 0.4493602216243744, 0.6403352618217468]


def train(target: Any, data: Any = TABLE, **parameters: Any) -> xgboost.Booster:
    return xgboost.train({"nthread": 1, **parameters}, xgboost.DMatrix(data, target, enable_categorical=True), 10)


@pytest.mark.parametrize(
    ("data", "target", "options", "suffix"),
    [
        (TABLE, IS_LARGE.astype(int), {}, ""),
        (TABLE, CLASSES, {}, ".json"),
        (NUMBERS, CLASSES, {"objective": "multi:softmax", "booster": "dart"}, ".ubj"),
        (NUMBERS.to_numpy(), CLASSES, {"n_jobs": 4}, ""),
    ],
    ids=["two classes", "three classes", "softmax and dart", "an array"],
)
def test_a_classifier_or_its_file_predicts_as_xgboost(
    data: Any, target: Any, options: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(**{**OPTIONS, **options}).fit(data, target)
    file = tmp_path / f"model{suffix}"
    if suffix:
        model.save_model(file)
    manifest = add_booster(tmp_path, file if suffix else model, data)
    assert manifest.format == "xgboost"
    assert manifest.libraries["xgboost"] == xgboost.__version__
    expected = {"predict": model.predict(data), "predict_proba": model.predict_proba(data)}
    assert manifest.contract.methods["predict_proba"].classes == tuple(model.classes_.tolist())
    assert_same_answers(load_as_worker(tmp_path), read_table(data).instances, expected)
    if not suffix:
        assert manifest.estimator == "XGBClassifier"
        assert manifest.proof is not None
        assert (manifest.proof.compared, manifest.proof.difference) == (len(data), 0.0)


def test_regressors_and_rankers_predict_as_xgboost(tmp_path: Path) -> None:
    group = np.repeat(np.arange(ROWS // 8), 8)
    models = {
        "squares": xgboost.XGBRegressor(**OPTIONS).fit(TABLE, AMOUNT),
        "linear": xgboost.XGBRegressor(booster="gblinear", n_estimators=10).fit(NUMBERS.fillna(0), AMOUNT),
        "forest": xgboost.XGBRFRegressor(**OPTIONS, objective="count:poisson").fit(TABLE, np.abs(AMOUNT)),
        "ranker": xgboost.XGBRanker(**OPTIONS).fit(TABLE, CLASSES, qid=group),
    }
    for name, model in models.items():
        data = NUMBERS.fillna(0) if name == "linear" else TABLE
        add_booster(tmp_path / name, model, data)
        assert_same_answers(
            load_as_worker(tmp_path / name), read_table(data).instances, {"predict": model.predict(data)}
        )


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "multi:softprob", "num_class": 3},
        {"objective": "multi:softmax", "num_class": 3},
        {"objective": "binary:logitraw"},
        {"booster": "gblinear"},
    ],
    ids=lambda parameters: next(iter(parameters.values())),
)
def test_a_booster_or_its_ubjson_file_predicts_as_the_booster(parameters: dict[str, Any], tmp_path: Path) -> None:
    data = NUMBERS.fillna(0) if "booster" in parameters else TABLE
    booster = train(CLASSES if "num_class" in parameters else IS_LARGE, data, **parameters)
    file = tmp_path / "booster.ubj"
    booster.save_model(file)
    expected = {"predict": booster.predict(xgboost.DMatrix(data, enable_categorical=True))}
    model = file if parameters.get("objective") == "multi:softprob" else booster
    assert add_booster(tmp_path, model, data).format == "xgboost"
    assert_same_answers(load_as_worker(tmp_path), read_table(data).instances, expected)


def test_early_stopping_keeps_the_best_iteration_of_an_estimator_and_all_of_a_booster(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=300, learning_rate=0.9, early_stopping_rounds=20)
    model.fit(NUMBERS[:120], AMOUNT[:120], eval_set=[(NUMBERS[120:], AMOUNT[120:])], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    whole = booster.predict(xgboost.DMatrix(NUMBERS))
    assert not np.array_equal(whole, model.predict(NUMBERS))
    for name, fitted, expected in (("model", model, model.predict(NUMBERS)), ("booster", booster, whole)):
        add_booster(tmp_path / name, fitted, NUMBERS)
        assert_same_answers(load_as_worker(tmp_path / name), read_table(NUMBERS).instances, {"predict": expected})


def test_texts_of_an_example_without_types_become_the_categories_the_booster_knows(tmp_path: Path) -> None:
    booster = train(AMOUNT)
    instances = read_table(TABLE).instances
    example = tmp_path / "rows.json"
    example.write_text(json.dumps(instances))
    manifest = package(Store(tmp_path / "store"), booster, name="model", example=example)
    assert manifest.contract.input.features[2].categories == ("free", "gold", "team")  # type: ignore[union-attr]
    loaded = load_as_worker(tmp_path)
    expected = booster.predict(xgboost.DMatrix(TABLE, enable_categorical=True))
    assert_same_answers(loaded, instances, {"predict": expected})
    with pytest.raises(InvalidInput, match="plan"):
        check_instances(loaded.contract, [{"weight": 1.0, "visits": 2, "plan": "silver"}])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (xgboost.XGBRegressor(missing=-1.0).fit(NUMBERS, AMOUNT), "put NaN"),
        (
            xgboost.XGBRegressor(objective=lambda y, p: (p - y, np.ones(len(y)))).fit(NUMBERS, AMOUNT),
            "get_booster",
        ),
        (xgboost.XGBClassifier().fit(NUMBERS, np.column_stack([IS_LARGE, ~IS_LARGE])), "get_booster"),
        (xgboost.XGBClassifier(), "fit"),
    ],
    ids=["missing", "objective", "labels", "not fitted"],
)
def test_what_xgboosts_files_do_not_hold_is_refused_with_advice(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"a XGB\w+ cannot be stored: .*{message}"):
        add_booster(tmp_path, model, NUMBERS)


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_a_file_of_an_older_xgboost_predicts_as_it_did_there(suffix: str, tmp_path: Path) -> None:
    add_booster(tmp_path, FILES / f"xgboost-2.1.{suffix}", NUMBERS)
    loaded = load_as_worker(tmp_path)
    checked = check_instances(loaded.contract, read_table(NUMBERS[:4]).instances)
    second_class = [row[1] for row in loaded.predict("predict_proba", checked)]
    np.testing.assert_allclose(second_class, OLD_PROBABILITIES, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((FILES / "xgboost-2.1.model").read_bytes(), r"binary format, .* save it again as \.ubj"),
        ("\n".join(train(AMOUNT, NUMBERS).get_dump()).join(["booster[0]:\n", ""]).encode(), "for people"),
        (f"[{','.join(train(AMOUNT, NUMBERS).get_dump(dump_format='json'))}]".encode(), "for people"),
        (b'{"learner": {"attributes": {}}}', "xgboost cannot load"),
        (b"{L\0\0\0\0\0\0\0\7learner", "xgboost cannot load"),
    ],
    ids=["binary", "dump", "dump as JSON", "empty", "truncated"],
)
def test_a_file_that_xgboost_cannot_load_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.model").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        add_booster(tmp_path, tmp_path / "bad.model", NUMBERS)


def test_a_truncated_or_forged_file_ends_a_child_only(tmp_path: Path) -> None:
    booster = train(AMOUNT, NUMBERS)
    text = booster.save_raw("json").decode()
    tree = json.loads(text)["learner"]["gradient_booster"]["model"]["trees"][0]
    children = json.dumps(tree["left_children"], separators=(",", ":"))
    data = bytes(booster.save_raw("ubj"))
    forged = {
        "children.json": text.replace(children, children.replace("[1", "[99999999"), 1).encode(),
        "negative.json": text.replace(children, children.replace("[1", "[-99999999"), 1).encode(),
        "half.ubj": data[: len(data) // 2],
        "size.ubj": data.replace(b"[$l#L\0\0\0\0\0\0\0", b"[$l#L\x7f\xff\xff\xff\0\0\0", 1),
    }
    for name, content in forged.items():
        assert content not in {text.encode(), data}
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name} was read in a process of its own first|cannot load {name}"):
            add_booster(tmp_path, tmp_path / name, NUMBERS)


def test_a_pickled_pipeline_that_ends_in_a_booster_predicts_with_one_thread_after_a_fork(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=10, n_jobs=4))
    model.fit(NUMBERS, CLASSES)
    joblib.dump(model, tmp_path / "pipeline.joblib")
    manifest = add_booster(tmp_path, tmp_path / "pipeline.joblib", NUMBERS, trust_pickle=True)
    assert manifest.format == "joblib"
    loaded = load(Store(tmp_path / "store"), "model", "1", trust_pickle=True)
    expected = {method: getattr(model, method)(NUMBERS) for method in manifest.methods}
    assert_same_answers(loaded, read_table(NUMBERS).instances, expected)
