"""A model that was fitted on datetimes gets them with the unit and the zone of the fitted columns."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from headrace.catalog.contract import Feature, Named
from headrace.errors import InvalidInput, ModelError
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.sample_rows import generate_instances
from headrace_worker.packaging.table import read_table
from headrace_worker.profile import build_profile
from headrace_worker.runtimes.columns import make_column_builder
from headrace_worker.store.store import Store

RANDOM = np.random.default_rng(0)
ROWS = 120
STARTED = pd.Series(pd.Timestamp("2025-10-20") + pd.to_timedelta(RANDOM.integers(0, 30 * 86_400, ROWS), unit="s"))
TABLE = pd.DataFrame(
    {
        "started": STARTED.astype("datetime64[s]"),
        "paid": STARTED.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
        "born": STARTED.dt.date,
        "age": RANDOM.integers(18, 80, ROWS),
        "note": STARTED.dt.strftime("%Y-%m-%d"),
    }
)
TARGET = TABLE["paid"].dt.hour + TABLE["started"].dt.day_of_week


def read_clocks(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "hour": frame["paid"].dt.hour,
            "weekday": frame["started"].dt.day_of_week,
            "year": [np.nan if day is None else day.year for day in frame["born"]],
            "age": frame["age"],
            "texts": frame["note"].str.len(),
        }
    ).fillna(0)


def read_start(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"hour": frame["started"].dt.hour, "texts": frame["note"].str.len()}).fillna(-1)


def _add(folder: Path, step: Any, example: Any, table: pd.DataFrame = TABLE) -> tuple[Any, Manifest, LoadedModel]:
    estimator = make_pipeline(FunctionTransformer(step), LinearRegression()).fit(table, TARGET)
    joblib.dump(estimator, folder / "model.joblib")
    manifest = package(
        Store(folder / "store"), folder / "model.joblib", name="model", example=example, trust_pickle=True
    )
    return estimator, manifest, load(Store(folder / "store"), "model", manifest.version, trust_pickle=True)


def _features(manifest: Manifest) -> dict[str, Feature]:
    assert isinstance(manifest.contract.input, Named)
    return {feature.name: feature for feature in manifest.contract.input.features}


def test_a_typed_table_gives_the_kinds_and_the_predictions_of_the_original(tmp_path: Path) -> None:
    estimator, manifest, loaded = _add(tmp_path, read_clocks, read_table(TABLE))
    described = {name: (feature.kind, feature.dtype) for name, feature in _features(manifest).items()}
    assert described["started"] == ("datetime", "datetime64[s]")
    assert described["paid"][0] == "datetime"
    assert str(described["paid"][1]).endswith(", Europe/Berlin]")
    assert described["born"] == ("date", "object")
    assert described["note"] == ("string", "str")
    assert manifest.proof is not None
    assert manifest.proof.compared == ROWS
    # The offset is the producer's choice: the hour is Berlin's.
    row = read_table(TABLE).instances[0]
    offsets = [str(TABLE["paid"][0].tz_convert(zone).isoformat()) for zone in ("UTC", "Asia/Tokyo")]
    predictions = loaded.predict("predict", [{**row, "paid": text} for text in offsets])
    assert predictions == pytest.approx([estimator.predict(TABLE[:1])[0]] * 2)


def test_a_profile_leaves_datetimes_out(tmp_path: Path) -> None:
    _, manifest, _ = _add(tmp_path, read_clocks, read_table(TABLE))
    assert manifest.profile is not None
    assert [column.name for column in manifest.profile.features] == ["age", "note"]
    instances = read_table(TABLE).instances
    assert build_profile(manifest.contract, instances, [0.0] * ROWS).features == manifest.profile.features


@pytest.mark.parametrize("form", ["json", "csv"])
def test_texts_become_datetimes_only_where_the_model_needs_them(form: str, tmp_path: Path) -> None:
    table, file = TABLE[["started", "note"]], tmp_path / f"rows.{form}"
    if form == "csv":
        table.to_csv(file, index=False)
    else:
        table.to_json(file, orient="records", date_format="iso")
        file.write_text(file.read_text().replace("Z", ""))
    estimator, manifest, loaded = _add(tmp_path, read_start, file, table)
    described = {name: (feature.kind, feature.dtype) for name, feature in _features(manifest).items()}
    assert described == {"started": ("datetime", "datetime64[us]"), "note": ("string", None)}
    predictions = loaded.predict("predict", read_table(table).instances)
    np.testing.assert_allclose(predictions, estimator.predict(table))


def test_texts_with_a_zone_become_datetimes_in_utc(tmp_path: Path) -> None:
    table = pd.DataFrame({"started": STARTED.dt.tz_localize("UTC"), "note": TABLE["note"]})
    _, manifest, _ = _add(tmp_path, read_start, read_table(table), table)
    untyped = package(
        Store(tmp_path / "store"),
        tmp_path / "model.joblib",
        name="untyped",
        example=read_table(read_table(table).instances),
        trust_pickle=True,
    )
    assert _features(untyped)["started"].dtype == "datetime64[us, UTC]"
    assert _features(manifest)["started"].has_zone


def parse_note(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.to_datetime(frame["note"]).dt.day})


def test_texts_that_the_model_parses_itself_stay_texts(tmp_path: Path) -> None:
    instances = [{"note": text} for text in TABLE["note"]]
    _, manifest, _ = _add(tmp_path, parse_note, read_table(instances), TABLE[["note"]])
    assert _features(manifest)["note"].kind == "string"


def test_a_missing_datetime_is_accepted_if_the_model_takes_it(tmp_path: Path) -> None:
    _, manifest, loaded = _add(
        tmp_path, read_start, read_table(TABLE[["started", "note"]]), TABLE[["started", "note"]]
    )
    assert _features(manifest)["started"].nullable
    assert len(loaded.predict("predict", [{"started": None, "note": "x"}])) == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["", ", UTC", ", Europe/Berlin", ", UTC+05:30"])
def test_a_column_has_the_unit_and_the_zone_it_was_fitted_with(unit: str, zone: str) -> None:
    feature = Feature(name="x", kind="datetime", dtype=f"datetime64[{unit}{zone}]", nullable=True)
    instant = "2025-10-26T01:30:00.123456789" + ("+00:00" if zone else "")
    column = pd.Series(make_column_builder(feature, None)([instant, None]))
    assert str(column.dtype) == f"datetime64[{unit}{zone}]"
    assert column[0] == pd.Timestamp(instant).as_unit(unit)  # type: ignore[arg-type]  # a unit
    assert column[1] is pd.NaT


def test_a_datetime_that_does_not_fit_the_unit_is_refused_and_not_wrapped() -> None:
    build = make_column_builder(Feature(name="x", kind="datetime", dtype="datetime64[ns]"), None)
    for text in ("1500-01-01T00:00:00", "2300-01-01T00:00:00"):
        with pytest.raises(InvalidInput, match="1678 to 2261"):
            build([text])


def test_dates_reach_the_model_as_objects_or_as_datetimes() -> None:
    values = ["2026-01-02", None]
    objects = make_column_builder(Feature(name="x", kind="date", dtype="object", nullable=True), None)(values)
    assert objects.tolist() == [dt.date(2026, 1, 2), None]
    column = make_column_builder(Feature(name="x", kind="date", nullable=True), None)(values)
    assert column[0] == np.datetime64("2026-01-02")


@pytest.mark.parametrize("dtype", ["datetime64[us, Mars/Base]", "int64", "datetime64[ns, pytz.FixedOffset(60)]"])
def test_a_type_that_cannot_be_built_is_refused_when_the_version_is_loaded(dtype: str) -> None:
    with pytest.raises(ModelError, match="cannot be built here"):
        make_column_builder(Feature(name="x", kind="datetime", dtype=dtype), None)


def test_durations_are_refused_with_the_types_that_a_feature_may_have() -> None:
    with pytest.raises(ModelError, match="a datetime64 or a date; convert the column"):
        read_table(pd.DataFrame({"length": pd.to_timedelta([1, 2], unit="s")}))


def test_generated_datetimes_lie_within_the_range_of_the_example() -> None:
    features = (
        Feature(name="started", kind="datetime", dtype="datetime64[us, UTC]"),
        Feature(name="born", kind="date"),
    )
    example = [
        {"started": "2026-01-01T00:00:00Z", "born": "2026-01-01"},
        {"started": "2026-01-03T12:00:00+01:00", "born": "2026-02-01"},
    ]
    rows = generate_instances(Named(features=features), example, 50)
    started = [pd.Timestamp(row["started"]) for row in rows]
    assert len(set(started)) > 10
    assert min(started) >= pd.Timestamp("2026-01-01T00:00Z")
    assert max(started) <= pd.Timestamp("2026-01-03T11:00Z")
    assert {len(row["born"]) for row in rows} == {10}
